//! The programs that frames meet, each from top to bottom: context, frame, decision, act, count.

mod tcx;
mod xdp;
