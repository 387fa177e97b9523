//! What an earlier version had pinned: maps of another layout.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::{
    maps::{Array, Map, MapData},
    util::nr_cpus,
};
use tapbridge::common::{
    fastpath::{MAX_PORTS, NEAR_PORTS, PortCounters, Settings, map, near_port, program},
    forwarding::Reason,
};

/// Of `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
/// Of `enum bpf_map_type`.
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;

/// How many reasons version 4 had, and how many numbers a port's counters were.
const REASONS: usize = 39;
const WORDS: usize = 6 + 2 * REASONS;

#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
    // SAFETY: the attributes are of the form that the command reads, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    assert!(
        result >= 0,
        "bpf command {command}: {}",
        io::Error::last_os_error()
    );
    result
}

fn create(kind: u32, entries: u32, flags: u32) -> MapData {
    let fd = bpf(
        MAP_CREATE,
        &Create {
            kind,
            key_size: 4,
            value_size: u32::try_from(WORDS * size_of::<u64>()).expect("few"),
            entries,
            flags,
        },
    );
    let fd = i32::try_from(fd).expect("a descriptor");
    // SAFETY: the kernel has just opened this descriptor for us.
    MapData::from_fd(unsafe { OwnedFd::from_raw_fd(fd) }).expect("a map")
}

/// What each CPU has counted; the first one all.
fn write(map: &MapData, key: u32, counters: &PortCounters) {
    let words = counters.words();
    let head = PortCounters::WORDS - 2 * Reason::COUNT;
    let [xdp, tcx] = [0, 1].map(|hook| &words[head + hook * Reason::COUNT..][..REASONS]);
    let mut values = [&words[..6], xdp, tcx].concat();
    values.resize(WORDS * nr_cpus().expect("CPUs"), 0);
    bpf(
        MAP_UPDATE_ELEM,
        &Update {
            map: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            padding: 0,
            key: &raw const key as u64,
            value: values.as_ptr() as u64,
            flags: 0,
        },
    );
}

/// Makes of what is pinned here what version 4 would have pinned, with these counters of a port.
pub fn make_version_4(folder: &Path, ports: &[(u32, PortCounters)]) {
    for name in [
        map::EVENTS,
        map::EVENTS_LOST,
        map::TOLD,
        map::PORT_COUNTERS,
        map::COUNTERS,
        program::TELL,
        program::ADD,
    ] {
        fs::remove_file(folder.join(name)).expect("unpin");
    }
    let near = create(PERCPU_ARRAY, NEAR_PORTS, 0);
    for (ifindex, counters) in ports {
        write(&near, near_port(*ifindex), counters);
    }
    near.pin(folder.join(map::PORT_COUNTERS)).expect("pin");
    let far = create(PERCPU_HASH, MAX_PORTS, NO_PREALLOC);
    far.pin(folder.join(map::COUNTERS)).expect("pin");
    set_version(folder, 4);
}

/// Changes what version is said to have pinned this.
pub fn set_version(folder: &Path, version: u32) {
    let data = MapData::from_pin(folder.join(map::SETTINGS)).expect("open a pinned map");
    let mut settings: Array<_, Settings> = Map::Array(data).try_into().expect("an array");
    let was = settings.get(&0, 0).expect("read the settings");
    settings
        .set(0, Settings { version, ..was }, 0)
        .expect("write the settings");
}
