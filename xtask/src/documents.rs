//! The documents as the Debian package has them: their links lead to where the package puts what they name.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use xtask::workspace;

/// Folders whose pages are in the package, and where they are there, from its folder of documents.
const FOLDERS: &[(&str, &str)] = &[
    ("", ""),
    ("docs", ""),
    ("docs/hosts", "hosts"),
    ("docs/adr", "adr"),
    ("docs/comparison", "comparison"),
];
/// What pages and their pictures are called by.
const PAGE: &str = "md";
const PICTURE: &str = "svg";
/// Of the workspace's own pages these.
const PAGES: &[&str] = &["README.md", "CONTRIBUTING.md"];
/// What else documents name, and where it is, from the same folder.
const OTHERS: &[(&str, &str)] = &[
    ("CHANGELOG.md", "changelog.gz"),
    ("docs/adr", "adr"),
    ("docs/comparison", "comparison"),
    ("docs/hosts", "hosts"),
    ("monitoring", "../../tapbridge/monitoring"),
    ("packaging/libvirt-hook", "../../tapbridge/libvirt-hook"),
    ("schemas", "../../tapbridge/schemas"),
];

/// Writes all documents into a folder, as they are in the package's.
pub fn write(to: &Path) -> Result<()> {
    for (folder, place) in FOLDERS {
        let own = workspace().join(folder);
        let place = to.join(place);
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let entries = fs::read_dir(&own).with_context(|| format!("list {}", own.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default();
            let Some(place) = place_of_page(&Path::new(folder).join(name)) else {
                continue;
            };
            let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if has_extension(&path, PAGE) {
                text = linked(&text, &Path::new(folder).join(name))?;
            }
            let copy = to.join(place);
            fs::write(&copy, text).with_context(|| format!("write {}", copy.display()))?;
        }
    }
    Ok(())
}

/// A page's text with its links changed.
fn linked(text: &str, page: &Path) -> Result<String> {
    let mut parts = text.split("](");
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        changed += "](";
        let (target, rest) = part.split_once(')').unwrap_or((part, ""));
        if target.contains("://") || target.starts_with('#') {
            changed += part;
            continue;
        }
        changed += &link(target, page)?;
        changed += ")";
        changed += rest;
    }
    Ok(changed)
}

/// A link of a page, by which it finds its target in the package.
fn link(target: &str, page: &Path) -> Result<String> {
    let (path, section) = target
        .split_once('#')
        .map_or((target, None), |(path, section)| (path, Some(section)));
    let from = page.parent().unwrap_or(Path::new(""));
    let named = resolved(&from.join(path));
    let Some(place) = place(&named) else {
        bail!(
            "{}: links to {target}, which is not in the package; name it in xtask/src/documents.rs",
            page.display()
        );
    };
    let depth = place_of_page(page).map_or(0, |page| page.components().count() - 1);
    let section = section.map(|section| format!("#{section}")).unwrap_or_default();
    Ok(format!("{}{}{section}", "../".repeat(depth), place.display()))
}

/// Where something of the workspace is in the package.
fn place(path: &Path) -> Option<PathBuf> {
    place_of_page(path).or_else(|| {
        let other = |(own, place): &(&str, &str)| Some(Path::new(place).join(path.strip_prefix(own).ok()?));
        // What is joined with nothing ends with a slash.
        OTHERS
            .iter()
            .find_map(other)
            .map(|place| place.components().collect())
    })
}

/// Of a page, or of a picture in one.
fn place_of_page(path: &Path) -> Option<PathBuf> {
    let (folder, name) = (path.parent()?.to_str()?, path.file_name()?.to_str()?);
    let is_page = has_extension(path, PAGE) && (!folder.is_empty() || PAGES.contains(&name));
    let is_one = is_page || has_extension(path, PICTURE);
    let place = FOLDERS.iter().find(|(own, _)| *own == folder && is_one);
    place.map(|(_, place)| Path::new(place).join(name))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own == extension)
}

/// Without steps up.
fn resolved(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        if component == Component::ParentDir {
            path.pop();
        } else {
            path.push(component);
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_the_package_has_it() {
        for (page, target, expected) in [
            ("README.md", "docs/install.md", "install.md"),
            ("README.md", "docs/hosts/README.md", "hosts/README.md"),
            ("README.md", "CHANGELOG.md", "changelog.gz"),
            ("README.md", "schemas", "../../tapbridge/schemas"),
            ("README.md", "docs/hosts", "hosts"),
            ("docs/fleet.md", "../README.md#limits", "README.md#limits"),
            ("docs/fleet.md", "hosts/qemu.md", "hosts/qemu.md"),
            ("docs/hosts/qemu.md", "../configuration.md", "../configuration.md"),
            ("docs/hosts/qemu.md", "libvirt.md", "../hosts/libvirt.md"),
            (
                "docs/measuring.md",
                "comparison/README.md",
                "comparison/README.md",
            ),
            (
                "docs/comparison/packets.md",
                "packets.svg",
                "../comparison/packets.svg",
            ),
            (
                "docs/hosts/libvirt.md",
                "../../packaging/libvirt-hook",
                "../../../tapbridge/libvirt-hook",
            ),
            (
                "docs/statistics.md",
                "../schemas/stats.json",
                "../../tapbridge/schemas/stats.json",
            ),
        ] {
            assert_eq!(link(target, Path::new(page)).unwrap(), expected, "{page}");
        }
    }

    #[test]
    fn what_is_elsewhere_stays_and_what_is_nowhere_is_refused() {
        let page = Path::new("docs/fleet.md");
        let text = "see [a](https://example.org/x) and [b](#c), [d](metrics.md)(e)";
        assert_eq!(linked(text, page).unwrap(), text);
        let error = linked("[a](../Cargo.toml)", page).unwrap_err().to_string();
        assert!(
            error.starts_with("docs/fleet.md: links to ../Cargo.toml, which is not in the package"),
            "{error}"
        );
    }

    #[test]
    fn no_document_has_a_link_that_would_be_dead() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert!(folder.path().join("hosts/libvirt.md").exists());
        assert!(folder.path().join("adr/README.md").exists());
        assert!(folder.path().join("comparison/packets.svg").exists());
        assert!(!folder.path().join("CHANGELOG.md").exists());
    }
}
