//! A cgroup whose processes run only where nothing else wants to.
//!
//! The scheduling policy `SCHED_IDLE` does less: where autogroups are on, it counts among the processes of a session
//! only, and the session counts as much as any other.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::host::plan;

const MOUNTS: &str = "/proc/self/mountinfo";
/// What follows the process's id in the name of a cgroup.
const ROLE: &str = "spinners";

/// How long killed processes are waited for, which end last of all on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The cgroup of this process's lab. Dropping it removes it; its processes must have ended.
#[derive(Debug)]
pub struct IdleGroup(PathBuf);

impl IdleGroup {
    pub fn new() -> Result<Self> {
        let path = hierarchy()?.folder()?.join(plan::own_namespace(ROLE));
        fs::create_dir(&path).with_context(|| format!("creating the cgroup {}", path.display()))?;
        let group = Self(path);
        write(&group.0, "cpu.idle", "1").context("cgroups can be idle since Linux 5.15")?;
        Ok(group)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// Makes the calling process one of a cgroup's.
pub fn join(group: &Path) -> Result<()> {
    write(group, "cgroup.procs", "0")
}

/// The cgroups of labs whose process no longer lives.
pub fn remains(alive: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let folder = hierarchy().map(|hierarchy| hierarchy.mount);
    let entries = folder.ok().and_then(|folder| fs::read_dir(folder).ok());
    let names = entries.into_iter().flatten().flatten();
    let abandoned = names.filter(|entry| {
        let name = entry.file_name();
        plan::owner(&name.to_string_lossy()).is_some_and(|(pid, role)| role == ROLE && !alive(pid))
    });
    abandoned.map(|entry| entry.path()).collect()
}

/// Removes a cgroup whose processes have been killed: they run only where nothing else wants to until they are gone, and
/// as long it is busy.
pub fn remove(group: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            removed => return removed,
        }
    }
}

/// Unlike a file of other file systems, one of a cgroup's is not made where it is missing.
fn write(group: &Path, name: &str, value: &str) -> Result<()> {
    let path = group.join(name);
    let file = File::options().write(true).open(&path);
    file.and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("writing {value} to {}", path.display()))
}

/// Cgroups by which the scheduler goes.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

fn hierarchy() -> Result<Hierarchy> {
    let mounts = fs::read_to_string(MOUNTS).with_context(|| format!("reading {MOUNTS}"))?;
    find(&mounts).context(
        "no cgroups with the controller cpu are mounted: 'mount -t cgroup2 none /sys/fs/cgroup' mounts them",
    )
}

/// Where the controller is version 1's, version 2 has none.
fn find(mounts: &str) -> Option<Hierarchy> {
    let find = |version| {
        let mut mounts = mounts.lines().filter_map(parse);
        mounts.find(|mount| mount.version == version)
    };
    find(Version::V1).or_else(|| find(Version::V2))
}

/// A line such as "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", see `proc_pid_mountinfo(5)`.
fn parse(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = file_system.split(' ');
    let (kind, options) = (words.next()?, words.nth(1)?);
    let version = match kind {
        "cgroup" if options.split(',').any(|option| option == "cpu") => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let mount = mount.split(' ').nth(4)?.into();
    Some(Hierarchy { mount, version })
}

impl Hierarchy {
    /// Where a cgroup of it can be made that has the controller.
    fn folder(&self) -> Result<&Path> {
        if self.version == Version::V2 {
            let path = self.mount.join("cgroup.subtree_control");
            let controllers = fs::read_to_string(&path);
            let path = path.display();
            let controllers = controllers.with_context(|| format!("reading {path}"))?;
            // What it is for all other cgroups is not the lab's to decide.
            ensure!(
                controllers.split_whitespace().any(|name| name == "cpu"),
                "{path} does not name cpu: 'echo +cpu >{path}' gives the cgroups there this controller"
            );
        }
        Ok(&self.mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "23 1 254:0 / / rw,noatime - ext4 /dev/vda rw";
    const CPUSET: &str = "34 31 0:31 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset";
    const CPU: &str =
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:8 - cgroup cgroup rw,cpu,cpuacct";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate";

    fn found(lines: &[&str]) -> Option<(String, Version)> {
        find(&lines.join("\n")).map(|found| (found.mount.display().to_string(), found.version))
    }

    #[test]
    fn version_1_is_where_the_controller_cpu_is() {
        let expected = ("/sys/fs/cgroup/cpu,cpuacct".into(), Version::V1);
        assert_eq!(found(&[ROOT, UNIFIED, CPUSET, CPU]), Some(expected));
    }

    #[test]
    fn version_2_is_taken_where_version_1_lacks_the_controller() {
        let expected = ("/sys/fs/cgroup/unified".into(), Version::V2);
        assert_eq!(found(&[ROOT, CPUSET, UNIFIED]), Some(expected));
    }

    #[test]
    fn without_the_controller_there_is_none() {
        assert_eq!(found(&[ROOT, CPUSET]), None);
    }
}
