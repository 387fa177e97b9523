//! The tools that build the eBPF crate: the pinned compiler, bpf-linker, and `core` compiled for BPF.
//!
//! No rustup toolchain has a `core` for BPF, so the set-up compiles one from the compiler's own sources, once, into a
//! private sysroot. `-Z build-std` would do it in every target folder anew, and its crate hashes depend on where the
//! sources lie, so that no two users would get the same object.

use std::{
    collections::hash_map::DefaultHasher,
    env,
    ffi::OsString,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache::Cache, command, pins::Pins};

/// The target of eBPF programs for a little-endian machine.
pub const TARGET: &str = "bpfel-unknown-none";

/// The compiler flags `core` is built with.
///
/// `debuginfo` because bpf-linker makes BTF from the debug information of every function it links.
pub const CORE_FLAGS: [&str; 6] = [
    "--edition=2024",
    "--crate-type=lib",
    "-Copt-level=3",
    "-Cdebuginfo=2",
    "-Zforce-unstable-if-unmarked",
    "--cap-lints=allow",
];

/// The crates that a `no_std` crate is compiled against, in order: name, root in the compiler's sources, and flags.
///
/// The features of `compiler_builtins` are those that its build script and `-Z build-std` give it, as far as they
/// matter without a C compiler: memcpy and its like are included, since there is no C library to bring them.
pub const CORE_CRATES: [(&str, &str, &[&str]); 2] = [
    ("core", "core/src/lib.rs", &[]),
    (
        "compiler_builtins",
        "compiler-builtins/compiler-builtins/src/lib.rs",
        &["--cfg=feature=\"compiler-builtins\"", "--cfg=feature=\"mem\""],
    ),
];

/// The compiler that cargo uses.
#[derive(Debug)]
pub struct Compiler {
    /// The program.
    pub program: OsString,
    /// Its release, for example `1.95.0`.
    pub release: String,
    /// What `rustc -vV` says in full: release, commit, host and LLVM.
    version: String,
    sysroot: PathBuf,
}

impl Compiler {
    /// Asks the compiler in use for its version, which has to be the pinned one: bpf-linker reads its bitcode, and
    /// `core` compiles only with the compiler of its own release.
    pub fn find(pins: &Pins) -> Result<Self> {
        // Cargo tells build scripts which compiler it runs; elsewhere it is the one that cargo would find itself.
        let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let rustc = |arguments: &[&str]| {
            command::output(
                Command::new(&program)
                    .args(arguments)
                    .current_dir(crate::workspace()),
            )
            .with_context(|| format!("Rust {} is needed, which rustup installs", pins.rust))
        };
        let version = rustc(&["-vV"])?;
        let sysroot = rustc(&["--print", "sysroot"])?;
        let release = field(&version, "release")
            .context("`rustc -vV` names no release")?
            .to_owned();
        ensure!(
            release == pins.rust,
            "rustc is {release}, but rust-toolchain.toml pins {0}; get it with `rustup toolchain install {0}`, and see \
             that neither RUSTUP_TOOLCHAIN, a +toolchain argument nor RUSTC asks for another",
            pins.rust
        );
        Ok(Self {
            program,
            release,
            version,
            sysroot: PathBuf::from(sysroot.trim_end()),
        })
    }

    /// The compiler's host triple.
    pub fn host(&self) -> Result<&str> {
        field(&self.version, "host").context("`rustc -vV` names no host")
    }

    /// The sources of `core` that rustup's component rust-src puts into the toolchain, if it is installed.
    pub fn own_sources(&self) -> Option<PathBuf> {
        let library = self.sysroot.join("lib/rustlib/src/rust/library");
        library.join("core/src/lib.rs").is_file().then_some(library)
    }
}

/// Everything the eBPF crate is built with.
#[derive(Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// bpf-linker's path.
    pub linker: PathBuf,
    /// The sysroot that holds `core` for BPF and nothing else.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// The tools as the set-up left them; if one is missing, an error that says which and what to do.
    pub fn find() -> Result<Self> {
        let cache = Cache::of_this_user()?;
        let pins = Pins::load()?;
        let compiler = Compiler::find(&pins)?;
        let linker = linker(&cache, &pins);
        let sysroot = bpf_core(&cache, &pins, &compiler);
        match (linker, sysroot) {
            (Some(linker), Some(sysroot)) => Ok(Self {
                compiler,
                linker,
                sysroot,
            }),
            (linker, sysroot) => {
                let mut missing = Vec::new();
                if linker.is_none() {
                    missing.push(format!("bpf-linker {}", pins.bpf_linker));
                }
                if sysroot.is_none() {
                    missing.push(format!("core of Rust {} for {TARGET}", compiler.release));
                }
                bail!(
                    "{}: not set up yet; run `cargo xtask setup`",
                    missing.join(" and ")
                )
            }
        }
    }
}

/// The name of bpf-linker's folder in the cache.
pub fn linker_name(pins: &Pins) -> String {
    format!("bpf-linker-{}", pins.bpf_linker)
}

/// bpf-linker of exactly the pinned version, from the cache or from PATH.
pub fn linker(cache: &Cache, pins: &Pins) -> Option<PathBuf> {
    let is_pinned = |program: &PathBuf| {
        command::output(Command::new(program).arg("--version"))
            .is_ok_and(|output| linker_version(&output) == Some(pins.bpf_linker.as_str()))
    };
    let cached = cache.entry(&linker_name(pins)).join("bin/bpf-linker");
    Some(cached)
        .filter(is_pinned)
        .or_else(|| find_program("bpf-linker").filter(is_pinned))
}

/// The name of `core`'s sysroot in the cache: a digest of all that decides what is in it.
pub fn core_name(pins: &Pins, compiler: &Compiler) -> String {
    let mut digest = DefaultHasher::new();
    compiler.version.hash(&mut digest);
    CORE_FLAGS.hash(&mut digest);
    CORE_CRATES.hash(&mut digest);
    if compiler.own_sources().is_none() {
        pins.rust_src.sha256.hash(&mut digest);
    }
    format!("core-{}-{:016x}", compiler.release, digest.finish())
}

/// The sysroot with `core` for BPF, if the set-up has compiled it.
pub fn bpf_core(cache: &Cache, pins: &Pins, compiler: &Compiler) -> Option<PathBuf> {
    Some(cache.entry(&core_name(pins, compiler))).filter(|sysroot| sysroot.is_dir())
}

/// Looks a program up in PATH, and where Debian keeps root's programs, which an ordinary user's PATH leaves out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn is_executable(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    program
        .metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn linker_version(output: &str) -> Option<&str> {
    output.trim().strip_prefix("bpf-linker ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
                         host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    fn compiler(version: &str) -> Compiler {
        Compiler {
            program: "rustc".into(),
            release: "1.95.0".into(),
            version: version.into(),
            sysroot: "/nowhere".into(),
        }
    }

    #[test]
    fn release_and_host_are_read_from_rustcs_version() {
        assert_eq!(field(RUSTC, "release"), Some("1.95.0"));
        assert_eq!(compiler(RUSTC).host().ok(), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(field(RUSTC, "commit-hash"), None);
    }

    #[test]
    fn the_linkers_version_is_read() {
        assert_eq!(linker_version("bpf-linker 0.10.4\n"), Some("0.10.4"));
        assert_eq!(linker_version("ld 2.40\n"), None);
    }

    #[test]
    fn another_compiler_gets_another_core() {
        let pins = Pins::load().expect("the workspace's pins are complete");
        let one = core_name(&pins, &compiler(RUSTC));
        let other = core_name(&pins, &compiler(&RUSTC.replace("59807616e", "000000000")));
        assert!(one.starts_with("core-1.95.0-"), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn programs_are_looked_up_in_path() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-anywhere"), None);
    }
}
