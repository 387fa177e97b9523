//! Whose calls `tapbridge syscalls` counts, and when it ends. All processes here make exactly known calls.

use std::{env, fs, path::Path, process::Command};

use aya::programs::loaded_programs;
use serde_json::json;

use crate::support::{
    caller::{Caller, Plan, itself},
    counting::{Counting, LIMIT, READ, WRITEV, counted, document, named, syscalls, unique_name},
    program::{happens, run},
};

crate::tests![
    every_call_is_counted_once_whichever_thread_and_cpu_it_comes_from,
    a_call_that_two_cpus_make_for_the_first_time_at_once_is_counted_twice,
    threads_that_start_later_count_too,
    threads_with_names_of_their_own_count_as_their_process,
    processes_that_start_later_are_counted_by_their_name,
    of_a_long_name_only_what_the_kernel_keeps_is_compared,
    it_ends_with_the_last_of_several_processes,
    ctrl_c_and_sigterm_end_it_with_all_that_was_counted,
    it_ends_when_its_time_is_up,
    nothing_is_left_behind,
    in_a_container_its_own_ids_count,
    processes_in_containers_count_by_the_ids_that_they_have_outside,
];

fn every_call_is_counted_once_whichever_thread_and_cpu_it_comes_from() {
    for others in [0, 7] {
        let name = unique_name();
        let plan = Plan {
            others,
            ..named(&name, &[(WRITEV, 20_000), (READ, 3000)])
        };
        let mut stranger = Caller::start(&plan);
        let mut caller = Caller::start(&plan);
        let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
        stranger.release();
        caller.release();
        let (document, seconds) = document(&counting.output());
        let threads = 1 + others;
        let calls = json!({ "writev": threads * 20_000, "read": threads * 3000, "exit_group": 1 });
        assert_eq!(document, counted(&[(caller.pid(), &name, calls)]));
        assert!(seconds > 0.0 && seconds < LIMIT.as_secs_f64(), "{seconds}");
        assert!(stranger.ends_well() && caller.ends_well());
    }
}

fn a_call_that_two_cpus_make_for_the_first_time_at_once_is_counted_twice() {
    const DIFFERENT: u32 = 8000;
    let plan = Plan {
        others: 1,
        different: DIFFERENT,
        ..Plan::default()
    };
    let mut caller = Caller::start(&plan);
    let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
    caller.release();
    let (document, _) = document(&counting.output());
    let calls = document["processes"][0]["calls"].as_object().expect("calls");
    let total: u64 = calls.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(document["uncounted"], 0);
    assert_eq!(total, u64::from(2 * DIFFERENT + 1));
}

fn threads_that_start_later_count_too() {
    let plan = Plan {
        others: 5,
        late: true,
        ..named(&unique_name(), &[(WRITEV, 1000)])
    };
    let mut caller = Caller::start(&plan);
    let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
    caller.release();
    let (document, _) = document(&counting.output());
    assert_eq!(document["processes"][0]["calls"]["writev"], 6000, "{document}");
}

fn threads_with_names_of_their_own_count_as_their_process() {
    let name = unique_name();
    let plan = Plan {
        others: 2,
        thread_name: Some("CPU 0/KVM".into()),
        stays: true,
        ..named(&name, &[(WRITEV, 1000)])
    };
    let mut caller = Caller::start(&plan);
    let counting = Counting::start(&format!("--comm {name} -j"));
    caller.release();
    caller.wait_until_done();
    let (document, _) = document(&counting.interrupt());
    // The last read is that in which it stays.
    let calls = json!({ "writev": 3000, "read": 1 });
    assert_eq!(document, counted(&[(caller.pid(), &name, calls)]));
}

fn processes_that_start_later_are_counted_by_their_name() {
    let [name, other_name, strange_name] = [unique_name(), unique_name(), unique_name()];
    let counting = Counting::start(&format!("--comm {name} {other_name} -j"));
    assert_eq!(
        counting.said,
        [format!(
            "no process is called {name} or {other_name} yet; waiting for one"
        )]
    );
    let [mut first, mut second, mut other, mut stranger] =
        [&name, &name, &other_name, &strange_name].map(|name| Caller::start(&named(name, &[(WRITEV, 500)])));
    let mut callers = [&mut first, &mut second, &mut other, &mut stranger];
    for caller in &mut callers {
        caller.release();
        assert!(caller.ends_well());
    }
    let (document, _) = document(&counting.interrupt());
    let processes = document["processes"].as_array().expect("processes");
    let mut expected = [(&first, &name), (&second, &name), (&other, &other_name)];
    expected.sort_by_key(|(caller, _)| caller.pid());
    assert_eq!(processes.len(), expected.len(), "{document}");
    for (process, (caller, name)) in processes.iter().zip(expected) {
        assert_eq!(
            (&process["pid"], &process["comm"], &process["calls"]["writev"]),
            (&caller.pid().into(), &json!(name), &500.into()),
            "{document}"
        );
    }
}

fn of_a_long_name_only_what_the_kernel_keeps_is_compared() {
    let name = format!("{:-<15}", unique_name());
    let mut caller = Caller::start(&named(&name, &[(WRITEV, 10)]));
    let counting = Counting::start(&format!("--comm {name}_and_more -j"));
    assert_eq!(counting.said, [""; 0]);
    caller.release();
    assert!(caller.ends_well());
    let (document, _) = document(&counting.interrupt());
    let calls = json!({ "writev": 10, "exit_group": 1 });
    assert_eq!(document, counted(&[(caller.pid(), &name, calls)]));
}

fn it_ends_with_the_last_of_several_processes() {
    let names = [unique_name(), unique_name()];
    let mut callers = names
        .each_ref()
        .map(|name| Caller::start(&named(name, &[(WRITEV, 10)])));
    let [first, second] = callers.each_ref().map(Caller::pid);
    let counting = Counting::start(&format!("--pid {first} {second} --pid {first} -j"));
    for caller in callers.iter_mut().rev() {
        caller.release();
        assert!(caller.ends_well());
    }
    let (document, _) = document(&counting.output());
    let calls = || json!({ "writev": 10, "exit_group": 1 });
    let mut expected = [(first, &*names[0], calls()), (second, &*names[1], calls())];
    expected.sort_by_key(|(pid, ..)| *pid);
    assert_eq!(document, counted(&expected));
}

fn ctrl_c_and_sigterm_end_it_with_all_that_was_counted() {
    for signal in ["INT", "TERM"] {
        let name = unique_name();
        let mut caller = Caller::start(&Plan {
            stays: true,
            ..named(&name, &[(WRITEV, 10)])
        });
        let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
        caller.release();
        caller.wait_until_done();
        counting.signal(signal);
        let (document, _) = document(&counting.output());
        let calls = json!({ "writev": 10, "read": 1 });
        assert_eq!(document, counted(&[(caller.pid(), &name, calls)]), "{signal}");
    }
    // Whoever reads that it counts may end it at once.
    let counting = Counting::start("--comm nobody -j");
    assert_eq!(document(&counting.interrupt()).0, counted(&[]));
}

fn it_ends_when_its_time_is_up() {
    let caller = Caller::start(&Plan::default());
    let counting = Counting::start(&format!("--pid {} --time 0.75 -j", caller.pid()));
    let (_, seconds) = document(&counting.output());
    assert!((0.75..LIMIT.as_secs_f64()).contains(&seconds), "{seconds}");
}

fn nothing_is_left_behind() {
    let caller = Caller::start(&Plan::default());
    for signal in ["INT", "KILL"] {
        let mut counting = Counting::start(&format!("--pid {}", caller.pid()));
        let program = program_of(counting.pid()).expect("its program");
        assert!(is_loaded(program));
        counting.signal(signal);
        counting.wait();
        let gone = happens(LIMIT, || !is_loaded(program));
        assert!(gone, "program {program} after {signal}");
    }
    assert!(!Path::new("/nonexistent").exists());
}

/// In the environment of this test binary, where it is to be what runs in a container.
const IN_CONTAINER: &str = "TAPBRIDGE_TEST_IN_CONTAINER";

fn in_a_container_its_own_ids_count() {
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    container.arg(itself()).env(IN_CONTAINER, "");
    run(container).success();
}

/// In a process that was started as a container's, does its part, and never returns.
pub fn contain_if_told_to() {
    if env::var_os(IN_CONTAINER).is_none() {
        return;
    }
    let name = unique_name();
    let calls = json!({ "writev": 10, "exit_group": 1 });
    for by_name in [false, true] {
        let mut caller = Caller::start(&named(&name, &[(WRITEV, 10)]));
        let pid = caller.pid();
        assert!(pid < 1000, "{pid} is an id in a new namespace");
        let counting = if by_name {
            Counting::start(&format!("--comm {name} -j"))
        } else {
            Counting::start(&format!("--pid {pid} -j"))
        };
        caller.release();
        assert!(caller.ends_well());
        let output = if by_name {
            counting.interrupt()
        } else {
            counting.output()
        };
        assert_eq!(document(&output).0, counted(&[(pid, &name, calls.clone())]));
    }
    let inside = Caller::start_in_container(&Plan::default());
    let complaint = run(syscalls(&format!("--pid {}", inside.pid()))).failure(1);
    let expected = format!(
        "process {}: lives in another namespace of process ids",
        inside.pid()
    );
    assert!(complaint.contains(&expected), "{complaint}");
    drop(inside);
    std::process::exit(0)
}

fn processes_in_containers_count_by_the_ids_that_they_have_outside() {
    let name = unique_name();
    let mut caller = Caller::start_in_container(&named(&name, &[(WRITEV, 10)]));
    let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
    caller.release();
    let (document, _) = document(&counting.output());
    let calls = json!({ "writev": 10, "exit_group": 1 });
    assert_eq!(document, counted(&[(caller.pid(), &name, calls)]));
}

/// The id of a program that a process holds.
fn program_of(pid: u32) -> Option<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    descriptors.flatten().find_map(|descriptor| {
        let info = fs::read_to_string(descriptor.path()).ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
        id.trim().parse().ok()
    })
}

fn is_loaded(program: u32) -> bool {
    loaded_programs().flatten().any(|info| info.id() == program)
}
