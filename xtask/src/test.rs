//! `cargo xtask test`.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use xtask::{
    command, ebpf,
    pins::Pins,
    toolchain::{Compiler, Toolchain},
    workspace,
};

use crate::{
    CARGO_LIMIT, cargo, dist, packages, root, setup,
    steps::{Failures, conclude, count},
    totals::Totals,
    vm_test::{self, Built},
};

/// The test binaries that load programs into the kernel or make network namespaces: package and name. Run by an
/// ordinary user, they mark their tests as ignored.
const ROOT_TESTS: [(&str, &str); 4] = [
    ("bridge-user", "programs"),
    ("bridge-user", "end_to_end"),
    ("bridge-user", "package"),
    ("lab", "root"),
];

/// Runs every check and test; a failing one does not keep the others from running.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let mut failures = Failures::default();
    let mut totals = Totals::default();

    let ready = failures.step("set-up of the eBPF toolchain", setup::ebpf_toolchain);
    failures.step("set-up of the programs", || setup::programs(packages::TESTS));
    let mut machines = None;
    failures.step("set-up of virtual machines", || {
        machines = Some(setup::virtual_machines()?);
        Ok(())
    });
    check(&mut failures, ready);
    if ready {
        let mut packages = None;
        failures.step("packages for the tests", || {
            packages = Some(dist::build_for_tests(Built::all()?.find("tapbridge")?)?);
            Ok(())
        });
        let root = root::is_root() || failures.step("root for the tests in the kernel", ask_for_root);
        // Its one CPU is what it waits for, and here tests mostly wait for time to pass.
        let beside = vm_test::start(&mut failures, &mut totals, arguments, machines.as_deref());
        failures.step("cargo test", || {
            let mut result = Ok(());
            for mut test in cargo_test(arguments, machines.as_deref(), packages.as_deref(), root)? {
                result = count(&mut test, &mut totals).and(result);
            }
            ensure!(
                result.is_err() || totals.passed + totals.failed > 0,
                "no test ran"
            );
            result
        });
        vm_test::finish(&mut failures, &mut totals, beside);
    }
    conclude(&failures, totals)
}

/// Runs the checks and the tests that need neither root nor a virtual machine.
pub fn run_quick(arguments: &[OsString]) -> ExitCode {
    let mut failures = Failures::default();
    let mut totals = Totals::default();
    let ready = failures.step("set-up of the eBPF toolchain", setup::ebpf_toolchain);
    check(&mut failures, ready);
    if ready {
        failures.step("cargo test", || {
            let mut result = Ok(());
            for targets in [&["--lib", "--bins", "--test", "logic"][..], &["--doc"]] {
                let mut test = cargo("test");
                test.args(["--workspace", "--no-fail-fast"]).args(targets);
                result = count(test.arg("--").args(arguments), &mut totals).and(result);
            }
            result
        });
    }
    println!("\nleft out: {}, and the tests on Debian's kernel", root_tests());
    conclude(&failures, totals)
}

/// What looks at the sources alone; without the toolchain at their format only.
fn check(failures: &mut Failures, ready: bool) {
    failures.step("cargo fmt", || {
        command::run(cargo("fmt").args(["--all", "--check"]), CARGO_LIMIT)
    });
    if ready {
        failures.step("cargo clippy", || {
            command::run(
                cargo("clippy").args(["--workspace", "--all-targets", "--", "-Dwarnings"]),
                CARGO_LIMIT,
            )
        });
        failures.step("cargo clippy for the eBPF programs", clippy_ebpf);
        failures.step("cargo doc", || {
            let mut doc = cargo("doc");
            doc.args(["--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-Dwarnings");
            command::run(&mut doc, CARGO_LIMIT)
        });
    }
}

/// Replaces this process by a test binary, as root if it needs root. Returns only if that fails.
pub fn run_binary(program: &Path, arguments: &[OsString]) -> Error {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let mut test = if needs_root(&package, program) {
        as_root(program)
    } else {
        Command::new(program)
    };
    let error = test.args(arguments).exec();
    anyhow!("`{}` could not be started: {error}", command::line(&test))
}

fn root_tests() -> String {
    let names = ROOT_TESTS.map(|(package, name)| format!("{package} {name}"));
    names.join(", ")
}

fn ask_for_root() -> Result<()> {
    root::obtain("testing the programs in the kernel").map_err(|error| {
        let skipped = root_tests();
        anyhow!("{error:#}; skipped: {skipped}; `cargo test --workspace` runs all that needs no root")
    })
}

/// Lints what is compiled for BPF only, which clippy does not see when it checks the workspace for this machine.
fn clippy_ebpf() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let target = ebpf::target_folder(&env::current_exe()?);
    let mut clippy = ebpf::cargo(&toolchain, &workspace(), &target, "clippy");
    command::run(clippy.args(["--", "-Dwarnings"]), CARGO_LIMIT)
}

/// The commands that run each test once.
fn cargo_test(
    arguments: &[OsString],
    machines: Option<&Path>,
    packages: Option<&Path>,
    root: bool,
) -> Result<Vec<Command>> {
    let test = |options: &[&str]| {
        let mut test = cargo("test");
        test.args(["--workspace", "--no-fail-fast"])
            .args(options)
            .arg("--")
            .args(arguments);
        for (name, folder) in [("TAPBRIDGE_VM", machines), ("TAPBRIDGE_PACKAGES", packages)] {
            if let Some(folder) = folder {
                test.env(name, folder);
            }
        }
        test
    };
    if !root || root::is_root() {
        return Ok(vec![test(&[])]);
    }
    // rustdoc does not get on with a runner.
    Ok(vec![test(&["--tests", "--config", &runner()?]), test(&["--doc"])])
}

/// Makes cargo run the test binaries through this program, so that each of them runs once, as the user it needs.
fn runner() -> Result<String> {
    let own = env::current_exe().context("where xtask's own binary lies")?;
    let own = own
        .to_str()
        .context("the path of xtask's own binary is not UTF-8")?;
    let compiler = Compiler::find(&Pins::load()?)?;
    let program = toml::Value::from(vec![own, "run-test"]);
    Ok(format!("target.{}.runner={program}", compiler.host()?))
}

fn needs_root(package: &str, program: &Path) -> bool {
    // Cargo appends a hash to the name.
    let name = program
        .file_name()
        .and_then(|name| name.to_str()?.rsplit_once('-'));
    name.is_some_and(|(name, _)| ROOT_TESTS.contains(&(package, name)))
}

/// sudo clears the environment, but tests read what cargo tells them in it.
fn as_root(program: &Path) -> Command {
    let mut command = root::command("env");
    for (name, value) in env::vars_os() {
        let kept = name.to_str().is_some_and(|name| {
            ["PATH", "LD_LIBRARY_PATH"].contains(&name)
                || ["CARGO", "RUST", "TAPBRIDGE"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        });
        if kept {
            let mut assignment = name;
            assignment.push("=");
            assignment.push(value);
            command.arg(assignment);
        }
    }
    command.arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tests_in_the_kernel_get_root() {
        let deps = Path::new("/w/target/debug/deps");
        assert!(needs_root(
            "bridge-user",
            &deps.join("end_to_end-0123456789abcdef")
        ));
        assert!(needs_root("lab", &deps.join("root-0123456789abcdef")));
        assert!(!needs_root(
            "bridge-user",
            &deps.join("tapbridge-0123456789abcdef")
        ));
        assert!(!needs_root("xtask", &deps.join("programs-0123456789abcdef")));
        assert!(!needs_root("bridge-user", &deps.join("programs")));
    }
}
