//! Building the eBPF crate, from `bridge-user`'s build script.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    toolchain::{TARGET, Toolchain},
};

/// The eBPF crate's package.
const PACKAGE: &str = "bridge-ebpf";

/// What the objects are made of, besides this crate: paths in the workspace.
const SOURCES: [&str; 4] = [PACKAGE, "bridge-common", "Cargo.toml", "Cargo.lock"];

/// The whole of the build script: builds the objects, puts them into `OUT_DIR`, and tells cargo when to run it again.
pub fn build_script() -> Result<()> {
    let workspace = crate::workspace();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    for variable in ["TAPBRIDGE_CACHE", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .context("OUT_DIR is not set: cargo runs this, as a build script")?;
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(error) => {
            // As an instruction it is shown alone; of a script that fails, cargo shows all that it printed.
            println!("cargo::error={error:#}");
            return Ok(());
        }
    };
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    println!("cargo::rerun-if-changed={}", toolchain.sysroot.display());
    let folder = build(&toolchain, &workspace, &target_folder(&out))?;
    for binary in binaries(&workspace)? {
        let (from, to) = (folder.join(&binary), out.join(format!("{binary}.bpf.o")));
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The eBPF crate's binaries, an object of programs each, as cargo finds them: folders with a `main.rs`.
fn binaries(workspace: &Path) -> Result<Vec<String>> {
    let folder = workspace.join(PACKAGE).join("src/bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        if entry.path().join("main.rs").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Builds the eBPF crate and returns the folder of its objects. All profiles and tools share one `target` folder, since
/// the objects are always the optimised ones: the verifier does not accept any other.
fn build(toolchain: &Toolchain, workspace: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = cargo(toolchain, workspace, target, "build");
    cargo.arg("--bins");
    let output = cargo
        .output()
        .with_context(|| format!("`{}` could not be started", command::line(&cargo)))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprint!("{stderr}");
        bail!(
            "`{}` failed ({}); its messages are above",
            command::line(&cargo),
            output.status
        );
    }
    for warning in warnings(&stderr) {
        println!("cargo::warning={warning}");
    }
    Ok(target.join(TARGET).join("release"))
}

/// The compiler's warnings in cargo's messages, each with its place on one line: a build script can't show more.
fn warnings(messages: &str) -> Vec<String> {
    let mut lines = messages.lines().peekable();
    let mut warnings = Vec::new();
    while let Some(line) = lines.next() {
        let Some(text) = line.strip_prefix("warning: ") else {
            continue;
        };
        let place = lines
            .peek()
            .and_then(|next| next.trim_start().strip_prefix("--> "));
        match place {
            Some(place) => warnings.push(format!("{place}: {text}")),
            // Cargo's own count of them.
            None if text.starts_with('`') => {}
            None => warnings.push(text.to_owned()),
        }
    }
    warnings
}

/// The command `cargo build` or `cargo clippy` of the eBPF crate, for BPF.
///
/// Two machines that build the same sources get the same objects, bit for bit, wherever the workspace, the registry
/// and the cache lie: the paths are mapped to fixed ones, and once a path is mapped, cargo leaves all flags out of the
/// crates' hashes, hence the sysroot's path too.
pub fn cargo(toolchain: &Toolchain, workspace: &Path, target: &Path, subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_the_outer_build(name)) {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(workspace)
        .args([
            subcommand,
            "--locked",
            "--package",
            PACKAGE,
            "--release",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target)
        .env("RUSTC", &toolchain.compiler.program)
        // The BPF target's inline assembly and aya-ebpf's intrinsics are unstable features of the compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(toolchain, workspace).join(OsStr::new("\x1f")),
        );
    cargo
}

fn flags(toolchain: &Toolchain, workspace: &Path) -> Vec<OsString> {
    // The layout of struct pt_regs; the target of the outer build is the machine the object runs on.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    let mut flags = vec![
        OsString::from("-Cdebuginfo=2"),
        OsString::from("-Clink-arg=--btf"),
        // Words at any address: the machines that the kernel knows to read them at once are all that this is for, and
        // on others the verifier refuses the programs.
        OsString::from("-Clink-arg=--cpu-features=+allows-misaligned-mem-access"),
        OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\"")),
        with_path("-Clinker=", &toolchain.linker, ""),
        with_path("--sysroot=", &toolchain.sysroot, ""),
    ];
    flags.extend(mapped_paths(workspace));
    flags
}

/// The flags that map the paths of the workspace and of the registry to fixed ones.
pub fn mapped_paths(workspace: &Path) -> Vec<OsString> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    let mut flags = vec![with_path("--remap-path-prefix=", workspace, "=/tapbridge")];
    if let Some(cargo_home) = cargo_home {
        flags.push(with_path(
            "--remap-path-prefix=",
            &cargo_home.join("registry/src"),
            "=/registry",
        ));
    }
    flags
}

fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let mut flag = OsString::from(before);
    flag.push(path);
    flag.push(after);
    flag
}

/// Whether an environment variable speaks of the package, the flags or the tools of the build we run inside of. Cargo
/// or a crate's build script would take it for its own here: of cargo's variables only those stay that say where
/// things are fetched from, where they are kept, and how many jobs may run.
fn belongs_to_the_outer_build(name: &OsStr) -> bool {
    const OURS: [&str; 14] = [
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    const SHARED: [&str; 6] = ["HOME", "HTTP_", "MAKEFLAGS", "NET_", "REGISTR", "TERM_"];
    // One that is not UTF-8 can't be cargo's.
    let Some(name) = name.to_str() else { return false };
    match name.strip_prefix("CARGO_") {
        Some(rest) => !SHARED.iter().any(|shared| rest.starts_with(shared)),
        None => OURS.contains(&name) || name.starts_with("DEP_"),
    }
}

/// Where the eBPF crate is built: beside the profiles' folders in cargo's target folder, which is the folder above
/// `inside` that cargo has marked with CACHEDIR.TAG.
pub fn target_folder(inside: &Path) -> PathBuf {
    inside
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .unwrap_or(inside)
        .join("ebpf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_cargo_does_not_hear_of_the_outer_package() {
        let outer = |name: &str| belongs_to_the_outer_build(OsStr::new(name));
        for name in [
            "CARGO_MANIFEST_DIR",
            "CARGO_CFG_UNIX",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
        ] {
            assert!(outer(name), "{name}");
        }
        for name in [
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_ENCODED_RUSTFLAGS",
            "DEP_X_Y",
            "RUSTC_WORKSPACE_WRAPPER",
        ] {
            assert!(outer(name), "{name}");
        }
    }

    #[test]
    fn the_inner_cargo_keeps_what_it_fetches_and_runs_with() {
        let outer = |name: &str| belongs_to_the_outer_build(OsStr::new(name));
        for name in [
            "CARGO",
            "CARGO_HOME",
            "CARGO_MAKEFLAGS",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_CAINFO",
            "PATH",
        ] {
            assert!(!outer(name), "{name}");
        }
        for name in [
            "CARGO_REGISTRIES_X_INDEX",
            "CARGO_TERM_COLOR",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "HOME",
        ] {
            assert!(!outer(name), "{name}");
        }
    }

    #[test]
    fn warnings_are_told_with_their_place() {
        let messages = "   Compiling bridge-ebpf v0.1.0\n\
                        warning: unused variable: `x`\n  --> bridge-ebpf/src/packet.rs:19:9\n   |\n\n\
                        warning: no place\n\n\
                        warning: `bridge-ebpf` (bin \"fastpath\") generated 2 warnings\n";
        assert_eq!(
            warnings(messages),
            ["bridge-ebpf/src/packet.rs:19:9: unused variable: `x`", "no place"]
        );
    }

    #[test]
    fn the_ebpf_target_folder_lies_beside_the_profiles() {
        let folder = tempfile::tempdir().expect("a scratch folder can be made");
        let target = folder.path();
        let out = target.join("debug/build/bridge-user-0123/out");
        fs::create_dir_all(&out).expect("the scratch folder can be made");
        fs::write(target.join("CACHEDIR.TAG"), "").expect("the scratch folder is ours");
        assert_eq!(target_folder(&out), target.join("ebpf"));
    }
}
