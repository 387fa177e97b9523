//! What a lab that was killed left behind: namespaces, programs that stay pinned, a cgroup, and temporary files.

use std::{fs, io, path::Path};

use anyhow::Result;
use lab::{Namespace, netns};

use crate::{
    host::{cgroup, plan, scratch},
    testbed::datapath,
};

/// Removes the remains of labs whose process no longer lives.
pub fn clean() {
    let names = fs::read_dir(netns::NAMED).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let Some((_, role)) = plan::owner(&name).filter(|(pid, _)| !alive(*pid)) else {
            continue;
        };
        // What is pinned is found from its host only: that namespace waits until nothing is.
        let detached = if role == plan::HOST { detach(&name) } else { Ok(()) };
        if let Err(error) = detached {
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

fn detach(host: &str) -> Result<()> {
    let host = Namespace::open(&Path::new(netns::NAMED).join(host))?;
    if datapath::clear(&host)? {
        eprintln!("detached the ports that a killed lab left attached");
    }
    Ok(())
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
