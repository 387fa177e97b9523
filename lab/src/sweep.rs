//! What a lab that was killed left behind: namespaces, a bridge that stays pinned, a cgroup, and temporary files.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use lab::{Namespace, netns};

use crate::{cgroup, datapath, plan, scratch};

/// Removes the remains of labs whose process no longer lives.
pub fn sweep(tapbridge: Option<&Path>) {
    let names = fs::read_dir(netns::NAMED).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let Some((pid, role)) = plan::owner(&name).filter(|(pid, _)| !alive(*pid)) else {
            continue;
        };
        // The bridge can be reached from its host only: that namespace waits until the bridge is gone.
        let bridge = if role == plan::HOST {
            take_apart(tapbridge, &name, &plan::bridge(pid))
        } else {
            Ok(())
        };
        if let Err(error) = bridge {
            eprintln!("a killed lab left {name} behind, which stays: {error:#}");
            continue;
        }
        netns::remove(&name);
        eprintln!("removed {name}, which a killed lab left behind");
    }
    for folder in scratch::remains(alive) {
        tell(&folder, fs::remove_dir_all(&folder));
    }
    for group in cgroup::remains(alive) {
        tell(&group, cgroup::remove(&group));
    }
}

fn tell(folder: &Path, removed: io::Result<()>) {
    let folder = folder.display();
    match removed {
        Ok(()) => eprintln!("removed {folder}, which a killed lab left behind"),
        Err(error) => eprintln!("a killed lab left {folder} behind, which stays: {error}"),
    }
}

fn take_apart(tapbridge: Option<&Path>, host: &str, bridge: &str) -> Result<()> {
    if !datapath::is_pinned(bridge) {
        return Ok(());
    }
    let tapbridge = tapbridge.with_context(|| format!("only --tapbridge PATH can detach {bridge}"))?;
    let host = Namespace::open(&Path::new(netns::NAMED).join(host))?;
    datapath::detach_all(tapbridge, &host, bridge)
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
