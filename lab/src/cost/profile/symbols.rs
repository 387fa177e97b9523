//! The kernel's functions by their addresses, as /proc/kallsyms tells them to root.

use std::fs;

use anyhow::{Context, Result, ensure};

/// Functions, in the order of their addresses.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads them, those of BPF programs included.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
        let symbols = Self::parse(&text);
        ensure!(
            symbols.0.last().is_some_and(|&(address, _)| address > 0),
            "/proc/kallsyms hides the kernel's addresses: it takes CAP_SYSLOG, and 'sysctl kernel.kptr_restrict=1'"
        );
        Ok(symbols)
    }

    /// Of lines such as `ffffffff81dae6c0 t tun_xdp_xmit [tun]`.
    pub fn parse(text: &str) -> Self {
        let function = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let is_code = matches!(words.next()?, "T" | "t" | "W" | "w");
            // What the compiler has made of one function has its name all the same.
            let name = words.next()?.split('.').next()?;
            is_code.then(|| (address, name.to_owned()))
        };
        let mut functions: Vec<_> = text.lines().filter_map(function).collect();
        functions.sort_by_key(|&(address, _)| address);
        Self(functions)
    }

    /// The function that an address is in.
    fn name(&self, address: u64) -> Option<&str> {
        let after = self.0.partition_point(|&(start, _)| start <= address);
        Some(&self.0[after.checked_sub(1)?].1)
    }

    /// The functions of a stack, the innermost first. All but that are told by where they go on, which of a function that
    /// ends with a call is behind it.
    pub fn stack(&self, addresses: &[u64]) -> Vec<&str> {
        let calls = addresses.iter().enumerate();
        let calls = calls.map(|(depth, &address)| {
            if depth == 0 {
                address
            } else {
                address.saturating_sub(1)
            }
        });
        calls.filter_map(|address| self.name(address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\nffffffff81000100 t tun_attach.isra.0\nffffffff81000150 d data\n\
        ffffffff81000200 T caller\nffffffff81000300 T next\n\
        ffffffffc0000000 t bpf_prog_6deef7357e7b4530_tapbridge_fast_tcx\t[bpf]\n";

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let symbols = Symbols::parse(TEXT);
        assert_eq!(symbols.name(0xffff_ffff_8100_0000), Some("_stext"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0199), Some("tun_attach"));
        assert_eq!(
            symbols.name(0xffff_ffff_c000_0010),
            Some("bpf_prog_6deef7357e7b4530_tapbridge_fast_tcx")
        );
        assert_eq!(symbols.name(0x1000), None);
    }

    #[test]
    fn a_call_at_the_end_of_a_function_is_its_own() {
        let stack = [0xffff_ffff_8100_0100, 0xffff_ffff_8100_0300];
        assert_eq!(Symbols::parse(TEXT).stack(&stack), ["tun_attach", "caller"]);
    }

    #[test]
    fn hidden_addresses_are_no_functions() {
        let hidden = Symbols::parse("0000000000000000 T _stext\n0000000000000000 T _text\n");
        assert!(hidden.0.last().is_some_and(|&(address, _)| address == 0));
    }
}
