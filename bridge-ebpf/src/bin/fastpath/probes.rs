//! Programs that the user side runs by hand, and that meet no frame.

mod ask;
mod peek;
