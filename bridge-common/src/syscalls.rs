//! What the counter of system calls and its loader agree on.

/// Bytes in the name that the kernel keeps of a process, the terminating zero among them (`TASK_COMM_LEN`).
pub const NAME: usize = 16;

/// Different system calls of processes that can be counted at once; with their counts about 70 bytes each, and 8 more
/// per CPU.
pub const MAX_COUNTS: u32 = 16_384;

/// Processes or names that can be chosen unless the loader makes more room.
pub const DEFAULT_CHOSEN: u32 = 64;

/// What is counted together: the map `COUNTS`, per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key {
    /// The process's name, that of its first thread, filled up with zeros.
    pub name: [u8; NAME],
    /// The process's id in the loader's namespace (the kernel's tgid).
    pub process: u32,
    /// The call's number, as the thread gave it.
    pub number: i32,
    /// 1 if the call was made in the way of 32-bit programs, whose numbers are others; else 0.
    pub compat: u32,
}

/// What the program is to count, and where it finds it: the global [`SETTINGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Whether processes are chosen by [`NAMES`] rather than by [`PROCESSES`].
    pub by_name: u64,
    /// Device and inode of the loader's namespace of process ids; an inode of 0 stands for the initial one, whose ids
    /// are the kernel's own.
    pub namespace: [u64; 2],
    /// Offset of `task_struct.group_leader`
    pub task_group_leader: u64,
    /// Offset of `task_struct.comm`
    pub task_comm: u64,
    /// Offset of the 32-bit word in `task_struct` that tells a 32-bit call,
    pub compat_word: u64,
    /// and its bits there; 0 where there are no such calls.
    pub compat_bits: u64,
}

/// The program's name in the object file.
pub const PROGRAM: &str = "tapbridge_syscalls";
/// Name of the global that holds [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Hash of process id to nothing in particular: the chosen processes.
pub const PROCESSES: &str = "PROCESSES";
/// Hash of a name, filled up with zeros, to nothing in particular: the chosen names.
pub const NAMES: &str = "NAMES";
/// Per-CPU hash of [`Key`] to the number of calls.
pub const COUNTS: &str = "COUNTS";
/// Per-CPU array of one: calls that found no room in [`COUNTS`].
pub const UNCOUNTED: &str = "UNCOUNTED";

/// Calls whose tracepoint is named after the function in the kernel (`SYSCALL_DEFINE`) and not after the entry in its
/// table of calls.
const TRACEPOINTS: [(&str, &str); 7] = [
    ("fstat", "newfstat"),
    ("fstatat", "newfstatat"),
    ("lstat", "newlstat"),
    ("sendfile", "sendfile64"),
    ("stat", "newstat"),
    ("umount2", "umount"),
    ("uname", "newuname"),
];
/// Those of aarch64 alone.
const AARCH64_TRACEPOINTS: [(&str, &str); 2] = [
    ("fadvise64", "fadvise64_64"),
    ("personality", "arm64_personality"),
];

/// What follows `sys_enter_` in the name of a call's tracepoint, on an architecture as `std::env::consts::ARCH` has it.
pub fn tracepoint<'call>(architecture: &str, call: &'call str) -> &'call str {
    let own: &[_] = match architecture {
        "aarch64" => &AARCH64_TRACEPOINTS,
        _ => &[],
    };
    let mut others = TRACEPOINTS.iter().chain(own);
    others
        .find(|(name, _)| *name == call)
        .map_or(call, |&(_, tracepoint)| tracepoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_has_tracepoints_of_its_own() {
        assert_eq!(tracepoint("x86_64", "fstat"), "newfstat");
        assert_eq!(tracepoint("x86_64", "fadvise64"), "fadvise64");
        assert_eq!(tracepoint("aarch64", "fadvise64"), "fadvise64_64");
        assert_eq!(tracepoint("aarch64", "writev"), "writev");
    }
}
