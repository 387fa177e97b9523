//! The crates that are in the binary and in the eBPF programs, with their licences' texts: what is distributed has to bring
//! them along.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use xtask::command;

use crate::cargo;

/// Packages whose code is distributed.
const ROOTS: [&str; 2] = ["bridge-user", "bridge-ebpf"];

/// How the names of files begin that have a licence, or say whose the code is.
const TEXTS: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// What `cargo metadata` says, as far as it matters.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None of what is in the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None of what is linked.
    kind: Option<String>,
}

/// Lists the crates of others, each with its licence, and after them every text once, with the crates that bring it.
pub fn list(host: &str) -> Result<String> {
    let mut metadata = cargo("metadata");
    metadata.args(["--locked", "--format-version", "1", "--filter-platform", host]);
    let metadata: Metadata =
        serde_json::from_str(&command::output(&mut metadata)?).context("what cargo metadata says")?;
    let linked = linked(&metadata);
    let mut crates: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some() && linked.contains(&package.id))
        .collect();
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    let mut list = String::from("Crates of other authors in tapbridge, and their licences.\n\n");
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for package in crates {
        let called = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref().unwrap_or("see below");
        writeln!(list, "{called}: {license}")?;
        let folder = package.manifest_path.parent().unwrap_or(Path::new("/"));
        for text in texts_in(folder)? {
            texts.entry(text).or_default().push(called.clone());
        }
    }
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
    for (text, crates) in texts {
        writeln!(
            list,
            "\n{}\n{}:\n\n{}",
            "-".repeat(72),
            crates.join(", "),
            text.trim_end()
        )?;
    }
    Ok(list)
}

/// Ids of all that the roots link, themselves included.
fn linked(metadata: &Metadata) -> BTreeSet<String> {
    let is_root = |package: &&Package| package.source.is_none() && ROOTS.contains(&&*package.name);
    let mut next: Vec<&str> = metadata
        .packages
        .iter()
        .filter(is_root)
        .map(|root| &*root.id)
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !found.insert(id.to_owned()) {
            continue;
        }
        let nodes = metadata.resolve.nodes.iter().filter(|node| node.id == id);
        let is_linked =
            |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        next.extend(
            nodes
                .flat_map(|node| &node.deps)
                .filter(is_linked)
                .map(|dependency| &*dependency.pkg),
        );
    }
    found
}

/// The licences and notices that lie beside a crate's manifest, sorted by their files' names.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        file.is_file() && TEXTS.iter().any(|text| name.starts_with(text))
    });
    files.sort();
    let read = |file: &PathBuf| fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_found_and_what_only_builds_it_is_not() {
        let metadata = r#"{
            "packages": [
                {"id": "u", "name": "bridge-user", "version": "1", "manifest_path": "/u/Cargo.toml"},
                {"id": "a", "name": "a", "version": "1", "source": "r", "manifest_path": "/a/Cargo.toml"},
                {"id": "b", "name": "b", "version": "1", "source": "r", "manifest_path": "/b/Cargo.toml"},
                {"id": "t", "name": "t", "version": "1", "source": "r", "manifest_path": "/t/Cargo.toml"}
            ],
            "resolve": {"nodes": [
                {"id": "u", "deps": [
                    {"pkg": "a", "dep_kinds": [{"kind": null}]},
                    {"pkg": "t", "dep_kinds": [{"kind": "dev"}, {"kind": "build"}]}
                ]},
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": null}]}]},
                {"id": "b", "deps": []},
                {"id": "t", "deps": []}
            ]}
        }"#;
        let metadata: Metadata = serde_json::from_str(metadata).expect("metadata");
        assert_eq!(linked(&metadata), ["a", "b", "u"].map(str::to_owned).into());
    }
}
