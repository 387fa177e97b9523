//! What an earlier version had pinned: maps of another layout.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
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

use super::bpf;

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

fn create(kind: u32, entries: u32, flags: u32) -> MapData {
    let fd = bpf::open(
        MAP_CREATE,
        &Create {
            kind,
            key_size: 4,
            value_size: u32::try_from(WORDS * size_of::<u64>()).expect("few"),
            entries,
            flags,
        },
    );
    MapData::from_fd(fd).expect("a map")
}

/// Gives a map a value, which is as long as the map's values are.
fn update<T>(map: &MapData, key: u32, value: &[T]) {
    bpf::succeed(
        MAP_UPDATE_ELEM,
        &Update {
            map: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            padding: 0,
            key: &raw const key as u64,
            value: value.as_ptr() as u64,
            flags: 0,
        },
    );
}

/// What each CPU has counted; the first one all.
fn write(map: &MapData, key: u32, counters: &PortCounters) {
    let words = counters.words();
    let head = PortCounters::WORDS - 2 * Reason::COUNT;
    let [xdp, tcx] = [0, 1].map(|hook| &words[head + hook * Reason::COUNT..][..REASONS]);
    let mut values = [&words[..6], xdp, tcx].concat();
    values.resize(WORDS * nr_cpus().expect("CPUs"), 0);
    update(map, key, &values);
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

/// Fills the only value of a map that is pinned here.
pub fn overwrite(path: &Path, byte: u8) {
    let map = MapData::from_pin(path).expect("open a pinned map");
    let bytes = map.info().expect("what it is").value_size();
    let value = vec![byte; usize::try_from(bytes).expect("few")];
    update(&map, 0, &value);
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
