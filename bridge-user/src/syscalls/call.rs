//! What a system call is called.

use std::fmt;

use bridge_common::syscalls::{Key, tracepoint};
use serde::{Serialize, Serializer};
use syscalls::Sysno;

#[cfg(target_arch = "aarch64")]
use syscalls::arm::Sysno as CompatSysno;
#[cfg(not(target_arch = "aarch64"))]
use syscalls::x86::Sysno as CompatSysno;

/// A system call. In text and JSON: its name as `syscalls(2)` has it, its number if it has none, and "compat:" before
/// it if it was made as a 32-bit program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Its number.
    pub number: i32,
    /// Whether it was made as a 32-bit program does, with that kind of number.
    pub compat: bool,
}

impl Call {
    fn name(self) -> Option<&'static str> {
        let number = usize::try_from(self.number).ok()?;
        if self.compat {
            CompatSysno::new(number).map(|call| call.name())
        } else {
            Sysno::new(number).map(|call| call.name())
        }
    }

    /// The call's tracepoint in the group `syscalls`. Numbers that are nobody's have none, and those of 32-bit calls
    /// mean others (`trace_get_syscall_nr`).
    pub fn tracepoint(self) -> Option<String> {
        let name = self.name().filter(|_| !self.compat)?;
        let name = tracepoint(std::env::consts::ARCH, name);
        Some(format!("sys_enter_{name}"))
    }
}

impl From<Key> for Call {
    fn from(key: Key) -> Self {
        Self {
            number: key.number,
            compat: key.compat != 0,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.compat { "compat:" } else { "" };
        match self.name() {
            Some(name) => formatter.pad(&format!("{kind}{name}")),
            None => formatter.pad(&format!("{kind}{}", self.number)),
        }
    }
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(call: Sysno) -> Call {
        Call {
            number: call.id(),
            compat: false,
        }
    }

    #[test]
    fn calls_are_named_and_numbers_without_a_name_stay_numbers() {
        assert_eq!(native(Sysno::writev).to_string(), "writev");
        for number in [-1, 99_999] {
            let call = Call {
                number,
                compat: false,
            };
            assert_eq!((call.to_string(), call.tracepoint()), (number.to_string(), None));
        }
    }

    #[test]
    fn calls_of_32_bit_programs_have_names_of_their_own_and_no_tracepoint() {
        let call = Call {
            number: CompatSysno::getpid.id(),
            compat: true,
        };
        assert_ne!(call.number, Sysno::getpid.id());
        assert_eq!(
            (call.to_string(), call.tracepoint()),
            ("compat:getpid".into(), None)
        );
        assert_eq!(
            Call {
                number: 99_999,
                compat: true
            }
            .to_string(),
            "compat:99999"
        );
    }

    #[test]
    fn tracepoints_have_the_names_of_the_functions_in_the_kernel() {
        for (call, tracepoint) in [
            (Sysno::writev, "sys_enter_writev"),
            (Sysno::fstat, "sys_enter_newfstat"),
            (Sysno::uname, "sys_enter_newuname"),
            (Sysno::umount2, "sys_enter_umount"),
            (Sysno::sendfile, "sys_enter_sendfile64"),
        ] {
            assert_eq!(native(call).tracepoint().as_deref(), Some(tracepoint));
        }
    }
}
