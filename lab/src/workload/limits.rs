//! How long is waited for programs in guests.

use std::time::Duration;

pub use crate::testbed::stations::START_LIMIT;

/// What a client may need beyond the measurement itself, such as for warming up and sorting.
const MARGIN: Duration = Duration::from_secs(40);

/// What a client may take that measures for so many seconds.
pub fn limit(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + MARGIN
}
