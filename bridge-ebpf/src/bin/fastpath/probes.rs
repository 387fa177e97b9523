//! Programs that the user side runs by hand, and that meet no frame.

mod add;
mod ask;
mod peek;
mod tell;
