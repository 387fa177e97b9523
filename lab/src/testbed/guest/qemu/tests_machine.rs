//! A virtual machine without a network card, whose kernel tests are run on.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{
    channel::Channel,
    machine::{BOOT_LIMIT, Model, Qemu},
};
use crate::{
    host::{cpus::Placement, process::quoted, scratch},
    testbed::vm_image::{self, Image, Packages},
};

/// File systems that tests look for.
const SET_UP: &str =
    "mkdir -p /run/netns && mount -t bpf bpf /sys/fs/bpf && mount -t tracefs tracefs /sys/kernel/tracing";

/// The machine, booted. Dropping it ends it.
pub struct TestsMachine {
    channel: Channel,
    environment: String,
    /// What it runs on.
    pub description: String,
    /// What QEMU was started with.
    _folder: TempDir,
}

impl TestsMachine {
    /// Boots a machine that has these files of the host, at the same paths.
    pub fn boot(packages: &Packages, files: &[PathBuf]) -> Result<Self> {
        let folder = scratch::folder("tests")?;
        let image = Image::of_tests(packages)?.with_files(files, folder.path())?;
        let model = Model::new(Qemu::find(packages)?, image, false, Placement::default())?;
        let channel = Channel::new(model.start_alone("QEMU for tests")?);
        let machine = Self {
            channel,
            environment: vm_image::environment(files)?,
            description: format!(
                "Linux {}, QEMU {} with {}",
                model.image.release, model.qemu.version, model.accelerator
            ),
            _folder: folder,
        };
        machine
            .channel
            .wait_until_ready(BOOT_LIMIT)
            .with_context(|| format!("booting Linux {}", model.image.release))?;
        let (status, said) = machine.channel.request(SET_UP)?;
        ensure!(status == 0, "setting up file systems: status {status}; {said}");
        // What finds no room while the kernel unpacks it is left out, and the kernel goes on.
        for file in files {
            let (status, _) = machine
                .channel
                .request(&format!("test -e {}", quoted(&file.to_string_lossy())))?;
            ensure!(
                status == 0,
                "{}: had no room in the virtual machine's {} MiB of memory",
                file.display(),
                model.image.memory
            );
        }
        Ok(machine)
    }

    /// Runs a shell's command; returns its exit status. `said` is given its output, whole lines, as it comes.
    pub fn run(&self, command: &str, limit: Duration, said: impl FnMut(&str)) -> Result<u8> {
        let command = format!("{}; {command}", self.environment);
        self.channel.follow(&command, limit, said)
    }
}
