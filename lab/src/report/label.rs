//! What several results are called beside each other, and in what they differ.

use clap::ValueEnum;
use serde_json::Value;

use super::table::NOTHING;
use crate::{
    results::{Conditions, Results},
    testbed::guest::Kind,
    workload::kind::WorkloadKind,
};

/// Results with a short name that no others of the report have.
pub struct Labelled<'results> {
    pub label: String,
    pub results: &'results Results,
}

/// Conditions that do not change what a metric means: how often and what was measured. Each size of frames and number of
/// pairs is a workload of its own.
const HARMLESS: [&str; 6] = ["repeat", "workload", "no_syscalls", "no_profile", "size", "pairs"];

/// What may tell one from another, the most telling first.
const TRAITS: [fn(&Results) -> String; 4] = [
    |results| results.revision.clone().unwrap_or_else(|| NOTHING.into()),
    guests,
    |results| {
        let cpu = results.machine.cpu_model.as_deref().unwrap_or("unknown CPU");
        format!("{cpu}, Linux {}", results.machine.kernel)
    },
    |results| results.started.clone(),
];

/// Names them by as few of their traits as tell them apart, and by numbers where none does.
pub fn label(results: &[Results]) -> Vec<Labelled<'_>> {
    let mut labels = vec![String::new(); results.len()];
    for trait_of in TRAITS {
        if distinct(&labels) {
            break;
        }
        let traits: Vec<_> = results.iter().map(trait_of).collect();
        if traits.iter().all(|other| *other == traits[0]) {
            continue;
        }
        for (label, own) in labels.iter_mut().zip(traits) {
            if !label.is_empty() {
                label.push_str(", ");
            }
            label.push_str(&own);
        }
    }
    if !distinct(&labels) {
        for (number, label) in labels.iter_mut().enumerate() {
            let space = if label.is_empty() { "" } else { " " };
            *label = format!("{label}{space}#{}", number + 1);
        }
    }
    let named = labels.into_iter().zip(results);
    named
        .map(|(label, results)| Labelled { label, results })
        .collect()
}

fn distinct(labels: &[String]) -> bool {
    let mut others = labels.iter().enumerate();
    others.all(|(index, label)| !labels[..index].contains(label))
}

fn guests(results: &Results) -> String {
    let facts = &results.guests;
    match (facts.kind, &facts.vmm, facts.accelerator) {
        (Kind::Qemu, Some(vmm), Some(accelerator)) => {
            let vhost = if facts.vhost { " vhost" } else { "" };
            format!("{vmm} {accelerator}{vhost}")
        }
        _ => "namespaces".into(),
    }
}

/// In what they differ that makes their metrics hard to compare, such as "mtu (1500; 9000)".
pub fn differences(files: &[Labelled]) -> Vec<String> {
    let results: Vec<_> = files.iter().map(|file| file.results).collect();
    let conditions: Vec<_> = results
        .iter()
        .map(|results| fields(&results.conditions))
        .collect();
    let Some(first) = conditions.first() else {
        return Vec::new();
    };
    let measured = |kind: &WorkloadKind| {
        let mut all = results.iter().map(|results| &results.conditions.measuring);
        all.all(|measuring| measuring.workload.contains(kind))
    };
    let compared = WorkloadKind::value_variants()
        .iter()
        .filter(|kind| measured(kind));
    let compared: Vec<_> = compared.collect();
    let names = first.keys().filter(|name| {
        !HARMLESS.contains(&name.as_str()) && compared.iter().any(|&&kind| kind.goes_by(name))
    });
    let mut differences: Vec<_> = names
        .filter_map(|name| {
            let values = conditions.iter().map(|conditions| text(conditions.get(name)));
            difference(name, &values.collect::<Vec<_>>())
        })
        .collect();
    let mut other = |name, of: fn(&Results) -> String| {
        differences.extend(difference(
            name,
            &results.iter().copied().map(of).collect::<Vec<_>>(),
        ));
    };
    other("guests", |results| results.guests.text());
    // The load of the minute before is not the machine.
    let told = results.iter().all(|results| results.machine.spectre_v2.is_some());
    other("machine", if told { hardware } else { without_guards });
    differences
}

fn hardware(results: &Results) -> String {
    results.machine.hardware()
}

fn without_guards(results: &Results) -> String {
    results.machine.without_guards()
}

fn fields(conditions: &Conditions) -> serde_json::Map<String, Value> {
    match serde_json::to_value(conditions) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a struct of numbers and words is an object"),
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => NOTHING.into(),
    }
}

fn difference(name: &str, values: &[String]) -> Option<String> {
    let same = values.iter().all(|value| *value == values[0]);
    (!same).then(|| format!("{name} ({})", values.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::fixture, station::task::Size};

    fn labels(results: &[Results]) -> Vec<String> {
        label(results).into_iter().map(|named| named.label).collect()
    }

    #[test]
    fn a_label_says_only_what_tells_one_from_the_others() {
        let one = fixture::results(Vec::new());
        let mut other = one.clone();
        other.started = "2026-11-24T10:00:00Z".into();
        assert_eq!(
            labels(&[one.clone(), other.clone()]),
            [one.started.clone(), other.started.clone()]
        );
        other.revision = Some("89abcde".into());
        assert_eq!(labels(&[one.clone(), other.clone()]), ["1234567", "89abcde"]);
        let mut third = other.clone();
        third.guests.vhost = true;
        assert_eq!(
            labels(&[one, other, third]),
            [
                "1234567, QEMU 10.0.2 KVM",
                "89abcde, QEMU 10.0.2 KVM",
                "89abcde, QEMU 10.0.2 KVM vhost"
            ]
        );
    }

    #[test]
    fn copies_are_numbered() {
        let one = fixture::results(Vec::new());
        assert_eq!(labels(&[one.clone(), one.clone()]), ["#1", "#2"]);
        assert_eq!(labels(&[one]), [""]);
    }

    #[test]
    fn conditions_of_workloads_that_not_all_have_and_what_older_results_do_not_tell_are_no_difference() {
        let old = fixture::results(Vec::new());
        let mut new = old.clone();
        let measuring = &mut new.conditions.measuring;
        measuring.workload = vec![WorkloadKind::Latency, WorkloadKind::Density];
        (measuring.most_pairs, measuring.streams, measuring.rate) = (96, 7, Some(5));
        measuring.size = vec![Size::Imix];
        new.machine.spectre_v2 = Some("Retpolines; IBPB".into());
        assert_eq!(differences(&label(&[old.clone(), new.clone()])), [""; 0]);
        let mut other = new.clone();
        other.conditions.measuring.most_pairs = 9;
        other.machine.spectre_v2 = Some("Enhanced IBRS".into());
        let differences = differences(&label(&[new, other]));
        assert_eq!(differences[0], "most_pairs (96; 9)");
        assert!(
            differences[1].starts_with("machine (EPYC (Retpolines)"),
            "{differences:?}"
        );
    }

    #[test]
    fn conditions_that_differ_are_named_and_harmless_ones_are_not() {
        let one = fixture::results(Vec::new());
        let mut other = one.clone();
        other.conditions.measuring.repeat = 9;
        other.machine.load = None;
        assert_eq!(differences(&label(&[one.clone(), other.clone()])), [""; 0]);
        other.conditions.mtu = 9000;
        other.conditions.measuring.time_s = 2;
        other.machine.cpus = 64;
        assert_eq!(
            differences(&label(&[one, other])),
            [
                "mtu (1500; 9000)",
                "time_s (10; 2)",
                "machine (EPYC, 4 CPUs, x86_64, Linux 6.12.1; EPYC, 64 CPUs, x86_64, Linux 6.12.1)"
            ]
        );
    }
}
