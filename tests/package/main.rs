//! The Debian package, installed by dpkg in a root like this machine's. Where the machine lacks what that needs the tests are
//! ignored, and say so; `cargo xtask test` makes the packages.

mod dpkg;
mod files;
mod octets;
mod root;

use std::{env, fs, path::PathBuf, process::ExitCode};

use libtest_mimic::Arguments;
pub use test_support::{Test, tests};
use test_support::{lacking, trials};

/// The folder with `old.deb` and `new.deb`, of one binary.
fn packages() -> Option<PathBuf> {
    env::var_os("TAPBRIDGE_PACKAGES").map(PathBuf::from)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let lacking_all = lacking(&["ip", "dpkg", "chroot"])
        .or_else(|| {
            let overlay = filesystems.lines().any(|line| line.ends_with("\toverlay"));
            (!overlay).then(|| "needs overlayfs".into())
        })
        .or_else(|| {
            packages()
                .is_none()
                .then(|| "needs packages: cargo xtask test".into())
        });
    let also = |programs: &[&str]| lacking_all.clone().or_else(|| lacking(programs));
    let trials = [
        trials("dpkg", dpkg::TESTS, lacking_all.as_deref()),
        trials(
            "dpkg",
            dpkg::APT_TESTS,
            also(&["apt-get", "systemctl"]).as_deref(),
        ),
        trials("files", files::TESTS, lacking_all.as_deref()),
        trials("octets", octets::TESTS, lacking_all.as_deref()),
        trials("octets", octets::BUILD_TESTS, octets::lacking().as_deref()),
        trials("files", files::MANUAL_TESTS, also(&["man"]).as_deref()),
        trials(
            "files",
            files::SYSTEMD_TESTS,
            also(&["systemd-analyze"]).as_deref(),
        ),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
