//! What is in the package, and that it is where distributions look for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::root::with_root;

crate::tests![
    files_are_where_they_are_looked_for_and_nothing_is_changed_yet,
    completions_are_understood_by_bash,
    links_of_documents_lead_somewhere,
];

pub const MANUAL_TESTS: &[crate::Test] = &[(
    "manual_pages_are_shown_without_warnings",
    manual_pages_are_shown_without_warnings,
)];

pub const SYSTEMD_TESTS: &[crate::Test] = &[(
    "the_unit_is_understood_and_exposes_little",
    the_unit_is_understood_and_exposes_little,
)];

const FILES: &[&str] = &[
    "/etc/tapbridge/tapbridge.toml",
    "/usr/lib/systemd/system/tapbridge.service",
    "/usr/share/bash-completion/completions/tapbridge",
    "/usr/share/doc/tapbridge/README.md",
    "/usr/share/doc/tapbridge/changelog.gz",
    "/usr/share/doc/tapbridge/configuration.md",
    "/usr/share/doc/tapbridge/copyright",
    "/usr/share/doc/tapbridge/crates.gz",
    "/usr/share/fish/vendor_completions.d/tapbridge.fish",
    "/usr/share/man/man8/tapbridge-fdb-show.8.gz",
    "/usr/share/man/man8/tapbridge-run.8.gz",
    "/usr/share/man/man8/tapbridge.8.gz",
    "/usr/share/tapbridge/schemas/stats.json",
    "/usr/share/zsh/vendor-completions/_tapbridge",
];

const PROGRAMS: &[&str] = &["/usr/bin/tapbridge", "/usr/share/tapbridge/libvirt-hook"];

/// The most that `systemd-analyze security` may say of the unit, in tenths.
const EXPOSURE: u32 = 25;

fn files_are_where_they_are_looked_for_and_nothing_is_changed_yet() {
    with_root(|root| {
        root.install("old");
        for (file, mode) in FILES
            .iter()
            .map(|file| (file, 0o644))
            .chain(PROGRAMS.iter().map(|file| (file, 0o755)))
        {
            let data = fs::metadata(root.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(data.permissions().mode() & 0o7777, mode, "{file}");
        }
        assert!(
            root.run("tapbridge", "--version")
                .success()
                .starts_with("tapbridge ")
        );
        assert_eq!(
            root.run("tapbridge", "check").success(),
            "/etc/tapbridge/tapbridge.toml: 0 rules, and nothing to change\n"
        );
        root.run("sh", "-n /usr/share/tapbridge/libvirt-hook").success();
        // Whoever wants the service enables it, and whoever wants the hook gives it to libvirt.
        for file in [
            "/etc/systemd/system/multi-user.target.wants/tapbridge.service",
            "/etc/libvirt/hooks/qemu.d/tapbridge",
            "/sys/fs/bpf/tapbridge",
        ] {
            assert!(fs::symlink_metadata(root.path(file)).is_err(), "{file}");
        }
    });
}

/// All pages of a folder of documents and of those in it.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("list the documents").flatten();
    let mut pages = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            pages.extend(self::pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

fn links_of_documents_lead_somewhere() {
    with_root(|root| {
        root.install("old");
        let pages = pages(&root.path("/usr/share/doc/tapbridge"));
        assert!(pages.len() > 20, "{pages:?}");
        let mut links = 0;
        for page in pages {
            let text = fs::read_to_string(&page).expect("read a page");
            for part in text.split("](").skip(1) {
                let target = part.split([')', '#']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") {
                    continue;
                }
                let to = page.with_file_name(target);
                assert!(fs::metadata(&to).is_ok(), "{} links to {target}", page.display());
                links += 1;
            }
        }
        assert!(links > 30, "{links}");
    });
}

fn completions_are_understood_by_bash() {
    with_root(|root| {
        root.install("old");
        let script = "/usr/share/bash-completion/completions/tapbridge";
        let ask = "COMP_WORDS=(tapbridge att) COMP_CWORD=1; _tapbridge tapbridge att tapbridge; echo \"${COMPREPLY[*]}\"";
        fs::write(root.path("/tmp/ask"), format!(". {script}\n{ask}\n")).expect("write a script");
        assert_eq!(root.run("bash", "/tmp/ask").success(), "attach\n");
    });
}

fn manual_pages_are_shown_without_warnings() {
    with_root(|root| {
        root.install("old");
        let pages = fs::read_dir(root.path("/usr/share/man/man8")).expect("list the manual pages");
        let names = pages
            .flatten()
            .map(|page| page.file_name().to_string_lossy().into_owned());
        let ours: Vec<_> = names.filter(|name| name.starts_with("tapbridge")).collect();
        assert!(ours.len() > 10, "{ours:?}");
        for name in ours {
            let shown = root.run("man", &format!("--warnings -l /usr/share/man/man8/{name}"));
            assert_eq!(shown.stderr, "", "{name}");
            let text = shown.success();
            for part in ["NAME", "SYNOPSIS", "EXIT STATUS"] {
                assert!(text.contains(part), "{name} has no {part}: {text}");
            }
        }
    });
}

fn the_unit_is_understood_and_exposes_little() {
    with_root(|root| {
        root.install("old");
        let unit = "/usr/lib/systemd/system/tapbridge.service";
        let verified = root.run("systemd-analyze", &format!("--man=no verify {unit}"));
        // Of other units that it names on the way, too.
        let ours = verified.stderr.lines().filter(|line| line.contains("tapbridge"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
        verified.success();
        let words = format!("security --no-pager --offline=true --threshold={EXPOSURE} {unit}");
        root.run("systemd-analyze", &words).success();
    });
}
