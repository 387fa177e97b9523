//! `tapbridge-lab bench`: what a frame costs from one tap to another, over every datapath, side by side.

mod budget;
mod case;
mod floor;
mod frame;
mod measure;
mod report;
mod results;
mod site;
mod threads;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IoSlice,
    os::fd::BorrowedFd,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};
use lab::netns;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        uio::writev,
    },
};

use self::{
    case::{CASES, Case},
    frame::Frame,
    measure::Turn,
    results::{Measured, Results, SCHEMA},
    site::{Datapath, Site},
};
use crate::{folder::Folder, interrupt, machine};

/// Where bridges are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// Measure what a frame costs from one tap to another, without guests
///
/// Frames are written and read with a VMM's system calls, over the Linux bridge, macvtap, tapbridge with each hook, and
/// the floor: one static redirect and nothing else. All are up at once and take turns.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// The program of this project's switch
    #[arg(long, value_name = "PATH")]
    tapbridge: PathBuf,
    /// Cases [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    case: Vec<String>,
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
    /// What the results call the revision of the switch
    #[arg(long, hide = true)]
    revision: Option<String>,
}

impl BenchArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let machine = machine::inspect_for(Some(&self.tapbridge))?;
        let folder = self.output.as_deref().map(Folder::make).transpose()?;
        let start = Instant::now();
        let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let cases = self.cases();
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
        let sites = self.sites(cases)?;
        let mut turns: BTreeMap<(usize, usize), Vec<Turn>> = BTreeMap::new();
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            let having_turns = |(_, case): &(usize, &Case)| case.has_turn(round);
            for (number, case) in cases.iter().enumerate().filter(having_turns) {
                let takes_part =
                    |(_, site): &(usize, &Site)| site.topology == case.topology && site.datapath.does(case);
                let mut order: Vec<_> = sites.iter().enumerate().filter(takes_part).collect();
                // What drifts while a round goes on then favours neither the first nor the last.
                if round % 2 == 0 {
                    order.reverse();
                }
                for (index, site) in order {
                    if let Some(interrupted) = interrupt::received() {
                        return Err(interrupted.into());
                    }
                    let turn = case.turn(Duration::from_millis(self.turn_ms));
                    let turn = measure::measure(site, case, turn);
                    let turn = turn.with_context(|| format!("{}, {}", site.datapath.name(), case.name))?;
                    turns.entry((number, index)).or_default().push(turn);
                }
            }
        }
        let measured = turns.iter().flat_map(|(&(case, site), turns)| {
            let (case, datapath) = (&cases[case], sites[site].datapath.name());
            let figures = case.figures().iter().copied().enumerate();
            figures.filter_map(move |figure| Measured::new(case.name, datapath, figure, turns))
        });
        Ok(measured.collect())
    }

    /// All that the cases need, at once.
    fn sites(&self, cases: &[Case]) -> Result<Vec<Site>> {
        let topologies: BTreeSet<_> = cases.iter().map(|case| case.topology).collect();
        let mut sites = Vec::new();
        for topology in topologies {
            for datapath in Datapath::ALL {
                if let Some(interrupted) = interrupt::received() {
                    return Err(interrupted.into());
                }
                if datapath.fits(topology) {
                    eprintln!("{}: {} ports", datapath.name(), topology.ports());
                    let bridge = format!("bench{}", sites.len());
                    let site = Site::new(datapath, topology, &self.tapbridge, bridge);
                    sites.push(site.with_context(|| format!("setting up {}", datapath.name()))?);
                }
            }
        }
        Ok(sites)
    }
}

/// Gives this process a bpffs of its own: what is pinned there goes with the process, in whatever way that ends.
fn private_bpffs() -> Result<()> {
    netns::unshare_mounts()?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a bpffs on {BPFFS}"))
}

/// A tap of the lab's has three files, and there are some hundreds.
fn allow_files() -> Result<()> {
    const FILES: u64 = 8192;
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

/// Writes a frame as a VMM does that has header and frame in separate buffers.
fn write(port: BorrowedFd, frame: &Frame) -> Result<()> {
    let parts = [IoSlice::new(&frame.header), IoSlice::new(&frame.octets)];
    writev(port, &parts).context("writing to a port")?;
    Ok(())
}
