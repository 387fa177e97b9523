//! Results by hand, for tests.

use crate::{
    host::machine::Machine,
    results::{
        Conditions, Cpu, FunctionTime, Helper, HookChange, HostCpu, LeftCount, Part, PathCount, Profile,
        Results, Role, Run, SCHEMA, Sample, Stats,
    },
    testbed::{
        device::NicCounters,
        guest::{Accelerator, Facts, Kind},
    },
    workload::{
        Outcome,
        kind::WorkloadKind,
        latency::Latency,
        measuring::Measuring,
        throughput::{Protocol, Stream, Throughput},
    },
};

/// With round numbers for what a measurement cost.
fn run(outcome: Outcome, calls: &[(&str, u64)]) -> Run {
    let role = |guest: &str, calls: &[(&str, u64)]| Role {
        guest: guest.into(),
        vmm: 42,
        comm: "qemu-system-x86".into(),
        syscalls: Some(calls.iter().map(|&(name, count)| (name.into(), count)).collect()),
        cpu: Cpu {
            user_s: 1.0,
            system_s: 2.0,
        },
        card: NicCounters {
            rx_frames: 1_000_000,
            ..NicCounters::default()
        },
    };
    Run {
        outcome,
        seconds: 10.5,
        client: role("guest1", calls),
        server: role("guest2", &[("read", 600)]),
        others: Vec::new(),
        host: Some(HostCpu {
            user_s: 3.0,
            system_s: 2.0,
            irq_s: 0.5,
            softirq_s: 0.5,
            ..HostCpu::default()
        }),
        softirqs_s: Some(0.5),
        datapath: Vec::new(),
        stats: None,
        hook_changes: Vec::new(),
        profile: None,
    }
}

/// A process of the datapath's own.
pub fn helper() -> Helper {
    Helper {
        process: 43,
        comm: "ovs-vswitchd".into(),
        cpu: Cpu {
            user_s: 1.0,
            system_s: 1.0,
        },
    }
}

/// Of a path that took so long, and twice as long to write and three times to read.
pub fn profile(path_s: f64) -> Profile {
    let seconds = [
        (Part::Path, path_s),
        (Part::Write, 2.0 * path_s),
        (Part::Read, 3.0 * path_s),
    ];
    let function = FunctionTime {
        name: "br_forward".into(),
        seconds: path_s / 2.0,
    };
    Profile {
        frequency_hz: 1000,
        samples: 600,
        lost: 0,
        seconds: seconds.into(),
        functions: [(Part::Path, vec![function])].into(),
    }
}

/// Two streams for ten seconds.
pub fn throughput(gbit_per_s: f64, calls: &[(&str, u64)]) -> Run {
    run(Outcome::Throughput(streams(gbit_per_s)), calls)
}

fn streams(gbit_per_s: f64) -> Throughput {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^52"
    )]
    let bytes = (gbit_per_s / 2.0 * 1e9 / 8.0 * 10.0) as u64;
    let stream = |id| Stream {
        id,
        seconds: 10.0,
        sent_bytes: bytes,
        received_bytes: bytes,
        sent_gbit_per_s: gbit_per_s / 2.0,
        gbit_per_s: gbit_per_s / 2.0,
        retransmits: Some(1),
    };
    Throughput {
        protocol: Protocol::Tcp,
        reverse: false,
        gbit_per_s,
        bytes: 2 * bytes,
        retransmits: Some(2),
        datagrams: None,
        streams: [5, 7].map(stream).into(),
        output: Some(format!("sum_received: {{\"bits_per_second\":{gbit_per_s}}}\n")),
    }
}

/// A thousand messages.
pub fn latency(p50_us: f64) -> Run {
    run(Outcome::Latency(messages(p50_us)), &[("ppoll", 2000)])
}

/// A thousand messages while streams of TCP go.
pub fn loaded_latency(p50_us: f64) -> Run {
    let outcome = Outcome::LoadedLatency {
        latency: messages(p50_us),
        load: streams(1.0),
    };
    run(outcome, &[("ppoll", 2000)])
}

fn messages(p50_us: f64) -> Latency {
    Latency {
        average_us: 1.1 * p50_us,
        deviation_us: 5.0,
        min_us: p50_us / 2.0,
        percentiles_us: vec![(50.0, p50_us), (99.0, 2.0 * p50_us), (99.9, 3.0 * p50_us)],
        max_us: 10.0 * p50_us,
        observations: 900,
        seconds: 9.5,
        messages: 1000,
        dropped: 1,
        duplicated: 0,
        out_of_order: 0,
        output: Some(format!("sockperf: Summary: Latency is {p50_us} usec\n")),
    }
}

pub fn hook_change(port: &str, hooks: &[&str], seconds: f64) -> HookChange {
    HookChange {
        ifname: port.into(),
        hooks: hooks.iter().map(|&hook| hook.into()).collect(),
        seconds,
    }
}

/// A sample of both.
pub fn sample(datapath: &str, round: u32, gbit_per_s: f64, p50_us: f64) -> Sample {
    let mut throughput = throughput(gbit_per_s, &[("read", 200), ("writev", 400)]);
    if datapath == "tapbridge" {
        throughput.stats = Some(stats());
        throughput.hook_changes = vec![hook_change("vm1", &["tcx"], 0.4)];
    }
    Sample {
        datapath: datapath.into(),
        datapath_facts: None,
        round,
        boots: 1,
        boot_s: vec![0.5; 2],
        runs: vec![throughput, latency(p50_us)],
        pumps: None,
    }
}

fn stats() -> Stats {
    let path = |via: &str, frames| PathCount {
        from: "vm1".into(),
        to: "vm2".into(),
        via: via.into(),
        frames,
        bytes: 64 * frames,
    };
    Stats {
        before: serde_json::Value::Null,
        after: serde_json::Value::Null,
        paths: vec![path("xdp", 300), path("tcx", 100)],
        left: vec![LeftCount {
            port: "vm1".into(),
            reason: "source_refresh".into(),
            frames: 3,
        }],
    }
}

/// Of some samples, from one machine under its usual conditions.
pub fn results(samples: Vec<Sample>) -> Results {
    Results {
        schema: SCHEMA,
        started: "2026-11-23T10:00:00Z".into(),
        revision: Some("1234567".into()),
        machine: Machine {
            kernel: "6.12.1".into(),
            architecture: "x86_64".into(),
            cpu_model: Some("EPYC".into()),
            cpus: 4,
            virtualised: false,
            spectre_v2: None,
            load: Some(0.25),
            tapbridge: Some("tapbridge 0.1.0".into()),
        },
        guests: Facts {
            kind: Kind::Qemu,
            vmm: Some("QEMU 10.0.2".into()),
            accelerator: Some(Accelerator::Kvm),
            vhost: false,
            kernel: Some("6.1.0".into()),
            iperf3: "iperf 3.12".into(),
            sockperf: "sockperf 3.7".into(),
        },
        conditions: Conditions {
            mtu: 1500,
            offloads: true,
            steady: false,
            measuring: Measuring {
                workload: vec![WorkloadKind::Throughput, WorkloadKind::Latency],
                time_s: 10,
                repeat: 2,
                streams: 2,
                reverse: false,
                udp: false,
                udp_rate: "1G".into(),
                udp_size: 1448,
                message_bytes: 64,
                parallel: 8,
                size: Vec::new(),
                pairs: Vec::new(),
                rate: None,
                most_pairs: 48,
                no_syscalls: false,
                no_profile: false,
            },
        },
        samples,
    }
}
