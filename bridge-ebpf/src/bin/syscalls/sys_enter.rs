//! The program on `sys_enter`, and its maps.

use aya_ebpf::{
    Global,
    bindings::{BPF_NOEXIST, bpf_pidns_info},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_get_ns_current_pid_tgid, bpf_probe_read_kernel_str},
    },
    macros::{map, raw_tracepoint},
    maps::{HashMap, PerCpuArray, PerCpuHashMap},
    programs::RawTracePointContext,
};
use bridge_common::syscalls::{DEFAULT_CHOSEN, Key, MAX_COUNTS, NAME, Settings};

use crate::address::Address;

/// Set by the loader.
#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings {
    by_name: 0,
    namespace: [0; 2],
    task_group_leader: 0,
    task_comm: 0,
    compat_word: 0,
    compat_bits: 0,
});

#[map]
static PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(DEFAULT_CHOSEN, 0);

#[map]
static NAMES: HashMap<[u8; NAME], u8> = HashMap::with_max_entries(DEFAULT_CHOSEN, 0);

// Preallocated: an allocation that fails for the moment would be a call that is not counted.
#[map]
static COUNTS: PerCpuHashMap<Key, u64> = PerCpuHashMap::with_max_entries(MAX_COUNTS, 0);

#[map]
static UNCOUNTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn tapbridge_syscalls(context: RawTracePointContext) -> i32 {
    let settings = SETTINGS.load();
    // SAFETY: the helper has no conditions.
    let task = Address(unsafe { bpf_get_current_task() });
    if let Some((process, name)) = chosen(&settings, task) {
        count(&Key {
            name,
            process,
            number: context.arg(1),
            compat: is_compat(&settings, task).into(),
        });
    }
    0
}

/// The process that makes the call, and its name, if it is one of those to be counted.
#[inline(always)]
fn chosen(settings: &Settings, task: Address) -> Option<(u32, [u8; NAME])> {
    // SAFETY: what the maps hold is not read, only whether they hold it.
    unsafe {
        if settings.by_name != 0 {
            let name = name(settings, task)?;
            NAMES.get(name)?;
            return Some((process(settings)?, name));
        }
        let process = process(settings)?;
        PROCESSES.get(process)?;
        Some((process, name(settings, task).unwrap_or_default()))
    }
}

/// The current process's id in the loader's namespace; `None` if the process lives in another.
#[inline(always)]
fn process(settings: &Settings) -> Option<u32> {
    let [device, inode] = settings.namespace;
    if inode == 0 {
        return Some((bpf_get_current_pid_tgid() >> 32) as u32);
    }
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes a `bpf_pidns_info`, as long as it is told.
    let result = unsafe {
        bpf_get_ns_current_pid_tgid(device, inode, &raw mut ids, size_of::<bpf_pidns_info>() as u32)
    };
    (result == 0).then_some(ids.tgid)
}

/// The name of the process: its first thread's, since other threads may have names of their own.
#[inline(always)]
fn name(settings: &Settings, task: Address) -> Option<[u8; NAME]> {
    let leader: u64 = task.read(settings.task_group_leader)?;
    let mut name = [0; NAME];
    // As a string: behind its end the kernel may keep the rest of an earlier name.
    // SAFETY: the helper writes to `name`, at most its length, and fails where the kernel's memory can't be read.
    let result = unsafe {
        bpf_probe_read_kernel_str(
            (&raw mut name).cast(),
            NAME as u32,
            leader.wrapping_add(settings.task_comm) as *const _,
        )
    };
    (result > 0).then_some(name)
}

/// Whether this is a call of the 32-bit kind, as `in_compat_syscall` has it.
#[inline(always)]
fn is_compat(settings: &Settings, task: Address) -> bool {
    settings.compat_bits != 0
        && task
            .read::<u32>(settings.compat_word)
            .is_some_and(|word| u64::from(word) & settings.compat_bits != 0)
}

#[inline(always)]
fn count(key: &Key) {
    // The second look is for a key that another CPU has put there since the first.
    if add(key) || COUNTS.insert(key, 1, BPF_NOEXIST.into()).is_ok() || add(key) {
        return;
    }
    if let Some(uncounted) = UNCOUNTED.get_ptr_mut(0) {
        // SAFETY: the pointer is this CPU's element, which no other program interrupts.
        unsafe { *uncounted += 1 };
    }
}

/// Counts a call whose key is there already.
#[inline(always)]
fn add(key: &Key) -> bool {
    let Some(count) = COUNTS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: as above; elements are never removed.
    unsafe { *count += 1 };
    true
}
