//! Colours, those of iproute2.

use std::{
    env,
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use clap::ValueEnum;

/// When colours are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    #[value(help = "On a terminal, unless NO_COLOR is set")]
    Auto,
    #[value(help = "Wherever it is printed to")]
    Always,
    #[value(help = "Not at all")]
    Never,
}

/// What is printed in a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Names of devices.
    Name,
    /// MAC addresses.
    Address,
    /// What is as it should be.
    Up,
    /// What is not.
    Down,
}

impl Color {
    /// `attr_colors_light` of iproute2's lib/color.c.
    const fn escape(self) -> &'static str {
        match self {
            Self::Name => "\x1b[36m",
            Self::Address => "\x1b[33m",
            Self::Up => "\x1b[32m",
            Self::Down => "\x1b[31m",
        }
    }

    /// That of a port's state.
    pub fn of_state(state: &str) -> Self {
        if state == "up" { Self::Up } else { Self::Down }
    }
}

/// Whether this process prints colours.
static WANTED: OnceLock<bool> = OnceLock::new();

/// Says when colours are printed, once and before anything is.
pub fn choose(when: When) {
    let is_refused = || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    WANTED.get_or_init(|| match when {
        When::Always => true,
        When::Auto => io::stdout().is_terminal() && !is_refused(),
        When::Never => false,
    });
}

/// Whether colours are printed.
pub fn is_wanted() -> bool {
    WANTED.get().copied().unwrap_or(false)
}

/// The text in this colour, if colours are wanted.
pub fn paint(text: &str, color: Color) -> String {
    if is_wanted() {
        format!("{}{text}\x1b[0m", color.escape())
    } else {
        text.to_owned()
    }
}
