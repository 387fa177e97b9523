//! Who holds the taps that are watched, and what CPU time these processes spend in the kernel.
//!
//! A tap's name means something in its network namespace only, and which one a tap is in its holder's descriptor does not
//! tell: whoever holds one of this name, and has a thread in the calling thread's namespace, holds it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use super::model::Estimate;
use crate::kernel::process::Stat;

/// Clock ticks in a second, as user space is told of them, where the system does not say (`USER_HZ`).
const USER_TICKS: f64 = 100.0;
/// Of a normal distribution, what a tenth lies beyond: in standard deviations from the middle.
const TENTH: f64 = 1.28;
/// How many taps a note names.
const NAMED: usize = 2;

/// What the processes that hold a bridge's taps take.
#[derive(Clone, Debug, Serialize)]
pub struct VmmsReport {
    /// Who they are. One that holds taps of several bridges is at each of them, with all that it takes.
    pub processes: Vec<VmmReport>,
    /// CPUs that they spend in the kernel now, in whatever they call: measured, before anybody looked at their frames.
    pub cpus: f64,
    /// CPUs with none of the ports attached; between the bounds is also how well the kernel knows it, which looks where a process
    /// is at ticks of its clock,
    pub bare: Estimate,
    /// and with all of them.
    pub accelerated: Estimate,
    /// How many fewer that is.
    pub saves: Estimate,
    /// What part `accelerated` is of `bare`.
    pub ratio: Estimate,
}

/// A process that holds taps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmmReport {
    /// Its id.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// The taps of the bridge that it holds.
    pub ports: Vec<String>,
}

/// The device that a descriptor of this text is of (`tun_chr_show_fdinfo`).
fn device(fdinfo: &str) -> Option<&str> {
    let name = fdinfo.lines().find_map(|line| line.strip_prefix("iff:"))?;
    Some(name.trim()).filter(|name| !name.is_empty())
}

/// Whether this may be what a descriptor of a tap leads to: wherever the device lies, it is called so.
fn is_tun(target: &Path) -> bool {
    let name = target.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "tun" || name == "tun (deleted)")
}

/// A process that holds taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vmm {
    pid: u32,
    taps: BTreeSet<String>,
    stat: Stat,
}

impl Vmm {
    fn is(&self, other: &Self) -> bool {
        (self.pid, self.stat.started) == (other.pid, other.stat.started)
    }
}

/// Who holds taps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    vmms: Vec<Vmm>,
    /// Whether there are processes that may not be looked at.
    hidden: bool,
}

impl Holders {
    /// All but this process that hold some of these taps of the calling thread's network namespace.
    pub fn find(taps: &BTreeSet<&str>) -> Self {
        Self::find_in(Path::new("/proc"), taps)
    }

    fn find_in(proc: &Path, taps: &BTreeSet<&str>) -> Self {
        let mut holders = Self::default();
        let Ok(here) = fs::read_link(proc.join("thread-self/ns/net")) else {
            return Self {
                hidden: true,
                ..holders
            };
        };
        let own = fs::read_link(proc.join("self")).unwrap_or_default();
        for folder in entries(proc).unwrap_or_default() {
            let name = folder.file_name().and_then(|name| name.to_str());
            let Some(pid) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            if folder.file_name() == Some(own.as_os_str()) {
                continue;
            }
            match held(&folder, taps) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => holders.hidden = true,
                // It has ended meanwhile.
                Err(_) => {}
                Ok(taps) if taps.is_empty() || !has_thread_in(&folder, &here) => {}
                Ok(taps) => {
                    let stat = Stat::read(&folder);
                    holders.vmms.extend(stat.map(|stat| Vmm { pid, taps, stat }));
                }
            }
        }
        holders.vmms.sort_by_key(|vmm| vmm.pid);
        holders
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Those of the taps that a process holds, by whatever number of queues.
fn held(process: &Path, taps: &BTreeSet<&str>) -> io::Result<BTreeSet<String>> {
    let mut held = BTreeSet::new();
    for file in entries(&process.join("fd"))? {
        // What can't be read has been closed meanwhile.
        let Ok(target) = fs::read_link(&file) else {
            continue;
        };
        if !is_tun(&target) {
            continue;
        }
        let info = file.file_name().map(|number| process.join("fdinfo").join(number));
        let info = info
            .and_then(|info| fs::read_to_string(info).ok())
            .unwrap_or_default();
        held.extend(
            device(&info)
                .filter(|name| taps.contains(name))
                .map(str::to_owned),
        );
    }
    Ok(held)
}

/// Whether some thread of a process is in this network namespace: where the first is, others need not be.
fn has_thread_in(process: &Path, namespace: &Path) -> bool {
    let threads = entries(&process.join("task")).unwrap_or_default();
    let mut namespaces = threads
        .into_iter()
        .filter_map(|thread| fs::read_link(thread.join("ns/net")).ok());
    namespaces.any(|found| found == namespace)
}

/// The clocks of processes, for a while.
pub(super) struct Clocks {
    before: Vec<Vmm>,
    /// Those that have ended before they were read.
    gone: Vec<Vmm>,
    begin: Instant,
}

impl Clocks {
    /// Reads them.
    pub fn begin(holders: Holders) -> Self {
        let (before, gone) = read(holders.vmms);
        Self {
            before,
            gone,
            begin: Instant::now(),
        }
    }

    /// Reads them again. Who holds the taps then is asked afterwards.
    pub fn stop(self) -> Stopped {
        let seconds = self.begin.elapsed().as_secs_f64();
        let (after, gone) = read(self.before.clone());
        Stopped {
            before: self.before,
            after,
            gone: [self.gone, gone].concat(),
            seconds,
        }
    }
}

/// What the clocks of these processes say now, and those of which they say nothing any more.
fn read(vmms: Vec<Vmm>) -> (Vec<Vmm>, Vec<Vmm>) {
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for vmm in vmms {
        let stat = Stat::of(vmm.pid);
        match stat.filter(|stat| stat.started == vmm.stat.started) {
            Some(stat) => there.push(Vmm { stat, ..vmm }),
            None => gone.push(vmm),
        }
    }
    (there, gone)
}

/// Clocks that were read twice.
pub(super) struct Stopped {
    before: Vec<Vmm>,
    after: Vec<Vmm>,
    gone: Vec<Vmm>,
    seconds: f64,
}

impl Stopped {
    /// Leaves out who did not hold taps all the time.
    pub fn with(self, now: &Holders) -> Vmms {
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        #[expect(clippy::cast_precision_loss, reason = "it is 100")]
        let ticks_per_s = ticks_per_s.map_or(USER_TICKS, |ticks| ticks as f64);
        let tick = 1.0 / ticks_per_s / self.seconds;
        let came = now
            .vmms
            .iter()
            .filter(|vmm| !self.before.iter().any(|earlier| earlier.is(vmm)));
        let mut left_out: Vec<Vmm> = came.cloned().chain(self.gone).collect();
        let mut steady = Vec::new();
        for vmm in self.after {
            let before = self.before.iter().find(|earlier| earlier.is(&vmm));
            let Some(holds) = now.vmms.iter().find(|later| later.is(&vmm)) else {
                left_out.push(vmm);
                continue;
            };
            let ticks = |of: fn(&Stat) -> u64| {
                let ticks = before.map_or(0, |before| of(&vmm.stat).saturating_sub(of(&before.stat)));
                #[expect(clippy::cast_precision_loss, reason = "a process has not run for 2^52 ticks")]
                let ticks = ticks as f64;
                ticks
            };
            let (user, system) = (ticks(|stat| stat.user), ticks(|stat| stat.system));
            let spent = Spent {
                cpus: system * tick,
                doubt: doubt(user, system) * tick,
            };
            // What is said of frames of a tap is only true where it was the process's all the time.
            let taps = vmm.taps.intersection(&holds.taps).cloned().collect();
            steady.push((Vmm { taps, ..vmm }, spent));
        }
        Vmms {
            steady,
            left_out,
            hidden: now.hidden,
        }
    }
}

/// By how many ticks, as a standard deviation, a process may have been in the kernel for longer or shorter than is told, if
/// it is seen at so many ticks and is in user space or the kernel at each: how long it ran is known, where it was is a
/// sample (`cputime_adjust`), at no fewer ticks than are told. And each clock may have been a tick late, at either end.
fn doubt(user: f64, system: f64) -> f64 {
    let sampled = if user + system > 0.0 {
        user * system / (user + system)
    } else {
        0.0
    };
    (sampled + 1.0).sqrt()
}

/// CPUs that a process was in the kernel for.
#[derive(Clone, Copy, Debug)]
struct Spent {
    cpus: f64,
    /// How well that is known, as a standard deviation.
    doubt: f64,
}

/// The processes that held taps all the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Vmms {
    /// With what each was in the kernel for.
    steady: Vec<(Vmm, Spent)>,
    /// Those that came or went.
    left_out: Vec<Vmm>,
    hidden: bool,
}

/// What is reckoned of a tap, in CPUs and round by round.
pub(super) struct TapRounds<'all> {
    pub name: &'all str,
    /// Whether somebody holds it: it has a carrier as long as somebody does.
    pub held: bool,
    /// Whether its frames are carried already.
    pub attached: bool,
    /// What attaching saves, or would.
    pub saves: Vec<f64>,
}

impl Vmms {
    /// What those of these taps take; or none, and why not, or why not all of it.
    pub fn report(&self, taps: &[TapRounds<'_>]) -> (Option<VmmsReport>, Option<String>) {
        let holds = |vmm: &Vmm, tap: &TapRounds<'_>| vmm.taps.contains(tap.name);
        let has_some = |vmm: &Vmm| taps.iter().any(|tap| holds(vmm, tap));
        let vmms: Vec<&(Vmm, Spent)> = self.steady.iter().filter(|(vmm, _)| has_some(vmm)).collect();
        let left_out = self.left_out.iter().filter(|vmm| has_some(vmm)).count();
        let (known, others): (Vec<_>, Vec<_>) = taps
            .iter()
            .partition(|tap| vmms.iter().any(|(vmm, _)| holds(vmm, tap)));
        let is_left_out = |tap: &TapRounds<'_>| self.left_out.iter().any(|vmm| holds(vmm, tap));
        let unknown: Vec<&str> = others
            .iter()
            .filter(|tap| tap.held && !is_left_out(tap))
            .map(|tap| tap.name)
            .collect();
        let note = note(left_out, &unknown, self.hidden);
        if vmms.is_empty() {
            let nobody = || "nobody holds a tap that was watched".to_owned();
            return (None, Some(note.unwrap_or_else(nobody)));
        }
        let measured = vmms.iter().map(|(_, spent)| spent.cpus).sum();
        let rounds = rounds(measured, &known);
        let of = |value: fn(&Round) -> f64| Estimate::of(rounds.iter().map(value));
        let doubt = vmms.iter().map(|(_, spent)| spent.doubt.powi(2)).sum::<f64>();
        let doubt = TENTH * doubt.sqrt();
        let report = VmmsReport {
            processes: vmms.iter().map(|(vmm, _)| told(vmm, taps)).collect(),
            cpus: Estimate::of([measured]).value,
            bare: of(|round| round.bare).widened(doubt),
            accelerated: of(|round| round.accelerated).widened(doubt),
            saves: of(|round| round.bare - round.accelerated),
            ratio: of(Round::ratio),
        };
        (Some(report), note)
    }
}

/// What was measured of the holders of these taps, by what frames cost in each round.
fn rounds(measured: f64, taps: &[&TapRounds<'_>]) -> Vec<Round> {
    let count = taps.iter().map(|tap| tap.saves.len()).max().unwrap_or(0);
    let rounds = (0..count).map(|round| {
        let at = |values: &[f64]| values.get(round).copied().unwrap_or(0.0);
        let saves = |attached: bool| -> f64 {
            let those = taps.iter().filter(|tap| tap.attached == attached);
            those.map(|tap| at(&tap.saves)).sum()
        };
        Round {
            bare: measured + saves(true),
            accelerated: (measured - saves(false)).max(0.0),
        }
    });
    rounds.collect()
}

/// CPUs by what frames cost in one round.
struct Round {
    bare: f64,
    accelerated: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        if self.bare > 0.0 {
            self.accelerated / self.bare
        } else {
            1.0
        }
    }
}

fn told(vmm: &Vmm, taps: &[TapRounds<'_>]) -> VmmReport {
    let ports = taps.iter().map(|tap| tap.name);
    VmmReport {
        pid: vmm.pid,
        comm: vmm.stat.comm.clone(),
        ports: ports
            .filter(|name| vmm.taps.contains(*name))
            .map(str::to_owned)
            .collect(),
    }
}

/// Why not all is known, if so: so many processes came or went, and whoever holds these taps is out of sight.
fn note(left_out: usize, unknown: &[&str], hidden: bool) -> Option<String> {
    let mut notes = Vec::new();
    match left_out {
        0 => {}
        1 => notes.push("one that came or went meanwhile is left out".to_owned()),
        _ => notes.push(format!("{left_out} that came or went meanwhile are left out")),
    }
    if !unknown.is_empty() {
        let names = unknown.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let names = match unknown.len().saturating_sub(NAMED) {
            0 => names,
            more => format!("{names} and {more} more"),
        };
        notes.push(if hidden {
            format!("who holds {names} is told only to CAP_SYS_PTRACE")
        } else {
            format!("who holds {names} is not in sight")
        });
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const STAT: &str = "7 (a (vm) m) S 1 7 7 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 1 0 4711 1 1";

    #[test]
    fn a_descriptor_tells_its_device() {
        assert_eq!(device("pos:\t0\nflags:\t02004002\niff:\tvm1\n"), Some("vm1"));
        assert_eq!(device("pos:\t0\niff:\t\n"), None);
        assert_eq!(device("pos:\t0\n"), None);
    }

    /// A procfs in which these processes hold a tap each, with threads in these network namespaces; this one is the first.
    fn proc(processes: &[(u32, &str, &[&str])]) -> TempDir {
        let proc = tempfile::tempdir().expect("make a folder");
        let link = |target: &str, path: &Path| {
            fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
            symlink(target, path).expect("make a link");
        };
        let (own, _, namespaces) = processes[0];
        link(&own.to_string(), &proc.path().join("self"));
        link(namespaces[0], &proc.path().join("thread-self/ns/net"));
        for (pid, tap, namespaces) in processes {
            let folder = proc.path().join(pid.to_string());
            link("/dev/null", &folder.join("fd/0"));
            link("/dev/net/tun", &folder.join("fd/5"));
            fs::create_dir(folder.join("fdinfo")).expect("make a folder");
            for (number, name) in [(0, "vm9"), (5, tap)] {
                let info = folder.join(format!("fdinfo/{number}"));
                fs::write(info, format!("pos:\t0\niff:\t{name}\n")).expect("write a file");
            }
            fs::write(folder.join("stat"), STAT).expect("write a file");
            for (number, namespace) in namespaces.iter().enumerate() {
                link(namespace, &folder.join(format!("task/{number}/ns/net")));
            }
        }
        proc
    }

    #[test]
    fn holders_are_others_that_have_a_thread_here_and_a_tap_of_this_name() {
        let (here, elsewhere) = ("net:[1]", "net:[2]");
        let proc = proc(&[
            (10, "vm1", &[here]),
            (11, "vm1", &[here]),
            (12, "vm1", &[elsewhere]),
            (13, "vm2", &[elsewhere, here]),
            (14, "vm3", &[here]),
            // What is no tap does not count, whatever it says.
            (15, "", &[here]),
        ]);
        let holders = Holders::find_in(proc.path(), &["vm1", "vm2", "vm9"].into());
        let found: Vec<_> = holders
            .vmms
            .iter()
            .map(|vmm| (vmm.pid, vmm.taps.first().map(String::as_str)))
            .collect();
        assert_eq!(found, [(11, Some("vm1")), (13, Some("vm2"))]);
        assert!(!holders.hidden);
        let nowhere = Holders::find_in(&proc.path().join("10"), &["vm1"].into());
        assert!(nowhere.hidden && nowhere.vmms.is_empty());
    }

    fn vmm(pid: u32, started: u64, system: u64, taps: &[&str]) -> Vmm {
        Vmm {
            pid,
            taps: taps.iter().map(|tap| (*tap).to_owned()).collect(),
            stat: Stat {
                comm: "vmm".into(),
                user: 0,
                system,
                started,
            },
        }
    }

    #[test]
    fn who_did_not_hold_taps_all_the_time_is_left_out() {
        let stopped = Stopped {
            before: vec![vmm(1, 5, 100, &["vm1", "vm2"]), vmm(2, 5, 0, &["vm3"])],
            after: vec![vmm(1, 5, 400, &["vm1", "vm2"]), vmm(2, 5, 50, &["vm3"])],
            gone: vec![vmm(3, 5, 0, &["vm4"])],
            seconds: 2.0,
        };
        let now = Holders {
            // The second has let go of its tap, another has its id.
            vmms: vec![vmm(1, 5, 400, &["vm1"]), vmm(2, 6, 0, &["vm3"])],
            hidden: false,
        };
        let vmms = stopped.with(&now);
        let [(first, spent)] = &vmms.steady[..] else {
            panic!("{vmms:?}");
        };
        assert_eq!((first.pid, first.taps.len()), (1, 1));
        // 300 of the ticks of one side.
        assert_is(spent.cpus, 300.0 * spent.doubt);
        let mut left_out: Vec<_> = vmms
            .left_out
            .iter()
            .map(|vmm| (vmm.pid, vmm.stat.started))
            .collect();
        left_out.sort_unstable();
        assert_eq!(left_out, [(2, 5), (2, 6), (3, 5)]);
    }

    fn tap(name: &str, attached: bool, saves: f64) -> TapRounds<'_> {
        TapRounds {
            name,
            held: true,
            attached,
            saves: vec![saves; 3],
        }
    }

    /// Each known by a thousandth of a CPU.
    fn vmms(steady: Vec<(Vmm, f64)>) -> Vmms {
        let spent = |cpus| Spent { cpus, doubt: 0.001 };
        Vmms {
            steady: steady.into_iter().map(|(vmm, cpus)| (vmm, spent(cpus))).collect(),
            ..Vmms::default()
        }
    }

    #[test]
    fn where_a_process_was_is_a_sample() {
        assert_is(doubt(0.0, 0.0), 1.0);
        // All of it was in the kernel.
        assert_is(doubt(0.0, 400.0), 1.0);
        assert_is(doubt(400.0, 400.0), 201_f64.sqrt());
    }

    #[track_caller]
    fn assert_is(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} and not {expected}");
    }

    #[test]
    fn what_is_saved_comes_off_what_is_measured() {
        let vmms = vmms(vec![
            (vmm(1, 5, 0, &["vm1"]), 0.7),
            (vmm(2, 5, 0, &["vm2"]), 0.4),
            (vmm(3, 5, 0, &["vm8"]), 9.0),
        ]);
        let taps = [tap("vm1", false, 0.2), tap("vm2", false, -0.1)];
        let (report, note) = vmms.report(&taps);
        let report = report.expect("it is known");
        assert_eq!((report.processes.len(), note), (2, None));
        assert_is(report.cpus, 1.1);
        assert_is(report.bare.value, 1.1);
        assert_is(report.accelerated.value, 1.0);
        assert_is(report.saves.value, 0.1);
        assert_is(report.ratio.value, 0.909_091);
        // What two may miss by, one and the other.
        assert_is(report.accelerated.high, 1.0 + TENTH * 0.001 * 2_f64.sqrt());
    }

    #[test]
    fn of_attached_ports_the_vmms_would_take_more_without() {
        let vmms = vmms(vec![(vmm(1, 5, 0, &["vm1", "vm2"]), 0.8)]);
        let taps = [tap("vm1", true, 0.2), tap("vm2", false, 0.3)];
        let report = vmms.report(&taps).0.expect("it is known");
        assert_eq!(report.processes[0].ports, ["vm1", "vm2"]);
        assert_is(report.cpus, 0.8);
        assert_is(report.bare.value, 1.0);
        assert_is(report.accelerated.value, 0.5);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let taps = ["vm1", "vm2", "vm3"].map(|name| tap(name, false, 0.1));
        let nobody = Vmms::default();
        let said = nobody.report(&taps).1.expect("words");
        assert_eq!(said, "who holds vm1, vm2 and 1 more is not in sight");
        let hidden = Vmms {
            hidden: true,
            ..Vmms::default()
        };
        let (report, said) = hidden.report(&taps[..1]);
        assert!(report.is_none() && said.expect("words").contains("CAP_SYS_PTRACE"));
        let idle = TapRounds {
            held: false,
            ..tap("vm1", false, 0.0)
        };
        let said = nobody.report(&[idle]).1.expect("words");
        assert_eq!(said, "nobody holds a tap that was watched");
        let some = Vmms {
            left_out: vec![vmm(2, 5, 0, &["vm2"])],
            ..vmms(vec![(vmm(1, 5, 0, &["vm1"]), 0.8)])
        };
        let (report, said) = some.report(&taps);
        let report = report.expect("it is known of some");
        // Of others' frames nothing comes off.
        assert_is(report.accelerated.value, 0.7);
        assert_eq!(
            said.expect("words"),
            "one that came or went meanwhile is left out; who holds vm3 is not in sight"
        );
    }
}
