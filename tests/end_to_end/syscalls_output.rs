//! What `tapbridge syscalls` prints, and what it refuses.

use std::{collections::BTreeSet, fs, io, os::fd::AsRawFd as _, path::Path};

use serde_json::json;
use tapbridge::{common::syscalls::MAX_COUNTS, syscalls::Call};

use crate::support::{
    caller::{Caller, Plan},
    counting::{Counting, READ, WRITEV, counted, document, named, syscalls, unique_name},
    program::run,
    trace::tracefs,
};

crate::tests![
    a_process_that_calls_nothing_is_named_all_the_same,
    the_table_shows_the_most_frequent_call_first,
    bpftrace_lines_are_as_bpftrace_prints_them,
    calls_that_find_no_room_are_told_in_every_output,
    a_process_that_there_is_not_is_refused_before_anything_starts,
    wrong_usage_ends_with_two,
];

/// Those that need tracefs.
pub const TRACING_TESTS: &[crate::Test] = &[(
    "every_call_that_the_kernel_has_is_named_as_its_tracepoint",
    every_call_that_the_kernel_has_is_named_as_its_tracepoint,
)];

/// Those that need a kernel which takes calls of 32-bit programs.
pub const COMPAT_TESTS: &[crate::Test] = &[(
    "calls_of_32_bit_programs_are_counted_apart",
    calls_of_32_bit_programs_are_counted_apart,
)];

fn a_process_that_calls_nothing_is_named_all_the_same() {
    let name = unique_name();
    let caller = Caller::start(&named(&name, &[]));
    let words = format!("--pid {} --time 0.1", caller.pid());
    let (document, _) = document(&Counting::start(&format!("{words} -j")).output());
    assert_eq!(document, counted(&[(caller.pid(), &name, json!({}))]));
    let table = Counting::start(&words).output();
    let expected = format!("{name} ({}): 0 system calls in ", caller.pid());
    assert!(
        table.starts_with(&expected) && table.lines().count() == 1,
        "{table}"
    );
}

fn the_table_shows_the_most_frequent_call_first() {
    let name = unique_name();
    let mut caller = Caller::start(&named(&name, &[(READ, 20), (WRITEV, 500), (4999, 3)]));
    let counting = Counting::start(&format!("--pid {}", caller.pid()));
    caller.release();
    let table = counting.output();
    let mut lines = table.lines();
    let head = lines.next().expect("a line");
    let expected = format!("{name} ({}): 524 system calls in ", caller.pid());
    assert!(head.starts_with(&expected), "{table}");
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    let expected = [
        ["CALL", "COUNT"],
        ["writev", "500"],
        ["read", "20"],
        ["4999", "3"],
        ["exit_group", "1"],
    ];
    assert_eq!(rows, expected, "{table}");
}

fn bpftrace_lines_are_as_bpftrace_prints_them() {
    let name = unique_name();
    let calls = [(WRITEV, 500), (READ, 20), (libc::SYS_uname, 7), (4999, 3)];
    let mut callers = [(); 2].map(|()| Caller::start(&named(&name, &calls)));
    let counting = Counting::start(&format!("--comm {name} --bpftrace"));
    for caller in &mut callers {
        caller.release();
        assert!(caller.ends_well());
    }
    let line =
        |call: &str, count: u32| format!("@total[{name}, tracepoint:syscalls:sys_enter_{call}]: {count}\n");
    let expected = [
        line("exit_group", 2),
        line("newuname", 14),
        line("read", 40),
        line("writev", 1000),
        "@without_tracepoint: 6\n".into(),
    ];
    assert_eq!(counting.interrupt(), expected.concat());
}

fn calls_that_find_no_room_are_told_in_every_output() {
    const TOO_MANY: u32 = 1000;
    let plan = Plan {
        different: MAX_COUNTS + TOO_MANY,
        ..Plan::default()
    };
    let output = |option: &str| {
        let mut caller = Caller::start(&plan);
        let counting = Counting::start(&format!("--pid {} {option}", caller.pid()));
        caller.release();
        counting.output()
    };
    // The last one is that to end.
    let uncounted = TOO_MANY + 1;
    let (document, _) = document(&output("-j"));
    assert_eq!(document["uncounted"], uncounted);
    let calls = document["processes"][0]["calls"].as_object().expect("calls");
    assert_eq!(calls.len(), MAX_COUNTS as usize);
    assert!(output("").contains(&format!("\nnot counted: {uncounted} more")));
    assert!(output("--bpftrace").ends_with(&format!("\n@uncounted: {uncounted}\n")));
}

fn a_process_that_there_is_not_is_refused_before_anything_starts() {
    let caller = Caller::start(&Plan {
        others: 1,
        ..Plan::default()
    });
    let pid = caller.pid();
    // Beyond the largest that there can be (PID_MAX_LIMIT).
    let nobody = 4_194_305;
    let complaint = run(syscalls(&format!("--pid {pid} {nobody}"))).failure(1);
    let expected = format!("tapbridge: process {nobody}: there is none in this namespace of process ids");
    assert!(complaint.starts_with(&expected), "{complaint}");

    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let threads = threads.map(|thread| thread.expect("a thread").file_name());
    let thread = threads
        .filter_map(|thread| thread.to_str()?.parse::<u32>().ok())
        .find(|&thread| thread != pid)
        .expect("another thread");
    let complaint = run(syscalls(&format!("--pid {thread}"))).failure(1);
    let expected = format!("tapbridge: process {thread}: is a thread of process {pid}");
    assert!(complaint.starts_with(&expected), "{complaint}");
}

fn wrong_usage_ends_with_two() {
    for words in [
        "",
        "--time 1",
        "--pid",
        "--comm",
        "--pid 0",
        "--pid -1",
        "--pid 2147483648",
        "--pid qemu",
        "--pid 1 --comm init",
        "--pid 1 --time 0",
        "--pid 1 --time -1",
        "--pid 1 --time 1e-12",
        "--pid 1 --time 1e300",
        "--pid 1 --time nan",
        "--pid 1 --time inf",
        "--pid 1 --time soon",
        "--pid 1 --bpftrace -j",
    ] {
        let complaint = run(syscalls(words)).failure(2);
        assert!(complaint.contains("--help"), "{words}: {complaint}");
    }
    let mut nameless = syscalls("--comm");
    nameless.arg("");
    assert!(run(nameless).failure(2).contains("--help"));
}

fn every_call_that_the_kernel_has_is_named_as_its_tracepoint() {
    let tracefs = tracefs();
    let root = format!("/proc/self/fd/{}", tracefs.as_raw_fd());
    let events = fs::read_dir(Path::new(&root).join("events/syscalls")).expect("the kernel's tracepoints");
    let mut kernel: BTreeSet<String> = events
        .map(|event| event.expect("an event").file_name().into_string().expect("ASCII"))
        .collect();
    let mut found = 0;
    for number in 0..1024 {
        let call = Call {
            number,
            compat: false,
        };
        let Some(tracepoint) = call.tracepoint() else {
            continue;
        };
        // Each is the tracepoint of one call.
        if kernel.remove(&tracepoint) {
            found += 1;
            continue;
        }
        // SAFETY: no descriptor, address or length is -1: whatever the call is, the kernel refuses it.
        unsafe { libc::syscall(number.into(), -1, -1, -1, -1, -1, -1) };
        let error = io::Error::last_os_error();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::ENOSYS),
            "{call} has no tracepoint {tracepoint}"
        );
    }
    assert!(found > 250, "{found}");
}

fn calls_of_32_bit_programs_are_counted_apart() {
    let name = unique_name();
    let plan = Plan {
        compat_getpid: 12,
        ..named(&name, &[(libc::SYS_getpid, 5), (WRITEV, 3)])
    };
    let output = |option: &str| {
        let mut caller = Caller::start(&plan);
        let counting = Counting::start(&format!("--pid {} {option}", caller.pid()));
        caller.release();
        (caller.pid(), counting.output())
    };
    let (pid, text) = output("-j");
    // 20 is writev to the others.
    let calls = json!({ "compat:getpid": 12, "getpid": 5, "writev": 3, "exit_group": 1 });
    assert_eq!(document(&text).0, counted(&[(pid, &name, calls)]));
    let (_, text) = output("--bpftrace");
    assert!(
        text.contains("sys_enter_writev]: 3\n") && text.ends_with("\n@without_tracepoint: 12\n"),
        "{text}"
    );
}
