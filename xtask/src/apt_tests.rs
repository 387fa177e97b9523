use super::*;

const TARGETS: &str = "\
MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian-Security
Component: main
Created-By: Packages
Repo-URI: file:/srv/debian-security/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:2

MetaKey: main/dep11/Components-amd64.yml
Origin: Debian
Label: Debian
Component: main
Created-By: DEP-11
Repo-URI: file:/srv/wrong/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:1

MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian
Component: main
Created-By: Packages
Repo-URI: file:/srv/debian/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:1
";

#[test]
fn the_debian_archive_is_found_among_the_index_targets() {
    let expected = ("file:/srv/debian/", "/etc/apt/sources.list.d/debian.sources");
    assert_eq!(debian_target(TARGETS), Some(expected));
}

#[test]
fn another_distributions_archive_is_not_taken_for_debians() {
    assert_eq!(
        debian_target(&TARGETS.replace("Origin: Debian", "Origin: Ubuntu")),
        None
    );
    assert_eq!(debian_target(""), None);
}

#[test]
fn the_keyring_of_a_sources_file_is_that_of_its_archive() {
    let source = "Types: deb\nURIs: file:/srv/other\nSigned-By: /other.gpg\n\n\
                  # a remark\nTypes: deb\nURIs: file:/srv/debian\nSuites: a b\nSigned-By: /debian.gpg\n";
    assert_eq!(
        signed_by(source, "file:/srv/debian/").as_deref(),
        Some("/debian.gpg")
    );
}

#[test]
fn a_key_written_into_a_sources_file_is_kept_whole() {
    let source = "Types: deb\nURIs: file:/srv/debian/\nSigned-By:\n -----BEGIN\n .\n abc\nSuites: a\n";
    assert_eq!(
        signed_by(source, "file:/srv/debian/").as_deref(),
        Some("\n -----BEGIN\n .\n abc")
    );
}

#[test]
fn the_keyring_of_a_sources_list_stands_in_brackets() {
    let source = "deb file:/srv/x a main\n\
                  deb [arch=amd64 signed-by=/debian.gpg] file:/srv/debian a main\n";
    assert_eq!(
        signed_by(source, "file:/srv/debian/").as_deref(),
        Some("/debian.gpg")
    );
    assert_eq!(
        signed_by("deb file:/srv/debian a main\n", "file:/srv/debian/"),
        None
    );
}

#[test]
fn a_source_without_keyring_leaves_the_keys_to_apt() {
    let archive = Archive {
        uri: "file:/srv/debian/".into(),
        signed_by: None,
    };
    assert_eq!(
        archive.source("suite"),
        "Types: deb\nURIs: file:/srv/debian/\nSuites: suite\nComponents: main\n"
    );
}

#[test]
fn proxies_are_kept_and_hooks_are_not() {
    let system = "Acquire::http::Proxy \"p\";\nAPT::Update::Post-Invoke:: \"rm -f x\";\nDir::Cache \"var/cache/apt\";\n";
    let text = configuration_text(Path::new("/scratch"), system);
    assert!(text.starts_with("Acquire::http::Proxy \"p\";\n"), "{text}");
    assert!(!text.contains("Post-Invoke"), "{text}");
    assert!(text.contains("Dir::Cache \"/scratch/cache\";"), "{text}");
}
