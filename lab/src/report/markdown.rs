//! The report as a page.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    compare, counts,
    label::{self, Labelled},
    metrics,
    plot::Plot,
    reference, tables,
};
use crate::{
    results::{Results, Role, Run},
    workload::kind::Workload,
};

/// The page for one file or for several side by side, with plots that lie in the same folder.
pub fn page(files: &[Labelled], plots: &[Plot]) -> String {
    let mut page = String::from("# Measurements between guests\n\n");
    page += &tables::facts(files).markdown();
    for line in notes(files) {
        let _ = write!(page, "\n{line}\n");
    }
    let _ = write!(page, "\n{TABLES}\n");
    page += &host_cpu(files);
    for workload in compare::workloads_of(files.iter().map(|file| file.results)) {
        let [comparison, costs] =
            [tables::comparison, tables::costs].map(|table| table(files, workload).markdown());
        let (title, explained) = (title(workload), explained(workload));
        let _ = write!(
            page,
            "\n## {title}\n\n{explained}\n\n{comparison}\nWhat it cost:\n\n{costs}"
        );
    }
    if !plots.is_empty() {
        page += "\n## Plots\n";
    }
    for plot in plots {
        let _ = write!(page, "\n![{}]({}.svg)\n", plot.title, plot.name);
    }
    // Of several, each has a page of its own.
    if let [file] = files {
        page += &frames(file.results);
        page += &details(file.results);
    }
    page
}

/// What the host spent, and where.
fn host_cpu(files: &[Labelled]) -> String {
    let mut text = format!(
        "\n## Host CPU\n\n{HOST_CPU}\n\n{}",
        tables::host_cpu(files).markdown()
    );
    let workloads = compare::workloads_of(files.iter().map(|file| file.results)).into_iter();
    let profiles = workloads.map(|workload| (workload, tables::profile(files, workload)));
    let profiles: Vec<_> = profiles.filter(|(_, profile)| !profile.is_empty()).collect();
    if !profiles.is_empty() {
        let _ = write!(text, "\n### Where it went\n\n{PROFILE}\n");
    }
    for (workload, profile) in profiles {
        let _ = write!(text, "\n{}:\n\n{}", title(workload), profile.markdown());
    }
    text
}

/// What a reader has to know before the metrics.
pub fn notes(files: &[Labelled]) -> Vec<String> {
    let mut notes = Vec::new();
    let differences = label::differences(files);
    if !differences.is_empty() {
        let list = differences.join(", ");
        notes.push(format!(
            "**Warning: the files were not measured alike; they differ in {list}.**"
        ));
    }
    if let Some(few) = too_few_rounds(files) {
        notes.push(few);
    }
    for file in files {
        let label = if file.label.is_empty() {
            String::new()
        } else {
            format!("{}: ", file.label)
        };
        for datapath in file.results.datapaths() {
            let samples = || {
                file.results
                    .samples
                    .iter()
                    .filter(|sample| sample.datapath == datapath)
            };
            for workload in compare::workloads(file.results) {
                notes.extend(lacking(file.results, workload, datapath).map(|text| format!("{label}{text}")));
            }
            if let Some(facts) = samples().find_map(|sample| sample.datapath_facts.as_deref()) {
                notes.push(format!("{label}{datapath}: {facts}."));
            }
            for sample in samples().filter(|sample| sample.boots > 1) {
                notes.push(format!(
                    "{label}{datapath}, round {}: the guests did not reach each other at first and were booted anew.",
                    sample.round
                ));
            }
        }
    }
    notes
}

/// Why a workload's main metric is not told.
fn lacking(results: &Results, workload: Workload, datapath: &str) -> Option<String> {
    let metric = metrics::main_metric(workload);
    let rounds = compare::lacking(results, workload, datapath, &metric);
    (rounds > 0).then(|| {
        format!(
            "**{datapath}, {}: no {}, since it is among the lost answers in {rounds} of {} rounds.**",
            workload.text(),
            metric.name,
            compare::runs(results, workload, datapath).count()
        )
    })
}

/// A warning where metrics would be compared that differ from run to run by more than what is compared.
fn too_few_rounds(files: &[Labelled]) -> Option<String> {
    let rounds = |results: &Results| {
        let workloads = compare::workloads(results).into_iter();
        workloads.map(|workload| compare::rounds(results, workload)).min()
    };
    let compared = files.len() > 1 || files.iter().any(|file| file.results.datapaths().len() > 1);
    let rounds = files.iter().filter_map(|file| rounds(file.results)).min()?;
    let enough = compare::ENOUGH_ROUNDS;
    (compared && rounds < enough).then(|| {
        let rounds = if rounds == 1 {
            "One round is".into()
        } else {
            format!("{rounds} rounds are")
        };
        format!(
            "**{rounds} too few for a ratio: identical runs differ by a fifth or more. Measure at least {enough}, \
             better 8 (--repeat).**"
        )
    })
}

fn title(workload: Workload) -> Cow<'static, str> {
    Cow::Borrowed(match workload {
        Workload::Throughput => "Throughput",
        Workload::Latency => "Latency",
        Workload::LoadedLatency => "Latency under load",
        Workload::Connections => "Connections",
        Workload::Packets(traffic) => return Cow::Owned(format!("Packets, {}", traffic.text())),
        Workload::Forwarding => "Forwarding",
        Workload::ForwardingLatency => "Round trips by a router",
        Workload::Density => "Density",
        Workload::Mixed => "Mixed",
    })
}

/// How to read all the tables.
const TABLES: &str = "Figures are the median over the rounds, with minimum and maximum in parentheses; what went wrong \
    is the sum. The ratio to linux-bridge is taken within each round, of at least \
    three. Where ports of tapbridge choose their hooks themselves, each measurement begins with ports that were just \
    attached. Costs are medians. Host CPU is of the whole \
    machine: the guests, the programs in them and everything else that ran; it is not told where CPUs were kept \
    awake. Frames are those that the guests' cards received; what offloads joined is one frame. A GB is 10⁹ bytes \
    of payload.";

/// How to read the first table.
const HOST_CPU: &str = "The time of the guests' VMMs in the kernel, all of the datapath's own processes (a switch in user \
    space, `tapbridge run`), and softirqs that are in no process's time: what carrying frames cost the host. Less \
    is better. Frames are those that the guests' cards received. With namespaces as guests, the VMMs' time has the guests' \
    network stacks in it.";

/// How to read the tables of parts.
const PROFILE: &str = "What the CPUs did in the kernel, by samples: seconds and their share, medians over the rounds. The \
    path is from a frame's entry into the host's stack, or the XDP program's start, to the receiver's ring, and frames that \
    find no room there have taken it too. Before it is the write side (buffers, the copy from the VMM), behind it the read \
    side (the copy to the VMM): frames that XDP carries need no socket buffer there. Wake-ups and the ways into system calls \
    and out of them are those of the VMMs. Guests are, for namespaces, their network stacks, cards and sockets. Other has \
    interrupts and the lab's own counting. Other processes are no part of the \
    shares.";

/// What the main metric is, and whether it should be large.
fn explained(workload: Workload) -> &'static str {
    match workload {
        Workload::Throughput => "Payload that the receiver got: more is better.",
        Workload::Latency => "Half a round trip of a message: less is better.",
        Workload::LoadedLatency => "Half a round trip of a message beside one TCP stream: less is better.",
        Workload::Connections => {
            "TCP connections with one request and its answer each: more per second is better."
        }
        Workload::Packets(_) => {
            "Frames of guests that generate them that arrived at others: more is better. Fairness is Jain's index of the pairs."
        }
        Workload::Forwarding => {
            "Frames of 64 B that a guest has routed and that arrived: more is better. Frames that cards received are counted twice, \
             at the router and behind it."
        }
        Workload::ForwardingLatency => "A request and its answer, each routed by a guest: less is better.",
        Workload::Density => {
            "Pairs of requests and answers at a fixed rate each until the 99th percentile is twice that of one pair over \
             linux-bridge, or else the first datapath, in the same round: more is better. Costs are of all the numbers of pairs that were tried."
        }
        Workload::Mixed => {
            "Requests and answers of one pair while another has a TCP stream and a fifth guest sends broadcasts: less is \
             better. Costs are with those of the time before, when the pair was alone."
        }
    }
}

fn frames(results: &Results) -> String {
    let mut text = String::new();
    for datapath in results.datapaths() {
        let Some(paths) = tables::paths(results, datapath) else {
            continue;
        };
        let _ = write!(text, "\n### {datapath}\n\n{}\n", paths.markdown());
        let left = tables::left(results, datapath);
        if left.is_empty() {
            text += "No frame was left to the bridge.\n";
        } else {
            let _ = write!(text, "Left to the bridge:\n\n{}", left.markdown());
        }
        let changes = tables::hook_changes(results, datapath);
        if !changes.is_empty() {
            let _ = write!(text, "\nPorts changed by themselves:\n\n{}", changes.markdown());
        }
        let refused = counts::pump_drops(results, datapath);
        if refused > 0 {
            let _ = write!(
                text,
                "\nThe guests' frame pumps found no room for {refused} frames.\n"
            );
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n## Where the frames went\n\nPast the bridge, as tapbridge counted them, all rounds together.\n{text}"
    )
}

fn details(results: &Results) -> String {
    let mut text = String::from(
        "\n## Run by run\n\nThe median round of each, as iperf3 (-J), sockperf and wrk printed it, and system calls as bpftrace would.\n",
    );
    for datapath in results.datapaths() {
        for workload in compare::workloads(results) {
            let Some((round, run)) = compare::median_run(results, workload, datapath) else {
                continue;
            };
            let rounds = compare::runs(results, workload, datapath).count();
            let _ = write!(
                text,
                "\n### {datapath}, {}: round {round} of {rounds}\n\n{}",
                workload.text(),
                block(&reference::outcome(run))
            );
            text += &functions(run);
            for (name, role) in [("client", &run.client), ("server", &run.server)] {
                text += &calls(name, role, &results.machine.architecture, run.seconds);
            }
        }
    }
    text
}

/// Where a run's time went, function by function.
fn functions(run: &Run) -> String {
    let mut lines = String::new();
    for (part, functions) in run.profile.iter().flat_map(|profile| &profile.functions) {
        for function in functions {
            let _ = writeln!(
                lines,
                "{:>7.3} s  {:<12}  {}",
                function.seconds,
                part.text(),
                function.name
            );
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\nFunctions of the kernel, without what they called:\n\n{}",
        block(&lines)
    )
}

fn calls(name: &str, role: &Role, architecture: &str, seconds: f64) -> String {
    match reference::bpftrace(role, architecture) {
        Some(calls) => format!(
            "\nSystem calls of the {name}'s VMM (process {}) in {seconds:.1} s:\n\n{}",
            role.vmm,
            block(&calls)
        ),
        None => format!("\nThe system calls of the {name}'s VMM were not counted.\n"),
    }
}

fn block(text: &str) -> String {
    format!("```text\n{text}```\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn three_rounds() -> Results {
        fixture::results(vec![
            fixture::sample("tapbridge", 1, 12.0, 40.0),
            fixture::sample("linux-bridge", 1, 10.0, 50.0),
            fixture::sample("linux-bridge", 2, 5.0, 100.0),
            fixture::sample("tapbridge", 2, 6.0, 80.0),
            fixture::sample("tapbridge", 3, 9.0, 60.0),
            fixture::sample("linux-bridge", 3, 7.5, 75.0),
        ])
    }

    #[test]
    fn a_page_has_figures_costs_frames_and_every_call() {
        let plot = Plot {
            name: "throughput".into(),
            title: "A plot".into(),
            svg: String::new(),
        };
        let page = page(&label::label(&[three_rounds()]), &[plot]);
        for line in [
            "| machine | EPYC, 4 CPUs, x86_64, Linux 6.12.1; load before: 0.25 |",
            "| guests | QEMU 10.0.2 with KVM, Linux 6.1.0 |",
            "| tapbridge | 9.00 (6.00–12.00) | 1.20 | 6 |",
            "| linux-bridge | 7.50 (5.00–10.00) | 1.00 | 6 |",
            "| tapbridge | 60.0 (40.0–80.0) | 0.80 | 66.0 | 120.0 | 180.0 | 600.0 | 3 | 0 | 0 |",
            "| throughput | vm1 → vm2 | xdp | 900 | 75.0 % |",
            "| throughput | vm1 | source_refresh | 9 |",
            "| throughput | vm1 | tcx | 3 | 0.4 |",
            "### tapbridge, latency: round 3 of 3",
            "sum_received: {\"bits_per_second\":9}",
            "@total[qemu-system-x86, tracepoint:syscalls:sys_enter_read]: 600",
            "![A plot](throughput.svg)",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
        let read = page.find("sys_enter_read]: 200").unwrap();
        assert!(read < page.find("sys_enter_writev]: 400").unwrap());
    }

    #[test]
    fn without_the_peer_there_is_no_ratio_and_files_are_compared_by_their_medians() {
        let one = fixture::results(vec![fixture::sample("tapbridge", 1, 10.0, 40.0)]);
        let mut other = three_rounds();
        other.revision = Some("89abcde".into());
        other.conditions.mtu = 9000;
        let page = page(&label::label(&[one, other]), &[]);
        assert!(page.contains("differ in mtu (1500; 9000).**"), "{page}");
        for line in [
            "| datapath | run | Gbit/s | to linux-bridge | to 1234567 | retransmits |",
            "| tapbridge | 1234567 | 10.00 | – | too few rounds | 2 |",
            "| tapbridge | 89abcde | 9.00 (6.00–12.00) | 1.20 | too few rounds | 6 |",
            "| linux-bridge | 89abcde | 7.50 (5.00–10.00) | 1.00 | – | 6 |",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_reader_is_told_that_rounds_are_too_few_for_a_ratio_where_there_would_be_one() {
        let told = |files: &[Results]| {
            let notes = notes(&label::label(files)).into_iter();
            notes
                .filter(|note| note.contains("too few for a ratio"))
                .collect::<Vec<_>>()
        };
        let mut results = three_rounds();
        assert_eq!(told(&[results.clone()]), [""; 0]);
        results.samples.retain(|sample| sample.round < 3);
        assert!(told(&[results.clone()])[0].starts_with("**2 rounds are too few for a ratio: "));
        results.samples.retain(|sample| sample.round == 1);
        let page = page(&label::label(&[results.clone()]), &[]);
        assert!(
            page.contains("| tapbridge | 12.00 | too few rounds | 2 |"),
            "{page}"
        );
        assert!(page.contains("**One round is too few for a ratio: "), "{page}");
        // With nothing to compare with there is no need.
        results.samples.retain(|sample| sample.datapath == "tapbridge");
        assert_eq!(told(&[results.clone()]), [""; 0]);
        assert_eq!(told(&[results.clone(), results]).len(), 1);
    }
}
