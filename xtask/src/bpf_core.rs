//! Compiling `core` for BPF from the compiler's own sources.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use xtask::{
    cache::{self, Cache},
    command,
    pins::Pins,
    toolchain::{self, CORE_CRATES, CORE_FLAGS, Compiler, TARGET},
};

use crate::apt::PrivateApt;

/// Ten times what the larger crate takes on a slow core.
const LIMIT: Duration = Duration::from_mins(5);

/// Compiles `core` into a private sysroot in the cache.
pub fn install(cache: &Cache, pins: &Pins, compiler: &Compiler) -> Result<()> {
    cache.fill(&toolchain::core_name(pins, compiler), |sysroot| {
        if let Some(sources) = compiler.own_sources() {
            return compile(compiler, &sources, sysroot);
        }
        let scratch = sysroot.join("sources");
        fs::create_dir(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let unpacked = PrivateApt::new(&scratch).and_then(|apt| apt.unpack(&pins.rust_src)).map_err(|error| {
            anyhow!(
                "rustc {0} comes without the sources of core, and they could not be had from Debian: {error:#}.\n\
                 Ways to get them: `rustup component add rust-src --toolchain {0}`; or a machine with apt and a Debian \
                 archive that has {1} {2} in {3}",
                pins.rust,
                pins.rust_src.package,
                pins.rust_src.version,
                pins.rust_src.suite
            )
        })?;
        let sources = unpacked.join(format!("usr/src/rustc-{}/library", pins.rust));
        compile(compiler, &sources, sysroot)?;
        cache::remove(&scratch)
    })?;
    Ok(())
}

fn compile(compiler: &Compiler, sources: &Path, sysroot: &Path) -> Result<()> {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&libraries).with_context(|| format!("create {}", libraries.display()))?;
    for (name, root, flags) in CORE_CRATES {
        let mut rustc = Command::new(&compiler.program);
        rustc
            // The current folder goes into the debug information, hence into the object: let it be one that is mapped.
            .current_dir(sources)
            .args(["--crate-name", name])
            .arg(sources.join(root))
            .args(["--target", TARGET])
            .args(CORE_FLAGS)
            .args(flags)
            // What tells one crate `core` from another; cargo would put a hash of the sources' path here.
            .arg(format!("-Cmetadata=tapbridge-{}", compiler.release))
            .arg(format!(
                "--remap-path-prefix={}=/rustc/library",
                sources.display()
            ))
            .arg("--sysroot")
            .arg(sysroot)
            .arg("--out-dir")
            .arg(&libraries)
            // The standard library may use unstable features with any compiler, as long as it says that it is the one.
            .env("RUSTC_BOOTSTRAP", "1");
        command::run(&mut rustc, LIMIT).with_context(|| format!("{name} for {TARGET}"))?;
    }
    Ok(())
}
