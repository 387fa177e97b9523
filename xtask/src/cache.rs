//! The cache folder, where everything lies that the set-up makes: nothing of it goes into the system.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long a set-up waits for another one: longer than one takes on a slow machine.
const LOCK_LIMIT: Duration = Duration::from_mins(20);

/// The cache folder of this user.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `$TAPBRIDGE_CACHE`, else `tapbridge` in the user's own cache folder. The folder need not exist.
    pub fn of_this_user() -> Result<Self> {
        let folder = choose(
            |name| {
                env::var_os(name)
                    .filter(|value| !value.is_empty())
                    .map(PathBuf::from)
            },
            env::home_dir(),
        );
        let folder = folder.context(
            "cache folder: neither TAPBRIDGE_CACHE, XDG_CACHE_HOME nor HOME is set; set TAPBRIDGE_CACHE to a folder",
        )?;
        let folder =
            std::path::absolute(&folder).with_context(|| format!("cache folder {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The path of an entry, present or not.
    pub fn entry(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Keeps other set-ups out for as long as the returned file lives.
    pub fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.folder).with_context(|| self.cannot("create"))?;
        let path = self.entry("lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let end = Instant::now() + LOCK_LIMIT;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    bail!(
                        "another set-up has held {} for {} minutes; end it, then run this again",
                        path.display(),
                        LOCK_LIMIT.as_secs() / 60
                    )
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if !told {
                eprintln!("waiting for another set-up, which holds {}", path.display());
                told = true;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Makes the entry `name` with `make`, which fills the folder it is given. The entry appears complete or not at
    /// all: what an interrupted run leaves behind has another name and is thrown away by the next.
    ///
    /// The caller holds the [lock](Self::lock).
    pub fn fill(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let partial = self.entry(&format!("{name}.partial"));
        let entry = self.entry(name);
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| self.cannot("write to"))?;
        if let Err(error) = make(&partial) {
            // The error is what matters; the next run removes what could not be removed now.
            let _ = remove(&partial);
            return Err(error);
        }
        remove(&entry)?;
        fs::rename(&partial, &entry).with_context(|| format!("rename {} to {name}", partial.display()))?;
        Ok(entry)
    }

    fn cannot(&self, action: &str) -> String {
        format!(
            "cannot {action} the cache folder {}; TAPBRIDGE_CACHE names another one",
            self.folder.display()
        )
    }
}

/// Removes a folder with everything in it; one that isn't there is no error.
pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn choose(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = variable("TAPBRIDGE_CACHE") {
        return Some(folder);
    }
    // The XDG base directory specification: a relative path is invalid and is to be ignored.
    let user = variable("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
    Some(user.or_else(|| Some(home?.join(".cache")))?.join("tapbridge"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn scratch(around: &TempDir) -> Cache {
        Cache {
            folder: around.path().join("cache"),
        }
    }

    #[test]
    fn the_users_own_choice_of_cache_folder_comes_first() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let home = || Some(PathBuf::from("/home/u"));
        assert_eq!(choose(all, home()), Some("/TAPBRIDGE_CACHE".into()));
        let xdg = |name: &str| (name == "XDG_CACHE_HOME").then(|| PathBuf::from("/x"));
        assert_eq!(choose(xdg, home()), Some("/x/tapbridge".into()));
        let relative = |name: &str| (name == "XDG_CACHE_HOME").then(|| PathBuf::from("x"));
        assert_eq!(choose(relative, home()), Some("/home/u/.cache/tapbridge".into()));
        assert_eq!(choose(|_| None, None), None);
    }

    #[test]
    fn an_entry_appears_only_when_it_is_complete() {
        let around = tempfile::tempdir().expect("a folder can be made");
        let cache = scratch(&around);
        let failed = cache.fill("tool", |folder| {
            fs::write(folder.join("half"), "")?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(!cache.entry("tool").exists());
        assert!(!cache.entry("tool.partial").exists());

        let entry = cache
            .fill("tool", |folder| Ok(fs::write(folder.join("whole"), "")?))
            .expect("nothing fails");
        assert!(entry.join("whole").exists());
        assert!(!entry.join("half").exists());
        assert!(!cache.entry("tool.partial").exists());
    }

    #[test]
    fn a_second_set_up_waits_for_the_first() {
        let around = tempfile::tempdir().expect("a folder can be made");
        let cache = scratch(&around);
        let first = cache.lock().expect("nobody holds it");
        let second = File::open(cache.entry("lock")).expect("the lock file is there");
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        // Not at once: a process that another thread starts has the first one's descriptor until it executes its program.
        let end = Instant::now() + Duration::from_mins(1);
        while let Err(error) = second.try_lock() {
            assert!(Instant::now() < end, "the lock is free again: {error}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
