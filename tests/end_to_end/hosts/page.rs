//! The pages of docs/hosts, of which the tests take what they do: so that no recipe says what does not work.

use std::{env, ffi::OsString, fs, path::Path, process::Command};

use super::super::configuration::File;
use crate::support::{
    program::{Output, run},
    switch::{Switch, TAPBRIDGE},
};

/// A page, as it is.
pub struct Page(&'static str);

macro_rules! page {
    ($name:literal) => {
        Page(include_str!(concat!("../../../docs/hosts/", $name)))
    };
}

pub const CLOUD_HYPERVISOR: Page = page!("cloud-hypervisor.md");
pub const FIRECRACKER: Page = page!("firecracker.md");
pub const INCUS: Page = page!("incus.md");
pub const KUBEVIRT: Page = page!("kubevirt.md");
pub const LIBVIRT: Page = page!("libvirt.md");
pub const PROXMOX: Page = page!("proxmox.md");
pub const QEMU: Page = page!("qemu.md");

impl Page {
    /// Its first block of code with these words in it.
    #[track_caller]
    pub fn block(&self, words: &str) -> String {
        let found = blocks(self.0).into_iter().find(|block| block.contains(words));
        found.unwrap_or_else(|| panic!("no block of code has '{words}' in\n{}", self.0))
    }

    /// The configuration that has these words in it.
    #[track_caller]
    pub fn configuration(&self, words: &str) -> File {
        File::new(&self.block(words))
    }

    /// A block of code as a script, which a shell runs with these arguments, beside what is attached in the switch.
    #[track_caller]
    pub fn run(&self, words: &str, switch: &Switch, arguments: &[&str]) -> Output {
        run(script(&self.block(words), switch, arguments))
    }

    /// A block of code in a file that can be executed.
    #[track_caller]
    pub fn executable(&self, words: &str, path: &Path) {
        let text = path.with_extension("text");
        fs::write(&text, self.block(words)).expect("write a script");
        // Another process writes it: one that this process starts meanwhile would keep it open, and it could not be executed.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(&text).arg(path);
        run(install).success();
    }
}

/// A script, which a shell runs with these arguments.
pub fn script(text: &str, switch: &Switch, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(text).arg("script").args(arguments);
    find_tapbridge(&mut shell, switch);
    shell
}

/// Has a program, and what it starts, find `tapbridge`, and what is attached in the switch.
pub fn find_tapbridge(command: &mut Command, switch: &Switch) {
    let folder = Path::new(TAPBRIDGE).parent().expect("a file's path");
    let path = env::var_os("PATH").unwrap_or_default();
    let path: OsString = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&path)))
        .expect("folders without a colon");
    command.env("PATH", path).env("TAPBRIDGE_STATE", switch.state());
}

/// The blocks of code, fenced and indented ones.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    let mut fenced = false;
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            blocks.extend(block.take());
            continue;
        }
        let code = if fenced {
            Some(line)
        } else {
            line.strip_prefix("    ")
        };
        match code {
            Some(code) => {
                let block = block.get_or_insert_default();
                block.push_str(code);
                block.push('\n');
            }
            None => blocks.extend(block.take()),
        }
    }
    blocks.extend(block);
    blocks
}
