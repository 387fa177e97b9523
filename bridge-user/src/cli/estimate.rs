//! `estimate`: what attaching would save, before anything is attached.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use nix::sys::signal::{SigHandler, Signal, signal};
use tapbridge::{
    estimate::{BridgeReport, Confidence, Estimate as Range, PortReport, Report, Wanted, estimate},
    kernel::requirements,
    state::State,
};

use super::{
    print::{
        self,
        color::{Color, paint},
        counted,
        progress::Progress,
        table::Table,
    },
    seconds,
    signals::asked_to_end,
};

#[derive(Args)]
pub struct Estimate {
    /// Ports of Linux bridges, such as taps [default: all ports of all bridges]
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,

    /// All ports of this Linux bridge; can be given several times
    #[arg(long = "master", value_name = "BRIDGE")]
    masters: Vec<String>,

    /// Watch frames for so many seconds, 1 to 86400, after VMMs were measured for a quarter of that; Ctrl-C ends it, and says
    /// what was seen until then
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = |text: &str| seconds(text, 1.0, 86_400.0))]
    time: Duration,
}

/// Watches, and prints what came of it.
pub async fn run(state: &State, arguments: Estimate, json: bool) -> Result<()> {
    requirements::check_version()?;
    let wanted = Wanted {
        interfaces: arguments.interfaces,
        masters: arguments.masters,
    };
    let mut progress = Some(Progress::new(
        "measuring what frames cost and VMMs take",
        "measured",
        json,
    ));
    let mut watching = None;
    let estimated = estimate(state, &wanted, arguments.time, || {
        progress = None;
        let asked = asked_to_end();
        // True only now: until then Ctrl-C ends it without a word.
        print::say("watching frames… Ctrl-C ends it");
        watching = Some(Progress::new("watching frames", "watched", json));
        async {
            asked.await;
            end_at_once_from_now();
        }
    })
    .await;
    drop((progress, watching));
    // Its programs are taken off when all has been said.
    let estimated = estimated?;
    if json {
        return print::json(&estimated.report);
    }
    print_report(&estimated.report)
}

/// Whoever asks a second time does not want to wait.
fn end_at_once_from_now() {
    for ends in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: no handler is set, only taken away.
        // If it is refused, the command ends a little later.
        let _ = unsafe { signal(ends, SigHandler::SigDfl) };
    }
}

fn print_report(report: &Report) -> Result<()> {
    for (index, bridge) in report.bridges.iter().enumerate() {
        if index != 0 {
            writeln!(io::stdout())?;
        }
        print_bridge(bridge, report)?;
    }
    if report.uncounted > 0 {
        let frames = counted(report.uncounted, "frame", "frames");
        writeln!(
            io::stdout(),
            "\n{frames} too different from others to be counted: less is said than there was"
        )?;
    }
    Ok(())
}

fn print_bridge(bridge: &BridgeReport, report: &Report) -> Result<()> {
    let mut out = io::stdout();
    let name = paint(&bridge.bridge, Color::Name);
    let ports = counted(bridge.ports.len() as u64, "port", "ports");
    writeln!(out, "{name}: {ports}, watched for {:.1} s", report.seconds)?;
    if bridge.frames == 0 {
        return Ok(writeln!(out, "  no frames came in: of that nothing can be said")?);
    }
    print_vmms(bridge)?;
    let (takes, would) = match attached(bridge) {
        Attached::None => ("takes", "accelerated"),
        Attached::Some => ("would take", "accelerated"),
        Attached::All => ("would take", "as attached it takes"),
    };
    writeln!(
        out,
        "  forwards {} frames/s; their path {takes} {} CPUs, VMMs awake",
        grouped(rate(bridge.frames, report)),
        cpus(bridge.cpus.value)
    )?;
    writeln!(
        out,
        "  {would} {}, {}: saves {}",
        range(&bridge.accelerated),
        percent(&bridge.ratio),
        range(&bridge.saves)
    )?;
    writeln!(
        out,
        "  {} of frames by xdp, {} by tcx, {} stay with {}",
        share(bridge.by_xdp, bridge.frames),
        share(bridge.by_tcx, bridge.frames),
        share(bridge.left, bridge.frames),
        bridge.bridge
    )?;
    writeln!(
        out,
        "  a short frame takes {} ns here, by tcx {}, by xdp {}",
        bridge.frame_ns.bridge, bridge.frame_ns.tcx, bridge.frame_ns.xdp
    )?;
    for hook in &bridge.idle_hooks {
        writeln!(out, "  no frame went by {hook} even where it was tried out")?;
    }
    if let Some(doubt) = doubt(bridge) {
        writeln!(out, "  {doubt}")?;
    }
    ports_table(bridge, report).print()?;
    if !bridge.left_by_reason.is_empty() {
        left_table(bridge).print()?;
    }
    obstacles(bridge)
}

/// How many of a bridge's ports are attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    None,
    Some,
    All,
}

fn attached(bridge: &BridgeReport) -> Attached {
    match bridge.ports.iter().filter(|port| port.attached).count() {
        0 => Attached::None,
        count if count == bridge.ports.len() => Attached::All,
        _ => Attached::Some,
    }
}

/// What the processes that hold the taps take.
fn print_vmms(bridge: &BridgeReport) -> Result<()> {
    let mut out = io::stdout();
    let note = bridge.vmms_note.as_deref().unwrap_or_default();
    let Some(vmms) = &bridge.vmms else {
        return Ok(writeln!(out, "  what its VMMs take is not known: {note}")?);
    };
    let processes = counted(vmms.processes.len() as u64, "process", "processes");
    writeln!(
        out,
        "  its VMMs ({processes}) take {} CPUs in the kernel",
        cpus(vmms.cpus)
    )?;
    let attached = attached(bridge);
    let (accelerated, ratio) = (range(&vmms.accelerated), percent(&vmms.ratio));
    if attached != Attached::None {
        let part = if attached == Attached::All {
            format!(", {ratio} are left")
        } else {
            String::new()
        };
        writeln!(out, "  with none attached {}{part}", range(&vmms.bare))?;
    }
    if attached != Attached::All {
        writeln!(out, "  with all attached {accelerated}, {ratio}")?;
    }
    if !note.is_empty() {
        writeln!(out, "  of its VMMs {note}")?;
    }
    Ok(())
}

/// Why nothing is known for sure, if so.
fn doubt(bridge: &BridgeReport) -> Option<String> {
    Some(match bridge.confidence {
        Confidence::Good => return None,
        Confidence::Noisy => {
            "not known to 15 %: what frames cost differs too much from one moment to the next".into()
        }
        Confidence::Incomplete => "not known: too many frames were not counted".into(),
        Confidence::FewFrames => format!(
            "not known: too few frames ({}); watch for longer, or when more goes on",
            bridge.frames
        ),
    })
}

fn ports_table(bridge: &BridgeReport, report: &Report) -> Table {
    let heads = [
        "  PORT", "HOOKS", "FRAMES/S", "XDP", "TCX", "STAY", "CPUS", "WITH", "SAVES",
    ];
    let mut table = Table::new(2, &heads).names([0]);
    for port in &bridge.ports {
        let mut hooks = port.hooks.join("+");
        if port.attached {
            hooks += " (has)";
        }
        let of = |frames: u64| share(frames, port.frames);
        table.row([
            format!("  {}", port.ifname),
            hooks,
            format!("{:.0}", rate(port.frames, report)),
            of(port.by_xdp),
            of(port.by_tcx),
            of(port.left),
            cpus(port.cpus.value),
            cpus(port.accelerated.value),
            cpus(port.saves.value),
        ]);
    }
    table
}

/// Of how many ports a cell names.
const NAMED: usize = 2;

fn left_table(bridge: &BridgeReport) -> Table {
    let mut table = Table::new(3, &["  STAYS", "REASON", "FROM"]);
    for left in &bridge.left_by_reason {
        let mut from = left.ports.join(", ");
        if left.ports.len() > NAMED {
            let more = left.ports.len() - NAMED;
            from = format!("{} and {more} more", left.ports[..NAMED].join(", "));
        }
        table.row([
            format!("  {}", share(left.frames, bridge.frames)),
            left.reason.to_owned(),
            from,
        ]);
    }
    table
}

/// What is in the way of ports that gain nothing, or less than they could.
fn obstacles(bridge: &BridgeReport) -> Result<()> {
    let mut out = io::stdout();
    for port in &bridge.ports {
        let name = paint(&port.ifname, Color::Name);
        if let Some(note) = port.note {
            writeln!(out, "  {name} {note}")?;
        }
        if gains_nothing(port) {
            writeln!(out, "  {name} gains nothing")?;
        }
        for obstacle in &port.obstacles {
            writeln!(out, "  {name}: {}: {}", obstacle.reason, obstacle.text)?;
        }
    }
    Ok(())
}

/// Less than a hundredth of what its frames take is nothing.
fn gains_nothing(port: &PortReport) -> bool {
    port.frames > 0 && port.saves.value < 0.01 * port.cpus.value
}

fn cpus(cpus: f64) -> String {
    // No "-0.000".
    format!("{:.3}", (cpus * 1e3).round() / 1e3 + 0.0)
}

/// Such as "0.740 (0.690–0.810)".
fn range(range: &Range) -> String {
    format!("{} ({}–{})", cpus(range.value), cpus(range.low), cpus(range.high))
}

/// Such as "56 % (53–61)".
fn percent(range: &Range) -> String {
    let [value, low, high] = [range.value, range.low, range.high].map(|ratio| 100.0 * ratio);
    format!("{value:.0} % ({low:.0}–{high:.0})")
}

fn share(part: u64, all: u64) -> String {
    match (part, (100 * part + all / 2).checked_div(all)) {
        (0, _) | (_, None) => "0 %".to_owned(),
        (_, Some(0)) => "<1 %".to_owned(),
        (_, Some(percent)) => format!("{percent} %"),
    }
}

/// By second.
fn rate(frames: u64, report: &Report) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let frames = frames as f64;
    frames / report.seconds
}

/// Such as "412,000".
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(
            [0.4, 999.0, 1000.0, 412_000.3, 1_234_567.0].map(grouped),
            ["0", "999", "1,000", "412,000", "1,234,567"]
        );
        assert_eq!(cpus(-0.0001), "0.000");
        assert_eq!(cpus(-0.0123), "-0.012");
        assert_eq!(share(0, 5), "0 %");
        assert_eq!(share(1, 500), "<1 %");
        assert_eq!(share(5, 5), "100 %");
        assert_eq!(share(0, 0), "0 %");
    }
}
