//! What a bench has found out, whole: the document that it writes.

use serde::{Deserialize, Serialize};

use super::case;
use crate::{host::machine::Machine, report::compare::Spread};

/// Raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// The datapaths that every other is compared with.
pub const PEERS: [&str; 4] = ["linux-bridge", "macvtap", "floor-xdp", "floor-tcx"];

/// What came of a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of each of the case's figures.
    pub values: Vec<f64>,
    /// Frames that were written.
    pub frames: u64,
    /// Copies of them that were not there to be read.
    pub lost: u64,
}

/// Everything that a bench has found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub schema: u32,
    /// When it began, such as "2026-11-23T10:00:00Z".
    pub started: String,
    /// How long all took.
    pub seconds: f64,
    /// The revision of this project that was measured, if it is known.
    pub revision: Option<String>,
    pub machine: Machine,
    pub rounds: u32,
    /// Of a turn: one case over one datapath in one round.
    pub turn_ms: u64,
    /// Case by case.
    pub measured: Vec<Measured>,
    /// To each of the peers, case by case.
    pub ratios: Vec<Comparison>,
    /// Cases that were asked for and can't be measured on this machine.
    #[serde(default)]
    pub not_measured: Vec<NotMeasured>,
}

/// A case, and why it was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMeasured {
    pub case: String,
    pub reason: String,
}

/// One figure of a case over one datapath.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub case: String,
    pub datapath: String,
    /// With its unit, such as "ns/frame". Less is better.
    pub figure: String,
    pub min: f64,
    pub median: f64,
    /// Round by round.
    pub values: Vec<f64>,
    /// Frames written, in all rounds.
    pub frames: u64,
    /// Copies of them that did not arrive.
    pub lost: u64,
}

/// One datapath beside another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub case: String,
    pub figure: String,
    pub datapath: String,
    /// The other datapath.
    pub to: String,
    #[serde(flatten)]
    pub ratio: Ratio,
}

/// How many times as much something took as something else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Of the two best rounds; null where the other one's is nothing, as a share may be.
    #[serde(rename = "min")]
    pub best: Option<f64>,
    /// Over the ratios within each round.
    pub median: f64,
}

impl Ratio {
    /// The smaller of the two.
    pub fn least(self) -> f64 {
        self.best.unwrap_or(f64::INFINITY).min(self.median)
    }
}

impl NotMeasured {
    /// For people.
    pub fn text(&self) -> String {
        format!("{}: not measured, since {}", self.case, self.reason)
    }
}

impl Measured {
    /// From the turns of all rounds, each of which has this figure; `None` of no turn.
    pub fn new(
        case: &str,
        datapath: &str,
        (number, figure): (usize, &str),
        turns: &[Sample],
    ) -> Option<Self> {
        let values: Vec<f64> = turns.iter().map(|turn| turn.values[number]).collect();
        let Spread { min, median, .. } = Spread::of(values.iter().copied())?;
        Some(Self {
            case: case.into(),
            datapath: datapath.into(),
            figure: figure.into(),
            min,
            median,
            values,
            frames: turns.iter().map(|turn| turn.frames).sum(),
            lost: turns.iter().map(|turn| turn.lost).sum(),
        })
    }

    /// The best round: of shares the greatest, of all else the least.
    fn best(&self) -> f64 {
        if case::is_share(&self.figure) {
            self.values.iter().copied().fold(self.min, f64::max)
        } else {
            self.min
        }
    }

    /// Beside another that was measured in the same rounds; none where the other one took nothing in any.
    pub fn ratio(&self, to: &Self) -> Option<Ratio> {
        let within = self.values.iter().zip(&to.values).map(|(own, other)| own / other);
        let within = within.filter(|ratio| ratio.is_finite());
        let best = self.best() / to.best();
        Some(Ratio {
            best: best.is_finite().then_some(best),
            median: Spread::of(within)?.median,
        })
    }
}

impl Results {
    /// The first figure of a case.
    pub fn find(&self, case: &str, datapath: &str) -> Option<&Measured> {
        let mut all = self.measured.iter();
        all.find(|measured| measured.case == case && measured.datapath == datapath)
    }
}

/// All that were measured beside the peers.
pub fn compare(measured: &[Measured]) -> Vec<Comparison> {
    let mut ratios = Vec::new();
    for own in measured {
        for peer in PEERS.into_iter().filter(|peer| own.datapath != *peer) {
            let mut others = measured.iter();
            let other = others.find(|other| {
                (&*other.case, &*other.figure, &*other.datapath) == (&*own.case, &*own.figure, peer)
            });
            if let Some(ratio) = other.and_then(|other| own.ratio(other)) {
                ratios.push(Comparison {
                    case: own.case.clone(),
                    figure: own.figure.clone(),
                    datapath: own.datapath.clone(),
                    to: peer.into(),
                    ratio,
                });
            }
        }
    }
    ratios
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::fixture;

    pub fn measured(case: &str, datapath: &str, values: &[f64]) -> Measured {
        let turns = values.iter().map(|&value| Sample {
            values: vec![value],
            frames: 100,
            lost: 0,
        });
        Measured::new(case, datapath, (0, "ns/frame"), &turns.collect::<Vec<_>>()).unwrap()
    }

    pub fn results(measured: Vec<Measured>) -> Results {
        Results {
            schema: SCHEMA,
            started: "2026-11-23T10:00:00Z".into(),
            seconds: 100.0,
            revision: None,
            machine: fixture::results(Vec::new()).machine,
            rounds: 3,
            turn_ms: 40,
            ratios: compare(&measured),
            measured,
            not_measured: Vec::new(),
        }
    }

    #[test]
    fn a_ratio_is_of_the_best_rounds_and_of_the_rounds_one_by_one() {
        let own = measured("64", "tapbridge-xdp", &[10.0, 30.0, 12.0]);
        let peer = measured("64", "linux-bridge", &[20.0, 30.0, 25.0]);
        let ratio = own.ratio(&peer).unwrap();
        assert_eq!(
            ratio,
            Ratio {
                best: Some(0.5),
                median: 0.5
            }
        );
    }

    #[test]
    fn the_best_round_of_a_share_is_the_greatest_and_a_round_of_none_takes_only_itself() {
        let share = |datapath: &str, values: &[f64]| {
            let mut measured = measured("four-senders", datapath, values);
            measured.figure = case::WORST.into();
            measured
        };
        let ratio = share("tapbridge-xdp", &[0.4, 0.2, 0.9]).ratio(&share("linux-bridge", &[0.0, 0.4, 0.6]));
        let ratio = ratio.unwrap();
        assert!((ratio.best.unwrap() - 1.5).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.median - 1.0).abs() < 1e-9, "{ratio:?}");
        let json = serde_json::to_value(ratio).unwrap();
        assert_eq!(json["min"], serde_json::json!(ratio.best.unwrap()));
    }

    #[test]
    fn nothing_has_a_ratio_to_nothing() {
        let own = measured("sixteen-senders", "tapbridge-xdp", &[0.0, 0.1]);
        let none = measured("sixteen-senders", "linux-bridge", &[0.0, 0.0]);
        assert_eq!(own.ratio(&none), None);
        assert_eq!(none.ratio(&none), None);
    }

    #[test]
    fn every_datapath_is_compared_with_the_peers_of_its_case() {
        let all = [
            measured("64", "linux-bridge", &[2.0]),
            measured("64", "tapbridge-tcx", &[1.0]),
            measured("256", "tapbridge-tcx", &[1.0]),
        ];
        let ratios = compare(&all);
        assert_eq!(ratios.len(), 1);
        assert_eq!(
            (&*ratios[0].case, &*ratios[0].datapath, &*ratios[0].to),
            ("64", "tapbridge-tcx", "linux-bridge")
        );
    }
}
