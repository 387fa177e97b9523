//! The same sources make the same octets.

use std::{env, fs, path::Path, process::Command};

use crate::packages;

crate::tests![what_is_packed_twice_is_the_same_octets];

pub const BUILD_TESTS: &[crate::Test] = &[(
    "what_is_built_twice_is_the_same_octets",
    what_is_built_twice_is_the_same_octets,
)];

/// Whoever has the time sets it.
const REBUILD: &str = "TAPBRIDGE_REBUILD";

/// Why the package is not built twice.
pub fn lacking() -> Option<String> {
    env::var_os(REBUILD)
        .is_none()
        .then(|| format!("needs {REBUILD}=1, for two builds of everything: cargo xtask dist --check"))
}

fn what_is_packed_twice_is_the_same_octets() {
    let folder = packages().expect("packages");
    let [one, other, newer] = ["old", "again", "new"].map(|name| {
        let path = folder.join(format!("{name}.deb"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    assert!(one == other, "in {}", folder.display());
    assert!(one != newer, "another version is in it");
}

fn what_is_built_twice_is_the_same_octets() {
    let mut xtask = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    xtask
        .args(["xtask", "dist", "--check"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // Each of its builds has a limit of its own.
    let status = xtask.status().expect("start cargo");
    assert!(status.success(), "{status}");
}
