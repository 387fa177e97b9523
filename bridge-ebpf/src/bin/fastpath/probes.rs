//! Programs that the user side runs by hand, and that meet no frame; and one that meets frames and only looks at them.

mod add;
mod ask;
mod observe;
mod peek;
mod tell;
