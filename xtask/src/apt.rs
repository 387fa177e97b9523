//! Fetching packages with an apt configuration of our own: sources, package lists and state lie in a scratch folder,
//! so the system keeps its own and no root is needed. Only the mirror, its keyring and how to reach it (proxies,
//! certificates) are taken from the system's configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::{command, pins::DebianPackage, toolchain::find_program};

/// For one package list, or one package, over a slow line.
const LIMIT: Duration = Duration::from_mins(15);

/// apt-get with its folders in a scratch folder.
pub struct PrivateApt {
    folder: PathBuf,
    configuration: PathBuf,
}

impl PrivateApt {
    /// Makes the configuration in `folder`, which is empty.
    pub fn new(folder: &Path) -> Result<Self> {
        for tool in ["apt-get", "apt-config", "dpkg", "sha256sum"] {
            ensure!(find_program(tool).is_some(), "this machine has no {tool}");
        }
        for part in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let status = folder.join("status");
        fs::write(&status, "")?;
        let settings = command::output(Command::new("apt-config").arg("dump"))?;
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, configuration_text(folder, &settings))?;
        Ok(Self {
            folder: folder.to_owned(),
            configuration,
        })
    }

    /// Downloads a package, checks it against the pin, and unpacks it; returns the folder it was unpacked into.
    pub fn unpack(&self, package: &DebianPackage) -> Result<PathBuf> {
        self.use_suites(&[&package.suite])?;
        let name = format!("{}={}", package.package, package.version);
        let file = self.download(&name)?;
        let sum = command::output(Command::new("sha256sum").arg("--").arg(&file))?;
        let sum = sum
            .trim_start_matches('\\')
            .split_whitespace()
            .next()
            .unwrap_or_default();
        ensure!(
            sum == package.sha256,
            "{name}: the package has the SHA-256 {sum}, but Cargo.toml pins {}; the pin or the mirror is wrong",
            package.sha256
        );
        let unpacked = self.folder.join("unpacked");
        unpack_file(&file, &unpacked)?;
        Ok(unpacked)
    }

    /// Takes packages from these suites from now on.
    pub fn use_suites(&self, suites: &[&str]) -> Result<()> {
        let archive = self.debian_archive()?;
        fs::write(self.sources(), archive.source(&suites.join(" ")))?;
        command::run(&mut self.ours("apt-get", "update"), LIMIT)
    }

    /// The package that a suite's metapackage stands for: its first dependency.
    pub fn dependency(&self, suite: &str, package: &str) -> Result<String> {
        let mut depends = self.ours("apt-cache", "depends");
        depends
            .arg(format!("-oAPT::Default-Release={suite}"))
            .arg(package);
        let listed = command::output(&mut depends)?;
        let first = listed
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(first
            .with_context(|| format!("{package} depends on nothing"))?
            .to_owned())
    }

    /// Unpacks a package without what it depends on; returns it as [`described`](Self::described).
    pub fn unpack_alone(&self, package: &str, root: &Path) -> Result<String> {
        let file = self.download(package)?;
        let described = Self::described(&file)?;
        unpack_file(&file, root)?;
        fs::remove_file(&file)?;
        Ok(described)
    }

    /// Unpacks packages and all that they depend on, as on an empty system, those of one suite preferred; returns
    /// each as [`described`](Self::described).
    pub fn unpack_with_dependencies(
        &self,
        preferred: &str,
        packages: &[String],
        root: &Path,
    ) -> Result<Vec<String>> {
        let archives = self.folder.join("cache/archives");
        let mut install = self.ours("apt-get", "install");
        install
            .args([
                "-q",
                "--yes",
                "--download-only",
                "--no-install-recommends",
                "--target-release",
                preferred,
            ])
            .args(packages);
        command::run(&mut install, LIMIT)?;
        let mut described = Vec::new();
        for entry in fs::read_dir(&archives)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                described.push(Self::described(&file)?);
                unpack_file(&file, root)?;
                fs::remove_file(&file)?;
            }
        }
        described.sort();
        Ok(described)
    }

    /// A line with a package file's name and version.
    fn described(file: &Path) -> Result<String> {
        let format = "--showformat=${Package} ${Version}\\n";
        command::output(Command::new("dpkg-deb").arg(format).arg("--show").arg(file))
    }

    fn download(&self, name: &str) -> Result<PathBuf> {
        command::run(
            self.ours("apt-get", "download")
                .arg(name)
                .current_dir(&self.folder),
            LIMIT,
        )?;
        self.downloaded()
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("archive.sources")
    }

    /// A command that knows our sources only.
    fn ours(&self, program: &str, action: &str) -> Command {
        let mut apt = self.apt(program, action);
        apt.arg(format!("-oDir::Etc::sourcelist={}", self.sources().display()))
            .arg("-oDir::Etc::sourceparts=/dev/null");
        apt
    }

    /// A command that knows the system's sources.
    fn apt(&self, program: &str, action: &str) -> Command {
        let mut apt = Command::new(program);
        apt.arg("-q").arg(action).env("APT_CONFIG", &self.configuration);
        apt
    }

    fn downloaded(&self) -> Result<PathBuf> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(path);
            }
        }
        bail!("apt-get download left no package in {}", self.folder.display())
    }

    /// The Debian archive among the system's own sources.
    fn debian_archive(&self) -> Result<Archive> {
        let mut targets = command::output(Command::new("apt-get").arg("indextargets"))?;
        if targets.trim().is_empty() {
            // A machine whose package lists were never fetched, or were deleted to save space.
            command::run(&mut self.apt("apt-get", "update"), LIMIT)?;
            targets = command::output(&mut self.apt("apt-get", "indextargets"))?;
        }
        let (uri, file) =
            debian_target(&targets).context("no Debian archive is among this machine's apt sources")?;
        let text = fs::read_to_string(file).with_context(|| format!("read the apt source {file}"))?;
        Ok(Archive {
            uri: uri.to_owned(),
            signed_by: signed_by(&text, uri),
        })
    }
}

fn unpack_file(file: &Path, root: &Path) -> Result<()> {
    command::run(Command::new("dpkg").arg("-x").arg(file).arg(root), LIMIT)
}

/// A Debian archive as an apt source of the system names it.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    uri: String,
    /// The value of Signed-By: a path, a fingerprint or a whole key; apt's trusted keys if there is none.
    signed_by: Option<String>,
}

impl Archive {
    /// The archive's main component of another suite, in the form of a `.sources` file.
    fn source(&self, suite: &str) -> String {
        let signed_by = self
            .signed_by
            .as_ref()
            .map(|value| format!("Signed-By: {value}\n"))
            .unwrap_or_default();
        format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}",
            self.uri
        )
    }
}

/// The private configuration. It replaces the system's files, whose hooks would run on our updates, but keeps their
/// settings for fetching.
fn configuration_text(folder: &Path, system: &str) -> String {
    let folder = folder.display();
    let fetching: String = system
        .lines()
        .filter(|line| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets"))
        .flat_map(|line| [line, "\n"])
        .collect();
    format!(
        "{fetching}\
         Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::http::Timeout \"30\";\n\
         Acquire::https::Timeout \"30\";\n"
    )
}

/// The address of the Debian archive, and the file that names it as a source, from `apt-get indextargets`.
fn debian_target(targets: &str) -> Option<(&str, &str)> {
    targets.split("\n\n").find_map(|target| {
        let field = |name: &str| {
            target
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        // Security updates and backports that have a mirror of their own bear other labels.
        let debian = field("Created-By") == Some("Packages")
            && field("Component") == Some("main")
            && field("Origin") == Some("Debian")
            && field("Label") == Some("Debian");
        let (file, _) = field("Sourcesentry")?.rsplit_once(':')?;
        debian.then_some((field("Repo-URI")?, file))
    })
}

/// What an apt source, of either form, says of the keys that sign the archive at `uri`.
fn signed_by(source: &str, uri: &str) -> Option<String> {
    let uri = uri.trim_end_matches('/');
    let names = |text: &str| {
        text.split_whitespace()
            .any(|word| word.trim_end_matches('/') == uri)
    };
    source
        .split("\n\n")
        .filter(|paragraph| names(paragraph))
        .find_map(|paragraph| {
            let one_line = || {
                let line = paragraph
                    .lines()
                    .find(|line| line.starts_with("deb") && names(line))?;
                let (_, value) = line.split_once("signed-by=")?;
                Some(value.split([' ', ']']).next()?.to_owned())
            };
            let field = || {
                let mut lines = paragraph
                    .lines()
                    .skip_while(|line| !line.to_ascii_lowercase().starts_with("signed-by:"));
                let (_, first) = lines.next()?.split_once(':')?;
                // A whole key goes on in the lines that begin with a space.
                let rest = lines
                    .take_while(|line| line.starts_with([' ', '\t']))
                    .flat_map(|line| ["\n", line]);
                Some(first.trim().to_owned() + &rest.collect::<String>())
            };
            field().or_else(one_line)
        })
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
