//! Which shared libraries a program needs, looked up in a folder that stands for the root.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64, PT_INTERP},
    read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader},
};

/// Where Debian's dynamic linker looks. It is among what it finds there itself.
pub const FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// What a program is linked with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of libraries.
    libraries: Vec<String>,
    /// The dynamic linker's path, in a program.
    pub linker: Option<String>,
}

impl Needs {
    /// Of an ELF file. A static program has none.
    pub fn of(file: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(file).context("no 64-bit ELF file")?;
        let endian = header.endian()?;
        let mut needs = Self::default();
        for segment in header.program_headers(endian, file)? {
            if segment.p_type(endian) == PT_INTERP
                && let Ok(path) = segment.data(endian, file)
            {
                let path = String::from_utf8_lossy(path);
                needs.linker = Some(path.trim_end_matches('\0').into());
            }
        }
        let sections = header.sections(endian, file)?;
        if let Some((entries, strings)) = sections.dynamic(endian, file)? {
            let strings = sections.section(strings)?;
            let strings = strings.strings(endian, file)?.context("no names of libraries")?;
            for entry in entries {
                if entry.tag(endian) == DT_NEEDED {
                    let name = entry.string(endian, strings)?;
                    needs.libraries.push(String::from_utf8_lossy(name).into_owned());
                }
            }
        }
        Ok(needs)
    }
}

/// The libraries that files need, and those that these need in turn: name and path.
pub fn closure(root: &Path, of: impl IntoIterator<Item = Needs>) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut wanted: Vec<String> = of.into_iter().flat_map(|needs| needs.libraries).collect();
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let path = find(root, &name)?;
        let file = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let needs = Needs::of(&file).with_context(|| path.display().to_string())?;
        wanted.extend(needs.libraries);
        found.insert(name, path);
    }
    Ok(found)
}

/// A library's path.
pub fn find(root: &Path, name: &str) -> Result<PathBuf> {
    let mut places = FOLDERS.iter().map(|folder| root.join(folder).join(name));
    places
        .find(|path| path.exists())
        .with_context(|| format!("the library {name} is not in {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_the_c_library_and_names_a_linker() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = Needs::of(&own).unwrap();
        assert!(
            needs.libraries.iter().any(|name| name.starts_with("libc.so")),
            "{needs:?}"
        );
        assert!(needs.linker.is_some_and(|path| path.starts_with("/lib")));
    }

    #[test]
    fn a_library_that_is_missing_is_named() {
        let needs = Needs {
            libraries: vec!["libno.so.1".into()],
            linker: None,
        };
        let error = closure(Path::new("/nowhere"), [needs]).unwrap_err();
        assert_eq!(error.to_string(), "the library libno.so.1 is not in /nowhere");
    }
}
