//! What the programs may cost.

use std::collections::BTreeMap;

use nix::sys::utsname::uname;
use serde::Deserialize;
use tapbridge::{
    fastpath,
    syscalls::{Selection, counter::Counter},
};

use crate::Test;

/// The repository's budgets; those of frames are the bench's to check.
const FILE: &str = include_str!("../../budgets.toml");

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Budgets {
    /// By kernel, then by program.
    verified_instructions: BTreeMap<String, BTreeMap<String, u32>>,
}

pub const TESTS: &[Test] = &[(
    "the_verifier_goes_through_no_more_instructions_than_budgeted",
    verified,
)];

fn verified() {
    let [xdp, tcx, observe] = fastpath::verified_instructions().expect("the fast path");
    let verified = [
        ("XDP", xdp),
        ("tcx", tcx),
        ("observe", observe),
        ("sys_enter, by process", counter(&Selection::Processes(vec![1]))),
        (
            "sys_enter, by name",
            counter(&Selection::Names(vec!["init".into()])),
        ),
    ];
    let kernel = kernel();
    println!("verified instructions on Linux {kernel}: {verified:?}");
    let budgets: Budgets = toml::from_str(FILE).expect("budgets.toml");
    let kernels = budgets.verified_instructions;
    let budgets = kernels.get(&kernel).unwrap_or_else(|| &kernels["other"]);
    assert_eq!(budgets.len(), verified.len(), "budgets.toml has {budgets:?}");
    for (program, verified) in verified {
        let budget = budgets[program];
        assert!(
            (1..=budget).contains(&verified),
            "{program}: {verified} instructions, budget {budget}"
        );
    }
}

/// The kernel's version as budgets are listed: "6.12".
fn kernel() -> String {
    let name = uname().expect("the kernel's name");
    let release = name.release().to_string_lossy();
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn counter(selection: &Selection) -> u32 {
    let mut counter = Counter::load(selection).expect("load the counter of system calls");
    let program = counter.program().expect("the program");
    let info = program.info().expect("information on a program");
    info.verified_instruction_count().expect("a kernel from 5.16 on")
}
