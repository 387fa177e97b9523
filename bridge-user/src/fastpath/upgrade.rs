//! New programs in the place of those that are attached, which may be of an earlier version: no frame is lost by it, no port
//! detached, and what was counted stays.
//!
//! What is pinned is made anew in a folder beside, with maps of its own. The links get the new programs one by one; when all
//! have them, what the old programs have counted is added to the new counters, and the folders change places. Until then
//! the old folder is what there is: whoever finds both, since a command was killed or failed, gives the links their old
//! programs back and removes the other folder. Only what frames have been counted meanwhile is lost then.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path as FilePath, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::SchedClassifier;
use bridge_common::{
    Hook,
    fastpath::{Addition, Path, PortCounters, program},
};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{events, loaded::Loaded, pinned::FastPath, scratch};
use crate::{
    error::{Context as _, Error, Result},
    kernel::{
        bpf::{bytes, when_refilled},
        link,
    },
    state::file_name,
};

/// What the name of the folder beside ends with.
const BESIDE: &str = "~";
/// `MEMBARRIER_CMD_GLOBAL`
const MEMBARRIER_GLOBAL: libc::c_long = 1;
/// A program runs for some microseconds.
const GRACE: Duration = Duration::from_millis(100);

/// The folder beside.
fn beside(folder: &FilePath) -> PathBuf {
    let mut name = OsString::from(folder);
    name.push(BESIDE);
    name.into()
}

/// Puts right what a command has left that was killed as it replaced programs: the links have those that are pinned in their own
/// folder, or get them back.
pub(super) fn recover(folder: &FilePath) -> Result<()> {
    let beside = beside(folder);
    if !beside.is_dir() {
        return Ok(());
    }
    if folder.is_dir() {
        for path in link_pins(folder)? {
            replace(&path, folder)?;
        }
    }
    fs::remove_dir_all(&beside).at(beside.display(), "remove")
}

/// Removes the folder beside, whatever has been detached or is about to be.
pub(super) fn clear(folder: &FilePath) -> Result<()> {
    match fs::remove_dir_all(beside(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at(folder.display(), "remove what lies beside it"),
    }
}

/// Pinned links, attached or not, port by port, that of tcx first: XDP redirects nothing where it does not find the tcx program
/// that it knows. So a port is in between for a moment only.
fn link_pins(folder: &FilePath) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).at(folder.display(), "list")?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut links: Vec<_> = paths
        .filter(|path| file_name(path).starts_with(link::PREFIX))
        .collect();
    links.sort_by_key(|path| (port_of(path), is_of_xdp(path)));
    Ok(links)
}

/// What the names of a port's links have in common.
fn port_of(link: &FilePath) -> String {
    let name = file_name(link);
    name.rsplit_once('_')
        .map_or_else(|| name.clone(), |(port, _)| port.to_owned())
}

fn is_of_xdp(link: &FilePath) -> bool {
    file_name(link).ends_with(Hook::Xdp.name())
}

/// The program that a link is for, of those in a folder.
fn program_of(link: &FilePath, folder: &FilePath) -> PathBuf {
    folder.join(if is_of_xdp(link) {
        program::XDP
    } else {
        program::TCX
    })
}

/// Gives a link a program of a folder.
fn replace(path: &FilePath, folder: &FilePath) -> Result<()> {
    let replace = || {
        let program = link::open(&program_of(path, folder))?;
        link::replace_program(&link::open(path)?, &program)
    };
    replace().at(path.display(), "replace the program")
}

/// Every program that was running has ended when this returns.
fn wait_for_running_programs() {
    // SAFETY: the command has no preconditions; it waits for a grace period (`synchronize_rcu`).
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if result < 0 {
        // With CPUs of which the kernel keeps away (`nohz_full`) it does not.
        thread::sleep(GRACE);
    }
}

impl FastPath {
    /// Replaces its programs, whatever version they are of.
    pub(super) fn replace_programs(self) -> Result<Self> {
        let beside = beside(&self.folder);
        let loaded = Loaded::try_out()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&beside)
            .at(beside.display(), "make")?;
        let replaced = loaded
            .pin(&beside)
            .and_then(|()| Self::open_at(beside.clone())?.ok_or_else(|| vanished(&beside)))
            .and_then(|mut new| {
                new.take_over(&self)?;
                renameat2(
                    AT_FDCWD,
                    &beside,
                    AT_FDCWD,
                    &self.folder,
                    RenameFlags::RENAME_EXCHANGE,
                )
                .at(self.folder.display(), "put the new programs in its place")
            });
        if let Err(error) = replaced {
            if let Err(further) = recover(&self.folder) {
                log::warn!("the next command will try to put it right: {further}");
            }
            return Err(error);
        }
        // The old folder is beside now: its links are pinned in the new one too.
        clear(&self.folder)?;
        Self::open_at(self.folder.clone())?.ok_or_else(|| vanished(&self.folder))
    }

    /// Takes over the ports, links and counters of another version, or another build.
    fn take_over(&mut self, old: &Self) -> Result<()> {
        let ports = old.ports()?;
        for (ifindex, port) in &ports {
            self.add(*ifindex, *port)?;
        }
        // An earlier version tells of nothing.
        if old.is_current() {
            events::take_over(&self.folder, &old.folder)?;
        }
        self.take_over_baseline(old)?;
        for path in link_pins(&old.folder)? {
            replace(&path, &self.folder)?;
            let pin = || link::pin(&link::open(&path)?, &self.folder.join(file_name(&path)));
            pin().at(path.display(), "pin it once more")?;
        }
        wait_for_running_programs();
        let add =
            SchedClassifier::from_pin(self.pin(program::ADD)).at(program::ADD, "open the pinned program")?;
        for (ifindex, _) in ports {
            let counters = PortCounters {
                stopped_at: 0,
                ..old.counters(ifindex)?
            };
            let port = Addition {
                path: Path { from: ifindex, to: 0 },
                ..Addition::default()
            };
            run_add(&add, &port, bytes(&counters))?;
        }
        for (path, counters) in old.paths()? {
            // No program counts what came from ports, or went to devices, that are no more.
            if path.from == Path::GONE || path.to == Path::GONE {
                self.add_to_path(path, counters)?;
                continue;
            }
            let path = Addition {
                path,
                is_path: 1,
                reserved: 0,
            };
            run_add(&add, &path, bytes(&counters))?;
        }
        Ok(())
    }
}

fn vanished(folder: &FilePath) -> Error {
    Error::Damaged {
        path: folder.to_owned(),
        cause: "somebody removed pins as they were made".into(),
    }
}

/// Has a program add to the counters of a port or path.
fn run_add(program: &SchedClassifier, to: &Addition, numbers: &[u8]) -> Result<()> {
    let addition = [bytes(to), numbers].concat();
    let is_without_place = |answer: &Result<u32>| matches!(answer, Ok(answer) if *answer != Addition::DONE);
    let answer = when_refilled(is_without_place, || scratch::run_alone(program, &addition))?;
    if answer == Addition::DONE {
        return Ok(());
    }
    Err(Error::System {
        object: format!("counters from {} to {}", to.path.from, to.path.to),
        action: "take over",
        cause: "there is no place for them".into(),
    })
}
