//! `generate`: manual pages and completions, from the commands as they are defined; hidden, since packages are made with it.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use tapbridge::{config::DEFAULT_CONFIG, state::DEFAULT_STATE};

use super::{CommandLine, examples::EXIT_CODES};

const NAME: &str = "tapbridge";
/// Of programs for administrators, as those of iproute2 are.
const SECTION: &str = "8";

#[derive(Args)]
pub struct Generate {
    /// Gets the folders 'man' and 'completions'
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes a page for each command, and a file for each shell.
pub fn run(arguments: &Generate) -> Result<()> {
    let [man, completions] = ["man", "completions"].map(|name| arguments.folder.join(name));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    for command in documented() {
        let path = man.join(file_name(&command));
        let write = || write_page(&command, &mut File::create(&path)?);
        write().with_context(|| format!("write {}", path.display()))?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut CommandLine::command(), NAME, &completions)
            .with_context(|| format!("write into {}", completions.display()))?;
    }
    Ok(())
}

/// Such as "2026-11-29": of the sources, where whoever builds reproducibly says when that was, else today.
fn date() -> String {
    let seconds = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = seconds.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-11-29".len());
    text
}

/// The commands that have a page: all that help shows.
fn documented() -> Vec<Command> {
    let mut all = CommandLine::command().disable_help_subcommand(true);
    all.build();
    let (mut found, mut next) = (Vec::new(), vec![all]);
    while let Some(command) = next.pop() {
        next.extend(
            command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set())
                .cloned(),
        );
        found.push(command);
    }
    found
}

/// Such as "tapbridge-fdb-show".
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn file_name(command: &Command) -> PathBuf {
    Path::new(page_name(command)).with_extension(SECTION)
}

fn write_page(command: &Command, page: &mut impl Write) -> io::Result<()> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .date(date())
        .source(concat!("tapbridge ", env!("CARGO_PKG_VERSION")))
        .manual("tapbridge");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let mut roff = Roff::new();
    write_end_of_help(command, &mut roff);
    roff.control("SH", ["EXIT STATUS"]);
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').unwrap_or_default();
        roff.control("TP", [])
            .text([bold(code)])
            .text([roman(meaning.trim())]);
    }
    let is_whole = page_name(command) == NAME;
    if is_whole {
        roff.control("SH", ["FILES"]);
        for (path, meaning) in [
            (DEFAULT_CONFIG, "What 'run' attaches, as it comes."),
            (
                DEFAULT_STATE,
                "What is attached, in a folder for each network namespace.",
            ),
        ] {
            roff.control("TP", []).text([bold(path)]).text([roman(meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others: &[&str] = if is_whole { &["bridge"] } else { &[NAME, "bridge"] };
    for (place, name) in (1..).zip(others) {
        let comma = if place < others.len() { "," } else { "" };
        roff.control("BR", [*name, &format!("({SECTION}){comma}")]);
    }
    roff.to_writer(page)
}

/// What follows the options in a command's help: examples, and paragraphs. The codes are on every page.
fn write_end_of_help(command: &Command, roff: &mut Roff) {
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (examples, rest): (Vec<&str>, Vec<&str>) = help
        .split("\n\n")
        .filter(|part| !part.is_empty() && *part != EXIT_CODES)
        .partition(|part| part.starts_with("Examples:"));
    for (title, parts) in [("NOTES", rest), ("EXAMPLES", examples)] {
        if !parts.is_empty() {
            roff.control("SH", [title]);
        }
        for part in parts {
            if title == "NOTES" {
                roff.control("PP", []).text([roman(part)]);
                continue;
            }
            roff.control("EX", []);
            for line in part.lines().skip(1) {
                roff.text([roman(line.trim_start())]);
            }
            roff.control("EE", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(command: &Command) -> String {
        let mut page = Vec::new();
        write_page(command, &mut page).expect("memory takes all");
        String::from_utf8(page).expect("UTF-8")
    }

    #[test]
    fn every_command_that_help_shows_has_a_page_with_examples() {
        let all = documented();
        let names: Vec<_> = all.iter().map(page_name).collect();
        for name in ["tapbridge", "tapbridge-attach", "tapbridge-fdb-show"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert!(!names.contains(&"tapbridge-set") && !names.contains(&"tapbridge-generate"));
        for command in &all {
            // What has commands of its own is explained there.
            let examples = page(command).contains(".SH EXAMPLES");
            assert!(
                examples || command.has_subcommands(),
                "{} has no examples",
                page_name(command)
            );
        }
    }

    #[test]
    fn pages_name_the_exit_codes_once() {
        for command in documented() {
            let page = page(&command);
            for part in [".SH NAME", ".SH OPTIONS", ".SH \"EXIT STATUS\"", "wrong usage"] {
                assert_eq!(page.matches(part).count(), 1, "{part} is not once in {page}");
            }
        }
    }
}
