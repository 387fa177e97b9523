//! `tapbridge-lab dashboard`: what the Grafana dashboard shows of a host in use, asked of a Prometheus and drawn without
//! Grafana.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lab::{Tap, VnetHeader};
use serde::Deserialize;

use super::{
    frame::{Frame, FrameKind, Mac, UNKNOWN, station},
    live::Live,
};
use crate::{
    host::{
        folder::Folder,
        interrupt,
        process::{self, Process},
        scratch,
        wait::{self, OnSignal},
    },
    report::{
        self,
        plot::{
            Plot,
            canvas::{self, Heading},
            series::{Chart, Series, Unit},
        },
    },
};

const DASHBOARD: &str = include_str!("../../../monitoring/grafana-dashboard.json");

const METRICS: &str = "127.0.0.1:9123";
const PROMETHEUS: &str = "http://127.0.0.1:9090";
/// Between two scrapes, in seconds.
const SCRAPE: u64 = 2;
/// Until Prometheus answers, on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
/// The guests: two that talk, and one whose address nobody has learned of.
const GUESTS: usize = 3;
/// What the traffic is of changes so often.
const PHASE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(2);
/// Frames between two pauses.
const BURST: u32 = 10;
/// More than a tap's ring holds.
const OVERFLOW: u32 = 1_200;

/// Draw what the Grafana dashboard shows of a host in use, as a real Prometheus has scraped it
///
/// 'tapbridge run --metrics' is scraped while guests send short frames, bulk, frames to a station that nobody knows, and more
/// than a guest reads. Then each query of the dashboard is asked of Prometheus for that time; one that fails is an error. What
/// comes is written as a page with pictures. Needs prometheus and promtool.
#[derive(Debug, Args)]
pub struct DashboardArguments {
    /// This project's binary
    #[arg(long, value_name = "PATH")]
    tapbridge: PathBuf,
    /// Folder for dashboard.md and the pictures; must not exist yet
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Seconds of traffic
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    time: u64,
}

/// As much of a dashboard as is drawn.
#[derive(Debug, Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    field_config: FieldConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    #[serde(default)]
    legend_format: String,
}

#[derive(Debug, Default, Deserialize)]
struct FieldConfig {
    defaults: Defaults,
}

#[derive(Debug, Default, Deserialize)]
struct Defaults {
    unit: Option<String>,
}

/// What Prometheus answers with: labels, and values at moments.
#[derive(Debug, Deserialize)]
struct Answer {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl DashboardArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        canvas::load_fonts()?;
        let dashboard: Dashboard = serde_json::from_str(DASHBOARD).context("reading the dashboard")?;
        let folder = Folder::make(&self.output)?;
        let live = Live::start(&self.tapbridge, GUESTS, &["--metrics", METRICS])?;
        let scraping = Scraping::start(&live)?;
        let begin = now()?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let traffic = scope.spawn(|| traffic(&live.guests, &stop));
            let waited = wait::sleep(Duration::from_secs(self.time));
            stop.store(true, Ordering::Relaxed);
            traffic.join().expect("no panic").and(waited)
        })?;
        let asked = Asked {
            live: &live,
            begin,
            end: now()?,
        };
        let page = asked.page(&dashboard)?;
        scraping.end()?;
        live.end()?;
        report::write_page(&folder, "dashboard.md", &page.text, &page.plots)
    }
}

/// Seconds since 1970.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// A Prometheus that scrapes the host's metrics.
struct Scraping {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Scraping {
    fn start(live: &Live) -> Result<Self> {
        let folder = scratch::folder("prometheus")?;
        let config = format!(
            "global: {{ scrape_interval: {SCRAPE}s }}\n\
             scrape_configs: [{{ job_name: tapbridge, static_configs: [{{ targets: [{METRICS:?}] }}] }}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).context("writing a configuration")?;
        let mut command = live.host.command("prometheus")?;
        command
            .args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--log.level=warn",
            ])
            .arg(format!(
                "--web.listen-address={}",
                PROMETHEUS.trim_start_matches("http://")
            ))
            .current_dir(folder.path());
        let process = Process::start("prometheus", command)?;
        let scraping = Self {
            process,
            _folder: folder,
        };
        wait::until("the first scrape", LIMIT, OnSignal::Stop, || {
            let first = promtool(
                live,
                &["query", "instant", PROMETHEUS, "up{job=\"tapbridge\"} == 1"],
            );
            Ok(first.is_ok_and(|answer| !answer.trim().is_empty()).then_some(()))
        })?;
        Ok(scraping)
    }

    fn end(self) -> Result<()> {
        self.process.stop().map(drop)
    }
}

fn promtool(live: &Live, words: &[&str]) -> Result<String> {
    let mut command: Command = live.host.command("promtool")?;
    command.args(words);
    process::call(command)
}

/// What guests send, one kind after another, until it shall stop.
fn traffic(guests: &[Tap], stop: &AtomicBool) -> Result<()> {
    let frame = |kind, from: usize, to: Mac| Frame::new(kind, station(from, 0), to);
    let to_second = station(1, 0);
    let short = frame(FrameKind::Datagram(18), 0, to_second);
    let back = frame(FrameKind::Datagram(200), 1, station(0, 0));
    let bulk = frame(FrameKind::Tso4, 0, to_second);
    let unknown = frame(FrameKind::Datagram(18), 2, UNKNOWN);
    let send = |guest: usize, frame: &Frame| {
        let header = VnetHeader::from_bytes(frame.header);
        guests[guest]
            .send(&header, &frame.bytes)
            .context("sending a frame")
    };
    let begin = Instant::now();
    let mut phase = None;
    while !stop.load(Ordering::Relaxed) {
        let now = begin.elapsed().as_secs() / PHASE.as_secs();
        let is_new = phase.replace(now) != Some(now);
        if is_new {
            // Nobody reads meanwhile.
            (0..OVERFLOW).try_for_each(|_| send(0, &short))?;
        }
        for _ in 0..BURST {
            send(0, if now.is_multiple_of(2) { &short } else { &bulk })?;
            send(1, &back)?;
        }
        send(2, &unknown)?;
        for guest in guests {
            while guest
                .receive(Duration::ZERO)
                .context("receiving a frame")?
                .is_some()
            {}
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

struct Page {
    text: String,
    plots: Vec<Plot>,
}

/// The time that is asked about.
struct Asked<'run> {
    live: &'run Live,
    begin: f64,
    end: f64,
}

impl Asked<'_> {
    fn page(&self, dashboard: &Dashboard) -> Result<Page> {
        let mut page = Page {
            text: format!(
                "# The dashboard, without Grafana\n\n\
                 The queries of `monitoring/grafana-dashboard.json`, asked of a Prometheus that has scraped `tapbridge run \
                 --metrics` every {SCRAPE} s for {:.0} s: guests send short frames and bulk in turn, {} s each, frames to a \
                 station that nobody knows, and at each turn more than the receiver reads.\n",
                self.end - self.begin,
                PHASE.as_secs()
            ),
            plots: Vec::new(),
        };
        let (mut queries, mut empty) = (0, Vec::new());
        for panel in &dashboard.panels {
            if panel.kind == "row" {
                write!(page.text, "\n## {}\n\n", panel.title)?;
                continue;
            }
            let mut all = Vec::new();
            for target in &panel.targets {
                queries += 1;
                let answers = self.ask(&target.expr);
                let answers = answers.with_context(|| format!("panel '{}': {}", panel.title, target.expr))?;
                all.extend(answers.into_iter().map(|answer| (target, answer)));
            }
            if all.is_empty() {
                empty.push(&*panel.title);
            }
            panel.add(&mut page, &all, self.begin, self.end)?;
        }
        ensure!(queries > 0, "the dashboard has no queries");
        let without = if empty.is_empty() {
            "none".into()
        } else {
            empty.join(", ")
        };
        write!(
            page.text,
            "\n{queries} queries were answered; without data: {without}.\n"
        )?;
        eprintln!("{queries} queries of the dashboard were answered; panels without data: {without}");
        Ok(page)
    }

    /// Asks for what a query finds at every scrape.
    fn ask(&self, expression: &str) -> Result<Vec<Answer>> {
        let expression = filled_in(expression)?;
        let [start, end, step] = [
            format!("--start={:.3}", self.begin),
            format!("--end={:.3}", self.end),
            format!("--step={SCRAPE}s"),
        ];
        let words = [
            "query",
            "range",
            "-o",
            "json",
            &start,
            &end,
            &step,
            PROMETHEUS,
            &expression,
        ];
        let answer = promtool(self.live, &words)?;
        serde_json::from_str(&answer).with_context(|| format!("promtool: {answer}"))
    }
}

/// A query as Grafana asks it, of all hosts and bridges.
fn filled_in(expression: &str) -> Result<String> {
    let filled = expression
        .replace("$__rate_interval", &format!("{}s", 4 * SCRAPE))
        .replace("$instance", ".*")
        .replace("$bridge", ".*");
    if filled.contains('$') {
        bail!("it has a variable that is not known here");
    }
    Ok(filled)
}

/// What a series is called: the labels that a legend names, or else all.
fn named(target: &Target, labels: &BTreeMap<String, String>) -> String {
    if target.legend_format.is_empty() {
        let labels = labels.iter().filter(|(name, _)| *name != "__name__");
        return labels
            .map(|(name, value)| format!("{name} {value}"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let mut text = target.legend_format.clone();
    for (name, value) in labels {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    // Without the label it is empty, as in Grafana.
    while let Some((before, (_, after))) = text
        .split_once("{{")
        .and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        text = format!("{before}{after}");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Panel {
    fn unit(&self) -> Unit {
        match self.field_config.defaults.unit.as_deref() {
            Some("pps") => Unit::FramesPerSecond,
            Some("Bps") => Unit::BytesPerSecond,
            Some("s") => Unit::Seconds,
            Some("percentunit") => Unit::Share,
            _ => Unit::Number,
        }
    }

    fn add(&self, page: &mut Page, all: &[(&Target, Answer)], begin: f64, end: f64) -> Result<()> {
        match &*self.kind {
            "timeseries" => self.add_plot(page, all, begin, end),
            "stat" => self.add_value(page, all),
            "table" => self.add_rows(page, all),
            other => bail!("panel '{}' is a {other}, which is not known here", self.title),
        }
    }

    fn add_plot(&self, page: &mut Page, all: &[(&Target, Answer)], begin: f64, end: f64) -> Result<()> {
        let series = all.iter().map(|(target, answer)| Series {
            label: named(target, &answer.metric),
            points: answer.numbers().map(|(at, value)| (at - begin, value)).collect(),
        });
        let mut notes: Vec<String> = (!self.description.is_empty())
            .then(|| self.description.clone())
            .into_iter()
            .collect();
        if all.is_empty() {
            notes.push("No data in this time.".into());
        }
        let chart = Chart {
            heading: Heading {
                title: self.title.clone(),
                notes,
            },
            unit: self.unit(),
            time: end - begin,
            all: series.collect(),
        };
        let name = format!("panel-{:02}", self.id);
        writeln!(page.text, "![{}]({name}.svg)\n", self.title)?;
        let svg = chart
            .draw()
            .with_context(|| format!("drawing '{}'", self.title))?;
        page.plots.push(Plot {
            name,
            title: self.title.clone(),
            svg,
        });
        Ok(())
    }

    /// The last one, as Grafana has it.
    fn add_value(&self, page: &mut Page, all: &[(&Target, Answer)]) -> Result<()> {
        let last = all.iter().filter_map(|(_, answer)| answer.numbers().last());
        let value = last.map(|(_, value)| value).next();
        let unit = self.unit();
        let text = value.map_or("no data".into(), |value| match unit {
            Unit::Share => format!("{} %", unit.text(value, 0.01)),
            _ => unit.text(value, 1.0),
        });
        writeln!(page.text, "- {}: **{text}**", self.title)?;
        Ok(())
    }

    fn add_rows(&self, page: &mut Page, all: &[(&Target, Answer)]) -> Result<()> {
        writeln!(page.text, "**{}**\n", self.title)?;
        for (target, answer) in all {
            let name = answer.metric.get("__name__").map_or("", |name| &**name);
            let value = answer
                .numbers()
                .last()
                .map_or("no data".into(), |(_, value)| Unit::Number.text(value, 1.0));
            let words = [name.to_owned(), named(target, &answer.metric)];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            writeln!(page.text, "- {}: {value}", words.join(" "))?;
        }
        if all.is_empty() {
            writeln!(page.text, "no rows")?;
        }
        writeln!(page.text)?;
        Ok(())
    }
}

impl Answer {
    /// Without what is none, such as 0/0.
    fn numbers(&self) -> impl Iterator<Item = (f64, f64)> {
        let numbers = self
            .values
            .iter()
            .filter_map(|(at, value)| Some((*at, value.parse().ok()?)));
        numbers.filter(|(_, value): &(f64, f64)| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_of_the_dashboard_can_be_shown() {
        let dashboard: Dashboard = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard.panels.iter().filter(|panel| panel.kind != "row");
        let mut count = 0;
        for panel in panels {
            count += 1;
            assert!(
                ["timeseries", "stat", "table"].contains(&&*panel.kind),
                "{panel:?}"
            );
            assert!(!panel.targets.is_empty(), "{panel:?}");
            for target in &panel.targets {
                assert!(filled_in(&target.expr).is_ok(), "{target:?}");
            }
        }
        assert!(count > 10);
    }

    #[test]
    fn a_legend_names_the_labels_that_it_asks_for() {
        let labels =
            [("device", "vm1"), ("__name__", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let target = |legend: &str| Target {
            expr: String::new(),
            legend_format: legend.into(),
        };
        assert_eq!(
            named(&target("{{device}} → {{to}} it"), &labels.clone().into()),
            "vm1 → it"
        );
        assert_eq!(named(&target(""), &labels.into()), "device vm1");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let json = r#"[{"metric":{"a":"b"},"values":[[1.5,"2"],[3,"NaN"],[4,"+Inf"],[5,"0.5"]]}]"#;
        let answers: Vec<Answer> = serde_json::from_str(json).unwrap();
        assert_eq!(answers[0].numbers().collect::<Vec<_>>(), [(1.5, 2.0), (5.0, 0.5)]);
    }
}
