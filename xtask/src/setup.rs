//! Finding what is there and installing what is missing.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use xtask::{
    cache::Cache,
    pins::Pins,
    toolchain::{self, Compiler, TARGET},
};

use crate::{
    bpf_core,
    packages::{self, Program},
    tool, vm,
};

/// Sets up what the eBPF crate is built with.
pub fn ebpf_toolchain() -> Result<()> {
    let pins = Pins::load()?;
    let compiler = Compiler::find(&pins)?;
    let cache = Cache::of_this_user()?;
    let linker = || toolchain::linker(&cache, &pins);
    let core = || toolchain::bpf_core(&cache, &pins, &compiler);
    let linker_label = format!("bpf-linker {}", pins.bpf_linker);
    let core_label = format!("core for {TARGET}");

    if linker().is_none() || core().is_none() {
        // Another set-up may have been at work until now: look again with the lock held.
        let _lock = cache.lock()?;
        if linker().is_none() {
            let how = "building with cargo, takes 2 to 4 minutes";
            timed(&linker_label, how, || tool::install_linker(&cache, &pins))?;
        }
        if core().is_none() {
            let how = match compiler.own_sources() {
                Some(_) => "compiling from the compiler's sources, takes 15 to 30 seconds",
                None => "fetching its sources from Debian (45 MB) and compiling, takes about a minute",
            };
            timed(&core_label, how, || bpf_core::install(&cache, &pins, &compiler))?;
        }
    }
    for (label, path) in [(linker_label, linker()), (core_label, core())] {
        found(&label, path.as_deref());
    }
    Ok(())
}

/// Sets up what virtual machines are made from; returns the folder that has it.
pub fn virtual_machines() -> Result<PathBuf> {
    let pins = Pins::load()?;
    let cache = Cache::of_this_user()?;
    let folder = vm::folder(&cache, &pins);
    if !folder.is_dir() {
        let _lock = cache.lock()?;
        if !folder.is_dir() {
            let how = "fetching packages from Debian (some 180 MB) and unpacking them";
            timed("virtual machines", how, || vm::install(&cache, &pins))?;
        }
    }
    found("virtual machines", Some(&folder));
    Ok(folder)
}

/// Sets up what checks dependencies; returns the program.
pub fn cargo_deny() -> Result<PathBuf> {
    let how = "building with cargo, takes 2 to 4 minutes";
    cargo_tool("cargo-deny", &Pins::load()?.cargo_deny, how)
}

/// Sets up what makes packages; returns the program.
pub fn cargo_deb() -> Result<PathBuf> {
    let how = "building with cargo, takes one to two minutes";
    cargo_tool("cargo-deb", &Pins::load()?.cargo_deb, how)
}

/// A tool that is built to be there soon.
fn cargo_tool(name: &str, version: &str, how: &str) -> Result<PathBuf> {
    let cache = Cache::of_this_user()?;
    let label = format!("{name} {version}");
    let program = cache.entry(&format!("{name}-{version}")).join("bin").join(name);
    if !program.is_file() {
        let _lock = cache.lock()?;
        if !program.is_file() {
            timed(&label, how, || {
                tool::install(&cache, name, version, tool::Profile::Debug)
            })?;
        }
    }
    found(&label, Some(&program));
    Ok(program)
}

/// Installs those of the programs that are missing.
pub fn programs(programs: &[Program]) -> Result<()> {
    let find = |program: &Program| toolchain::find_program(program.name);
    let missing: Vec<&Program> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
        timed(&names.join(", "), "installing with apt-get", || {
            packages::install(&missing)
        })?;
    }
    for program in programs {
        found(program.name, find(program).as_deref());
    }
    Ok(())
}

fn found(what: &str, path: Option<&Path>) {
    if let Some(path) = path {
        println!("{what}: {}", path.display());
    }
}

fn timed(what: &str, how: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("{what}: {how} …");
    let start = Instant::now();
    work()?;
    println!("{what}: done in {}", human(start.elapsed()));
    Ok(())
}

fn human(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_seconds_then_minutes() {
        assert_eq!(human(Duration::from_millis(900)), "0 s");
        assert_eq!(human(Duration::from_secs(59)), "59 s");
        assert_eq!(human(Duration::from_secs(125)), "2 min 5 s");
    }
}
