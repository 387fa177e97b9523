//! What commands print with: JSON for programs, tables and words for people.

pub mod color;
pub mod progress;
pub mod table;

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use anyhow::Result;
use serde::Serialize;
use tapbridge::{SCHEMA, state::Cleared};

/// Whether an error only says that nobody reads any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One JSON document, on one line so that repeated ones can be read line by line.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Lines of words that have no blanks, each word below those of the same place.
pub fn brief(lines: &[Vec<String>]) -> Result<()> {
    let places = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |place: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(place))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..places).map(|place| width(place).unwrap_or(0)).collect();
    let mut out = io::stdout().lock();
    for line in lines {
        let words: Vec<_> = line
            .iter()
            .zip(&widths)
            .map(|(word, width)| format!("{word:width$}"))
            .collect();
        writeln!(out, "{}", words.join("  ").trim_end())?;
    }
    Ok(())
}

/// Whether words that can't be understood ask for JSON nevertheless.
pub fn is_json_wanted() -> bool {
    std::env::args_os().any(|word| word == "--json" || is_cluster_with_json(&word.to_string_lossy()))
}

/// Such as -j, -dj and -jn: behind an option that takes a value, as -n does, no letter is an option.
fn is_cluster_with_json(word: &str) -> bool {
    let letters = word.strip_prefix('-').unwrap_or_default();
    let mut options = letters
        .chars()
        .take_while(|letter| matches!(letter, 'j' | 'd' | 'c'));
    options.any(|letter| letter == 'j')
}

/// Says something that is no output, on standard error. That nobody hears it is no reason to stop.
pub fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Says why a command failed, on standard error: what goes to standard output stays what the command has to tell.
pub fn error(message: &str, as_json: bool) {
    if as_json {
        let error = serde_json::json!({ "schema": SCHEMA, "error": { "message": message } });
        say(error);
    } else {
        say(format_args!("tapbridge: {message}"));
    }
}

/// What clap complains of, in one line and without its advice.
pub fn first_paragraph(complaint: &str) -> String {
    let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
    let lines = complaint.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Such as "1 frame" and "2 frames".
pub fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    match count.into() {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// Said at once: it has been done, whatever becomes of the command that it was done for.
pub fn cleared(cleared: &[Cleared], as_json: bool) {
    for Cleared { name, reason } in cleared.iter().filter(|_| !as_json) {
        say(format_args!("{name}: cleared away: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_in_any_cluster_of_short_options() {
        for word in ["-j", "-dj", "-jd", "-cj", "-jnblue", "-jn"] {
            assert!(is_cluster_with_json(word), "{word}");
        }
        for word in ["-d", "-nj", "j", "--brief", "-", "-br", ""] {
            assert!(!is_cluster_with_json(word), "{word}");
        }
    }
}
