//! Building tools that are crates: bpf-linker, cargo-deb and cargo-deny.

use std::{env, fs, iter, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use xtask::{
    cache::{self, Cache},
    command,
    pins::Pins,
    toolchain,
};

/// Some times what the longer of the builds takes on two cores.
const LIMIT: Duration = Duration::from_mins(30);

/// How a tool is built.
#[derive(Clone, Copy)]
pub enum Profile {
    /// To be fast.
    Release,
    /// To be there soon: a third of the time.
    Debug,
}

/// Builds the pinned bpf-linker into the cache.
pub fn install_linker(cache: &Cache, pins: &Pins) -> Result<()> {
    let name = toolchain::linker_name(pins);
    install(cache, "bpf-linker", &pins.bpf_linker, Profile::Release)?;
    ensure!(
        toolchain::linker(cache, pins).is_some(),
        "bpf-linker {}: built, but {} does not run; see what it says to --version",
        pins.bpf_linker,
        cache.entry(&name).join("bin/bpf-linker").display()
    );
    Ok(())
}

/// Builds this version of a tool into the cache; the entry's name is both.
pub fn install(cache: &Cache, package: &str, version: &str, profile: Profile) -> Result<()> {
    let name = format!("{package}-{version}");
    // Kept after an interruption, so that the next run goes on where this one ended.
    let build = cache.entry(&format!("{name}.build"));
    cache.fill(&name, |folder| {
        build_into(folder, &build, package, version, profile)
    })?;
    cache::remove(&build)
}

fn build_into(folder: &Path, build: &Path, package: &str, version: &str, profile: Profile) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["install", package, "--locked", "--no-track", "--version", version])
        .args(match profile {
            Profile::Release => &[][..],
            Profile::Debug => &["--debug"],
        })
        .arg("--root")
        .arg(folder)
        .arg("--target-dir")
        .arg(build)
        // Cargo would advise to put the folder into PATH.
        .env(
            "PATH",
            env::join_paths(iter::once(folder.join("bin")).chain(env::split_paths(&path)))?,
        )
        // A quarter of the time, and 45 of 48 MB, would go into debug information.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        // Flags and targets meant for the workspace have no place in a tool.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_INSTALL_ROOT");
    fs::create_dir_all(build).with_context(|| format!("create {}", build.display()))?;
    command::run(&mut cargo, LIMIT).with_context(|| {
        format!("{package}: its messages are above; the same command goes on where it stopped")
    })
}
