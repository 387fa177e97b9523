//! `cargo xtask dist`: the Debian package, made by cargo-deb as `[package.metadata.deb]` of bridge-user says.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::{
    cache, command, ebpf,
    pins::Pins,
    toolchain::{Compiler, find_program},
    workspace,
};

use crate::{CARGO_LIMIT, binaries, cargo, crates, documents, setup};

/// The package that has the binary, and says what is in the Debian package.
const PACKAGE: &str = "bridge-user";
/// For what is made of the binary, which takes seconds.
const LIMIT: Duration = Duration::from_mins(10);
/// The variable by which reproducible builds are told the time, in seconds since 1970.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Builds the package; returns its path.
pub fn build() -> Result<PathBuf> {
    setup::ebpf_toolchain()?;
    let cargo_deb = setup::cargo_deb()?;
    let folder = folder()?;
    let binary = binary(&folder)?;
    package(&cargo_deb, &binary, &folder.join("package"), &[])
}

/// Builds the package, and once more from a clone in another folder, with a target folder of its own; returns the path of the
/// first. Both are the same octets, or it is an error.
pub fn build_twice() -> Result<PathBuf> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]).current_dir(workspace());
    let changed = command::output(&mut git).context("what is not committed, and would be in no clone")?;
    ensure!(
        changed.is_empty(),
        "these files are not committed, and would be in no clone; commit or remove them first:\n{changed}"
    );
    let first = build()?;
    let clone = folder()?.join("again");
    cache::remove(&clone)?;
    let mut git = Command::new("git");
    git.args(["clone", "--quiet"]).arg(workspace()).arg(&clone);
    command::run(&mut git, LIMIT)?;
    let mut again = cargo("xtask");
    again
        .arg("dist")
        .current_dir(&clone)
        .env_remove("CARGO_TARGET_DIR");
    command::run(again.stdout(Stdio::null()), 2 * CARGO_LIMIT)?;
    let name = first.file_name().context("the package has no name")?;
    let second = clone.join("target/dist/package").join(name);
    let [one, other] =
        [&first, &second].map(|path| fs::read(path).with_context(|| format!("read {}", path.display())));
    ensure!(
        one? == other?,
        "{} and {} are not the same octets; 'diffoscope' of both says in what they differ",
        first.display(),
        second.display()
    );
    cache::remove(&clone)?;
    Ok(first)
}

/// Packs a binary that the tests are built with, as an earlier version and as a later one, and the earlier one once more; returns
/// the folder of all.
pub fn build_for_tests(binary: &Path) -> Result<PathBuf> {
    let cargo_deb = setup::cargo_deb()?;
    let folder = folder()?.join("tests");
    cache::remove(&folder)?;
    for (name, version) in [("again", "0.0.1"), ("old", "0.0.1"), ("new", "999")] {
        // Little is gained where nobody downloads it.
        let options = ["--fast", "--quiet", "--deb-version", version];
        let made = package(&cargo_deb, binary, &folder.join("package"), &options)?;
        let to = folder.join(format!("{name}.deb"));
        fs::rename(&made, &to).with_context(|| format!("rename {} to {}", made.display(), to.display()))?;
    }
    Ok(folder)
}

/// Where all of it is: beside the profiles' folders.
fn folder() -> Result<PathBuf> {
    binaries("dist")
}

/// The same octets wherever the workspace and the registry lie: their paths are mapped, as those of the eBPF programs are.
fn binary(folder: &Path) -> Result<PathBuf> {
    let build = folder.join("build");
    let flags = ebpf::mapped_paths(&workspace()).join(OsStr::new("\x1f"));
    let mut cargo = cargo("build");
    cargo
        .args([
            "--locked",
            "--release",
            "--package",
            PACKAGE,
            "--bin",
            "tapbridge",
        ])
        .arg("--target-dir")
        .arg(&build)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    command::run(&mut cargo, CARGO_LIMIT)?;
    Ok(build.join("release/tapbridge"))
}

/// Packs a binary with what it writes of itself.
fn package(cargo_deb: &Path, binary: &Path, folder: &Path, options: &[&str]) -> Result<PathBuf> {
    for tool in ["dpkg-shlibdeps", "gzip", "strip"] {
        if find_program(tool).is_none() {
            bail!(
                "this machine has no {tool}; install dpkg-dev, gzip and binutils, or what your system calls them"
            );
        }
    }
    // cargo-deb looks there for what is built: the folder of the profile in the target folder.
    let built = folder.join("release");
    cache::remove(folder)?;
    fs::create_dir_all(&built).with_context(|| format!("make {}", built.display()))?;
    let copy = built.join("tapbridge");
    fs::copy(binary, &copy).with_context(|| format!("copy {}", binary.display()))?;
    let epoch = epoch()?;
    command::run(
        Command::new(&copy).arg("generate").arg(&built).env(EPOCH, &epoch),
        LIMIT,
    )?;
    let compiler = Compiler::find(&Pins::load()?)?;
    fs::write(built.join("crates"), crates::list(compiler.host()?)?).context("write the list of crates")?;
    documents::write(&built.join("doc"))?;
    // cargo-deb compresses what lies elsewhere.
    let pages = fs::read_dir(built.join("man")).context("list the manual pages")?;
    let mut gzip = Command::new("gzip");
    gzip.arg("-9n").arg(built.join("crates"));
    command::run(gzip.args(pages.flatten().map(|page| page.path())), LIMIT)?;
    let mut deb = Command::new(cargo_deb);
    deb.args(["--no-build", "--locked", "--package", PACKAGE, "--output"])
        .arg(folder)
        .args(options)
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", folder)
        .env(EPOCH, epoch);
    command::run(&mut deb, LIMIT).context("its messages are above")?;
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut made = entries.flatten().map(|entry| entry.path());
    made.find(|path| path.extension() == Some(OsStr::new("deb")))
        .with_context(|| format!("cargo-deb has put no package into {}", folder.display()))
}

/// When the sources were committed, unless the user says otherwise.
fn epoch() -> Result<String> {
    if let Ok(epoch) = env::var(EPOCH) {
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(workspace());
    let time = command::output(&mut git)
        .with_context(|| format!("when the sources were committed; set {EPOCH} where there is no git"))?;
    Ok(time.trim().to_owned())
}
