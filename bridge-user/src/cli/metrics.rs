//! `metrics`: what `stats` and `show` tell, for Prometheus.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use tapbridge::{
    SCHEMA,
    metrics::{self, Paths},
    state::State,
};

use super::print;

#[derive(Args)]
pub struct Metrics {
    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,

    /// How many paths are told of, the busiest; 'all' or 'none' of them. What is left out is summed up
    #[arg(long, value_name = "N|all|none", default_value_t)]
    paths: Paths,

    /// Of the text: that of Prometheus, version 0.0.4, or OpenMetrics 1.0
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Prometheus)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Prometheus,
    #[value(name = "openmetrics")]
    OpenMetrics,
}

/// Reads and prints.
pub async fn run(state: &State, arguments: Metrics, json: bool) -> Result<()> {
    let only = arguments.bridge.as_deref();
    let families = metrics::read(state, only, arguments.paths).await?;
    if json {
        return print::json(&json!({ "schema": SCHEMA, "families": families.all() }));
    }
    let format = match arguments.format {
        Format::Prometheus => metrics::Format::Prometheus,
        Format::OpenMetrics => metrics::Format::OpenMetrics,
    };
    Ok(io::stdout().write_all(families.render(format).as_bytes())?)
}
