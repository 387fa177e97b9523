//! A process that makes exactly the system calls that it was told to, when it is told to.
//!
//! It is this test binary, started anew with its [`Plan`] in the environment.

use std::{
    env, fs, hint,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio, exit},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::program::{LIMIT, happens, wait};

const PLAN: &str = "TAPBRIDGE_TEST_CALLER";

/// Points of a plan at which threads wait to be released, by the bytes that they ask for then: so they can be told
/// apart in /proc/PID/syscall.
const BEFORE: usize = 1;
const AFTER: usize = 2;

/// What a caller does when it is released.
#[derive(Default, Serialize, Deserialize)]
pub struct Plan {
    /// Its name, if it is not to be that of the tests.
    pub name: Option<String>,
    /// How many threads it has, besides the first; they are on different CPUs.
    pub others: usize,
    /// Names of the other threads.
    pub thread_name: Option<String>,
    /// Whether the other threads start only then.
    pub late: bool,
    /// Numbers of calls, and how often each thread makes them, with arguments that the kernel refuses.
    pub calls: Vec<(i64, u32)>,
    /// How many calls each thread makes then whose numbers are nobody's, and all different; all threads make the same
    /// ones at the same time.
    pub different: u32,
    /// How often the first thread asks for its id as a 32-bit program does.
    pub compat_getpid: u32,
    /// Whether it then waits to be released once more, in a `read`.
    pub stays: bool,
}

impl Plan {
    /// The command that starts a caller.
    fn command(&self, mut command: Command) -> Command {
        let plan = serde_json::to_string(self).expect("a plan as JSON");
        command.env(PLAN, plan).stdin(Stdio::piped());
        command
    }
}

/// A running caller, killed when it is dropped.
pub struct Caller {
    /// The caller, or what holds its container.
    child: Child,
    pid: u32,
    threads: usize,
}

impl Caller {
    /// Starts a caller and waits until all its threads wait to be released.
    pub fn start(plan: &Plan) -> Self {
        let command = Command::new(itself());
        let child = plan.command(command).spawn().expect("start a caller");
        let threads = if plan.late { 1 } else { 1 + plan.others };
        let pid = child.id();
        wait_for_readers(pid, BEFORE, threads);
        Self { child, pid, threads }
    }

    /// Starts a caller of one thread in a namespace of process ids of its own.
    pub fn start_in_container(plan: &Plan) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(itself());
        let child = plan.command(command).spawn().expect("start a caller");
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let mut pid = None;
        happens(LIMIT, || {
            pid = fs::read_to_string(&children)
                .ok()
                .and_then(|children| children.trim().parse().ok());
            pid.is_some()
        });
        let pid = pid.expect("the caller's id");
        wait_for_readers(pid, BEFORE, 1);
        let threads = 1;
        Self { child, pid, threads }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it make its calls.
    pub fn release(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(&vec![0; self.threads]).expect("release a caller");
    }

    /// Waits until it stays after its calls.
    pub fn wait_until_done(&self) {
        wait_for_readers(self.pid, AFTER, 1);
    }

    /// Whether it ends well.
    pub fn ends_well(&mut self) -> bool {
        wait(&mut self.child, LIMIT).is_some_and(|status| status.success())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of this test binary.
pub fn itself() -> PathBuf {
    env::current_exe().expect("the tests' own path")
}

/// Waits until so many threads of a process wait to be released, at this point of their plan.
fn wait_for_readers(pid: u32, point: usize, threads: usize) {
    assert!(
        happens(LIMIT, || readers(pid, point) == threads),
        "{threads} threads of {pid} in read within {LIMIT:?}"
    );
}

fn readers(pid: u32, point: usize) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let [read, length] = [format!("{} 0x0 ", libc::SYS_read), format!("{point:#x}")];
    tasks
        .filter(|task| {
            let call = fs::read_to_string(task.path().join("syscall"));
            call.is_ok_and(|call| call.starts_with(&read) && call.split(' ').nth(3) == Some(&length))
        })
        .count()
}

/// In a process that was started as a caller, does what it was told to, and never returns.
pub fn play_if_told_to() {
    let Ok(plan) = env::var(PLAN) else { return };
    let plan: Plan = serde_json::from_str(&plan).expect("a plan");
    if let Some(name) = &plan.name {
        fs::write("/proc/self/comm", name).expect("set the name");
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let plan: &'static Plan = Box::leak(Box::new(plan));
    let start_others = || {
        for number in 1..=plan.others {
            let name = plan.thread_name.clone().unwrap_or_else(|| "other".into());
            let thread = thread::Builder::new().name(name);
            let work = move || {
                pin(number % cpus);
                if !plan.late {
                    wait_for_release(BEFORE);
                }
                make(plan);
                DONE.fetch_add(1, Ordering::Release);
                // Until the first thread ends the process.
                loop {
                    hint::spin_loop();
                }
            };
            thread.spawn(work).expect("start a thread");
        }
    };
    if plan.late {
        wait_for_release(BEFORE);
        start_others();
    } else {
        start_others();
        wait_for_release(BEFORE);
    }
    make(plan);
    for _ in 0..plan.compat_getpid {
        compat_getpid();
    }
    while DONE.load(Ordering::Acquire) < plan.others {
        hint::spin_loop();
    }
    if plan.stays {
        wait_for_release(AFTER);
    }
    // SAFETY: the call ends the process, and nothing else.
    unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    exit(1)
}

/// How often threads have come to a call that they make together.
static READY: AtomicUsize = AtomicUsize::new(0);
/// Other threads that have made their calls.
static DONE: AtomicUsize = AtomicUsize::new(0);

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU's number");
    // Where this CPU is not for us, any other will do.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

fn wait_for_release(point: usize) {
    let mut bytes = [0_u8; AFTER];
    // SAFETY: the kernel writes at most as many bytes as there is room for.
    unsafe { libc::syscall(libc::SYS_read, 0, bytes.as_mut_ptr(), point) };
}

/// Makes the calls of a plan, and no others.
fn make(plan: &Plan) {
    for &(number, count) in &plan.calls {
        for _ in 0..count {
            call(number);
        }
    }
    for (round, number) in (1..).zip(0..i64::from(plan.different)) {
        READY.fetch_add(1, Ordering::AcqRel);
        while READY.load(Ordering::Acquire) < round * (1 + plan.others) {
            hint::spin_loop();
        }
        call(10_000 + number);
    }
}

fn call(number: i64) {
    // SAFETY: no descriptor, address or length is -1: whatever the call is, the kernel refuses it.
    unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
}

/// `getpid` is number 20 there.
#[cfg(target_arch = "x86_64")]
fn compat_getpid() {
    // SAFETY: the call reads and writes no memory; the kernel clears r8 to r11 on this way in.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inout("eax") 20 => _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn compat_getpid() {
    panic!("this machine's kernel has no such calls");
}

/// Whether the kernel takes calls as 32-bit programs make them.
pub fn has_compat_calls() -> bool {
    cfg!(target_arch = "x86_64") && {
        let mut caller = Caller::start(&Plan {
            compat_getpid: 1,
            ..Plan::default()
        });
        caller.release();
        caller.ends_well()
    }
}
