//! `metrics`: what `stats` and `show` tell, for Prometheus.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::{Args, ValueEnum, error::ErrorKind};
use serde_json::json;
use tapbridge::{
    SCHEMA,
    metrics::{self, Paths},
    state::State,
};

use super::{misused, print};

#[derive(Args)]
pub struct Metrics {
    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,

    /// How many paths are told of, the busiest; 'all' or 'none' of them. What is left out is summed up
    #[arg(long, value_name = "N|all|none", default_value_t)]
    paths: Paths,

    /// Of the text: that of Prometheus, version 0.0.4, or OpenMetrics 1.0 [default: prometheus]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Prometheus,
    #[value(name = "openmetrics")]
    OpenMetrics,
}

/// Reads and prints.
pub async fn run(state: &State, arguments: Metrics, json: bool) -> Result<()> {
    if json && arguments.format.is_some() {
        let message = "the argument '--format', which is about the text, cannot be used with '--json'";
        return Err(misused(ErrorKind::ArgumentConflict, message));
    }
    let only = arguments.bridge.as_deref();
    let families = metrics::read(state, only, arguments.paths).await?;
    if json {
        return print::json(&json!({ "schema": SCHEMA, "families": families.all() }));
    }
    let format = match arguments.format {
        None | Some(Format::Prometheus) => metrics::Format::Prometheus,
        Some(Format::OpenMetrics) => metrics::Format::OpenMetrics,
    };
    Ok(io::stdout().write_all(families.render(format).as_bytes())?)
}
