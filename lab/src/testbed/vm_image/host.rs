//! Programs of the host for a virtual machine, with the libraries that they need: together they run on any kernel.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{archive::Archive, read};
use crate::host::process::{self, quoted};

/// An archive with these files at their paths, which are absolute, and their libraries at theirs.
pub fn archive(files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    for file in files {
        all.extend(libraries(file)?);
    }
    let mut archive = Archive::default();
    let mut folders = BTreeSet::new();
    for path in &all {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in parents.into_iter().rev() {
            if folders.insert(folder.to_owned()) {
                archive.folder(relative(folder)?);
            }
        }
        archive.file(relative(path)?, &read(path)?);
    }
    Ok(archive.finish())
}

/// How [`program`]'s is called: its linker is not the machine's own, and its libraries need not be.
pub const PROGRAM: [&str; 4] = ["/host/linker", "--library-path", "/host", "/host/program"];

/// An archive with a program and its libraries, in a folder of their own: the machine has programs that were linked with
/// others.
pub fn program(file: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.folder("host");
    archive.file("host/program", &read(file)?);
    let mut linked = false;
    for path in libraries(file)? {
        let name = path
            .file_name()
            .context("a library without a name")?
            .to_string_lossy();
        let is_linker = name.starts_with("ld-");
        linked |= is_linker;
        let name = if is_linker { "linker" } else { &*name };
        archive.file(&format!("host/{name}"), &read(&path)?);
    }
    ensure!(
        linked,
        "{} is not linked dynamically, as it is by default",
        file.display()
    );
    Ok(archive.finish())
}

/// What a shell in the machine sets, so that the programs are found and find their libraries.
pub fn environment(files: &[PathBuf]) -> Result<String> {
    let mut libraries_of_all = Vec::new();
    for file in files {
        libraries_of_all.extend(libraries(file)?);
    }
    Ok(format!(
        "export PATH={}:/bin:/usr/bin LD_LIBRARY_PATH={}",
        quoted(&folders(files)?),
        quoted(&folders(&libraries_of_all)?)
    ))
}

fn relative(path: &Path) -> Result<&str> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is no UTF-8", path.display()))?;
    let relative = text.strip_prefix('/');
    relative.with_context(|| format!("{text} is no absolute path"))
}

/// The folders that files are in, as lists of folders are written.
fn folders(files: &[PathBuf]) -> Result<String> {
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let list = std::env::join_paths(folders).context("a folder's name has a colon")?;
    list.into_string()
        .map_err(|list| anyhow::anyhow!("{} is no UTF-8", list.display()))
}

/// The libraries of a program, its dynamic linker among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    let output = process::call(ldd)?;
    paths(&output).with_context(|| format!("{}: its libraries", program.display()))
}

/// From ldd's lines, such as "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fcb…)".
fn paths(output: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in output.lines() {
        ensure!(!line.ends_with("not found"), "{}", line.trim());
        let (_, path) = line.split_once("=> ").unwrap_or(("", line.trim()));
        // Neither the kernel's own library, which is no file, nor "statically linked".
        if path.starts_with('/') {
            let Some((path, _)) = path.rsplit_once(" (") else {
                bail!("unexpected: {}", line.trim());
            };
            paths.push(OsString::from(path).into());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1c)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c)\n";
        let expected: Vec<PathBuf> = vec![
            "/lib/x86_64-linux-gnu/libc.so.6".into(),
            "/lib64/ld-linux-x86-64.so.2".into(),
        ];
        assert_eq!(paths(output).unwrap(), expected);
        assert_eq!(paths("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        let error = paths("\tlibno.so => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "libno.so => not found");
    }

    #[test]
    fn a_program_has_its_linker_and_libraries_beside_it() {
        let bytes = program(&std::env::current_exe().unwrap()).unwrap();
        for name in ["host/program\0", "host/linker\0", "host/libc.so.6\0"] {
            assert!(
                bytes.windows(name.len()).any(|window| window == name.as_bytes()),
                "{name}"
            );
        }
    }

    #[test]
    fn an_archive_has_the_folders_that_its_files_are_in() {
        let own = std::env::current_exe().unwrap();
        let bytes = archive(std::slice::from_ref(&own)).unwrap();
        for path in own.ancestors().filter(|path| path.parent().is_some()) {
            let name = format!("{}\0", relative(path).unwrap());
            assert!(
                bytes.windows(name.len()).any(|window| window == name.as_bytes()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_folder_with_a_space_is_one_folder_for_a_shell() {
        for folder in ["/a clone/target", "/it's"] {
            let script = format!("export LISTED={}; printf %s \"$LISTED\"", quoted(folder));
            let shell = std::process::Command::new("sh").args(["-c", &script]).output();
            assert_eq!(shell.unwrap().stdout, folder.as_bytes());
        }
    }

    #[test]
    fn programs_and_libraries_are_found_where_they_are_on_the_host() {
        let own = std::env::current_exe().unwrap();
        let folder = own.parent().unwrap().display().to_string();
        let environment = environment(&[own]).unwrap();
        assert!(
            environment.starts_with(&format!(
                "export PATH='{folder}':/bin:/usr/bin LD_LIBRARY_PATH='/"
            )),
            "{environment}"
        );
    }
}
