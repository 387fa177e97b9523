//! `tapbridge-lab bench`: what a frame costs from one tap to another, over every datapath, side by side.

mod auto;
mod budget;
mod case;
mod dashboard;
mod fastpath;
mod floor;
mod foretold;
mod frame;
mod hotplug;
mod io;
mod live;
mod measure;
mod overlay;
mod report;
mod results;
mod testbed;
mod threads;
mod uplink;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};
use lab::netns;
use nix::{
    mount::{MsFlags, mount},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use self::{
    auto::Auto,
    case::{CASES, Case, Topology},
    io::BPFFS,
    results::{Measured, NotMeasured, Results, SCHEMA, Sample},
    testbed::{BenchTestbed, Datapath},
};
pub use self::{dashboard::DashboardArguments, foretold::CheckEstimateArguments, hotplug::HotplugArguments};
use crate::host::{folder::Folder, interrupt, machine};

/// Measure what a frame costs from one tap to another, without guests
///
/// Frames are written and read with a VMM's system calls, over the Linux bridge, macvtap, the Linux bridge with
/// tapbridge attached to its ports by each hook, and the floor: one static redirect and nothing else, or programs that do
/// nothing where frames stay with the bridge. All are up at once and take turns. Where tapbridge chooses its hooks itself
/// it does so before the first round, in each case by what that sends.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// This project's binary
    #[arg(long, value_name = "PATH")]
    tapbridge: PathBuf,
    /// Cases [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    case: Vec<String>,
    /// Datapaths [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(Datapath::ALL.map(Datapath::name)))]
    datapath: Vec<String>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Milliseconds of a turn: one case over one datapath in one round
    #[arg(long = "turn", value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turn_ms: u64,
    /// Folder for bench.json, bench.md and the plots; must not exist yet
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Print the results as one JSON document instead of the table
    #[arg(short, long)]
    json: bool,
    /// Fail where a ratio exceeds its budget, of those in budgets.toml
    #[arg(long)]
    check: bool,
    /// What the results call the revision of this project
    #[arg(long, hide = true)]
    revision: Option<String>,
}

impl BenchArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let machine = machine::inspect(Some(&self.tapbridge))?;
        let folder = self.output.as_deref().map(Folder::make).transpose()?;
        let start = Instant::now();
        let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let cases = self.cases();
        let not_measured = not_measured(&cases)?;
        for case in &not_measured {
            eprintln!("{}", case.text());
        }
        let can = |case: &&Case| not_measured.iter().all(|not| not.case != case.name);
        let cases: Vec<Case> = cases.iter().filter(can).copied().collect();
        ensure!(
            !cases.is_empty(),
            "none of these cases can be measured on this machine"
        );
        let measured = self.measure(&cases)?;
        let results = Results {
            schema: SCHEMA,
            started,
            seconds: start.elapsed().as_secs_f64(),
            revision: self.revision.clone(),
            machine,
            rounds: self.rounds,
            turn_ms: self.turn_ms,
            ratios: results::compare(&measured),
            measured,
            not_measured,
        };
        let json = serde_json::to_string_pretty(&results)?;
        if let Some(folder) = &folder {
            folder.write("bench.json", &json)?;
            report::write(&results, &cases, folder)?;
        }
        if self.json {
            println!("{json}");
        } else {
            println!("{}", report::table(&results, &cases).text());
            for case in &results.not_measured {
                println!("{}", case.text());
            }
        }
        if self.check {
            budget::check(&results)?;
        }
        Ok(())
    }

    fn cases(&self) -> Vec<Case> {
        let wanted = |case: &&Case| self.case.is_empty() || self.case.iter().any(|name| name == case.name);
        CASES.iter().filter(wanted).copied().collect()
    }

    fn measure(&self, cases: &[Case]) -> Result<Vec<Measured>> {
        private_bpffs()?;
        allow_files()?;
        let testbeds = self.testbeds(cases)?;
        let mut turns: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            let having_turns = |(_, case): &(usize, &Case)| case.has_turn(round);
            for (number, case) in cases.iter().enumerate().filter(having_turns) {
                let mut order: Vec<_> = testbeds
                    .iter()
                    .enumerate()
                    .filter(|(_, testbed)| testbed.has(case))
                    .collect();
                // What drifts while a round goes on then favours neither the first nor the last.
                if case.turns_before(round) % 2 == 1 {
                    order.reverse();
                }
                for (index, testbed) in order {
                    if let Some(interrupted) = interrupt::received() {
                        return Err(interrupted.into());
                    }
                    let turn = case.turn(Duration::from_millis(self.turn_ms));
                    let turn = measure::measure(testbed, case, turn);
                    let turn = turn.with_context(|| format!("{}, {}", testbed.datapath.name(), case.name))?;
                    turns.entry((number, index)).or_default().push(turn);
                }
            }
        }
        let measured = turns.iter().flat_map(|(&(case, testbed), turns)| {
            let (case, datapath) = (&cases[case], testbeds[testbed].datapath.name());
            let figures = case.figures().iter().copied().enumerate();
            figures.filter_map(move |figure| Measured::new(case.name, datapath, figure, turns))
        });
        let measured = measured.collect();
        testbeds.into_iter().try_for_each(BenchTestbed::end)?;
        Ok(measured)
    }

    /// All that the cases need, at once.
    fn testbeds(&self, cases: &[Case]) -> Result<Vec<BenchTestbed>> {
        let mut testbeds = Vec::new();
        let named = |datapath: Datapath| {
            self.datapath.is_empty() || self.datapath.iter().any(|name| name == datapath.name())
        };
        for (datapath, topology, case) in wanted(cases)
            .into_iter()
            .filter(|&(datapath, ..)| named(datapath))
        {
            if let Some(interrupted) = interrupt::received() {
                return Err(interrupted.into());
            }
            eprintln!("{}: {} ports", datapath.name(), topology.ports());
            let testbed = match case {
                Some(case) => settled(datapath, case, &self.tapbridge),
                None => BenchTestbed::new(datapath, topology, &self.tapbridge),
            };
            testbeds.push(testbed.with_context(|| format!("setting up {}", datapath.name()))?);
        }
        let measures = |case| testbeds.iter().any(|testbed| testbed.has(case));
        ensure!(
            cases.iter().any(measures),
            "none of these cases is measured over any of these datapaths; without --datapath all are that can be"
        );
        Ok(testbeds)
    }
}

/// A testbed for one case alone, whose ports have chosen their hooks by that.
fn settled(datapath: Datapath, case: Case, program: &Path) -> Result<BenchTestbed> {
    let mut testbed = BenchTestbed::new(datapath, case.topology, program)?;
    let send = |turn| measure::measure(&testbed, &case, turn).map(drop);
    testbed.auto = Some(Auto::settle(testbed.tapbridge()?, case, send, || {
        testbed.hooks()
    })?);
    Ok(testbed)
}

/// The cases that need what this kernel lacks.
fn not_measured(cases: &[Case]) -> Result<Vec<NotMeasured>> {
    let mut lacking = BTreeMap::new();
    let mut without = Vec::new();
    for case in cases {
        let lacks = match lacking.entry(case.topology) {
            Entry::Vacant(place) => *place.insert(testbed::lacks(case.topology)?),
            Entry::Occupied(place) => *place.get(),
        };
        if let Some(what) = lacks {
            without.push(NotMeasured {
                case: case.name.into(),
                reason: format!("this kernel has no {what}"),
            });
        }
    }
    Ok(without)
}

/// The testbeds that cases need: one for all cases among the same surroundings, or for one case alone.
fn wanted(cases: &[Case]) -> Vec<(Datapath, Topology, Option<Case>)> {
    let topologies: BTreeSet<_> = cases.iter().map(|case| case.topology).collect();
    let mut wanted = Vec::new();
    for topology in topologies {
        for datapath in Datapath::ALL
            .into_iter()
            .filter(|datapath| datapath.fits(topology))
        {
            if datapath.remembers() {
                let own = |case: &&Case| case.topology == topology && datapath.does(case);
                let cases = cases.iter().filter(own);
                wanted.extend(cases.map(|case| (datapath, topology, Some(*case))));
            } else {
                wanted.push((datapath, topology, None));
            }
        }
    }
    wanted
}

/// Gives this process a bpffs of its own: what is pinned there goes with the process, in whatever way that ends.
fn private_bpffs() -> Result<()> {
    netns::unshare_mounts()?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a bpffs on {BPFFS}"))
}

/// A tap of the lab's has three files, and there are some thousands.
fn allow_files() -> Result<()> {
    const FILES: u64 = 16_384;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= FILES || setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_ok(),
        "needs {FILES} open files, and may have {hard}: 'ulimit -Hn {FILES}' allows them"
    );
    if soft < FILES && hard >= FILES {
        setrlimit(Resource::RLIMIT_NOFILE, FILES, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::datapath::Hook;

    #[test]
    fn what_remembers_has_a_testbed_for_each_of_its_cases_and_all_others_share_theirs() {
        let all = wanted(CASES);
        let auto = Datapath::Tapbridge(Hook::Auto);
        let own = all.iter().filter(|(datapath, ..)| *datapath == auto);
        let own: Vec<_> = own.map(|(.., case)| case.expect("a case").name).collect();
        assert_eq!(
            own,
            ["64", "1514-partial", "udp-1242", "vxlan-1514", "tso4", "mix"]
        );
        let mut others = all.iter().filter(|(datapath, ..)| *datapath != auto);
        assert!(others.all(|(.., case)| case.is_none()));
    }
}
