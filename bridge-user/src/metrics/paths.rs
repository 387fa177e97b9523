//! Which paths there are samples of: there may be thousands.

use std::{cmp::Reverse, fmt, str::FromStr};

use super::DEFAULT_PATHS;
use crate::snapshot::statistics::{BridgeStatistics, Count, PathStatistics};

/// Of which paths there are samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Of all that are counted.
    All,
    /// Of so many, those by which most frames have gone.
    Busiest(usize),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Busiest(DEFAULT_PATHS)
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Busiest(0) => formatter.write_str("none"),
            Self::Busiest(most) => most.fmt(formatter),
        }
    }
}

impl FromStr for Paths {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::Busiest(0)),
            number => number
                .parse()
                .map(Self::Busiest)
                .map_err(|_| "must be a number, 'all' or 'none'"),
        }
    }
}

/// A bridge, what went from one of its ports to another by each hook, and the sum of that.
type Path<'all> = (Option<&'all str>, &'all [PathStatistics], Count);

/// The paths that there are samples of, and what the others come to.
pub(super) struct Chosen<'all> {
    pub told: Vec<(Option<&'all str>, &'all PathStatistics)>,
    pub omitted: usize,
    /// What has gone by those that are omitted.
    pub sum: Count,
}

impl<'all> Chosen<'all> {
    pub fn of(bridges: &'all [BridgeStatistics], wanted: Paths) -> Self {
        let mut paths: Vec<Path<'all>> = Vec::new();
        for bridge in bridges {
            // Those with the same ends follow each other. A path by both hooks is one.
            let same = |one: &PathStatistics, other: &PathStatistics| {
                (&one.from, &one.to) == (&other.from, &other.to)
            };
            for parts in bridge.paths.chunk_by(same) {
                let mut sum = Count::default();
                for part in parts {
                    sum += Count {
                        frames: part.frames,
                        bytes: part.bytes,
                    };
                }
                paths.push((bridge.bridge.as_deref(), parts, sum));
            }
        }
        let most = match wanted {
            Paths::All => paths.len(),
            Paths::Busiest(most) => most.min(paths.len()),
        };
        // Stable: of those that are equally busy the same ones each time.
        paths.sort_by_key(|(_, _, sum)| Reverse(sum.frames));
        let mut rest = Count::default();
        for (_, _, sum) in &paths[most..] {
            rest += *sum;
        }
        Self {
            omitted: paths.len() - most,
            sum: rest,
            told: paths[..most]
                .iter()
                .flat_map(|(bridge, parts, _)| parts.iter().map(|part| (*bridge, part)))
                .collect(),
        }
    }
}
