//! A root that begins as this machine's and forgets what is done there, with a network and pinned programs of its own.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use lab::netns;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use test_support::program::{LIMIT, Output, run, wait};

use crate::packages;

/// A root in a mount namespace that only the calling thread and what it starts are in.
pub struct Root {
    folder: PathBuf,
}

/// Does this with a root, on a thread of its own: the mounts go with it.
pub fn with_root(work: impl FnOnce(&Root) + Send) {
    let folder = tempfile::tempdir().expect("make a folder");
    let run = || {
        let _private = netns::enter_private().expect("a private network namespace");
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        work(&Root::mount(folder.path()));
    };
    let result = thread::scope(|scope| scope.spawn(run).join());
    if let Err(panicked) = result {
        panic::resume_unwind(panicked);
    }
}

impl Root {
    fn mount(folder: &Path) -> Self {
        let nothing = None::<&str>;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .expect("private mounts");
        let of_kind = |kind: &str, place: &Path, data: Option<&str>| {
            mount(Some(kind), place, Some(kind), MsFlags::empty(), data)
                .unwrap_or_else(|error| panic!("mount {kind} at {}: {error}", place.display()));
        };
        of_kind("tmpfs", folder, Some("mode=755"));
        let [upper, work, root] = ["upper", "work", "root"].map(|name| folder.join(name));
        for folder in [&upper, &work, &root] {
            fs::create_dir(folder).expect("make a folder");
        }
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        of_kind("overlay", &root, Some(&layers));
        for shared in ["dev", "proc"] {
            let from = Path::new("/").join(shared);
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&from), &root.join(shared), nothing, flags, nothing).expect("bind a folder");
        }
        of_kind("sysfs", &root.join("sys"), None);
        of_kind("bpf", &root.join("sys/fs/bpf"), Some("mode=700"));
        for scratch in ["run", "tmp"] {
            of_kind("tmpfs", &root.join(scratch), None);
        }
        let made = Self { folder: root };
        // Nothing is to start, whatever is asked for.
        fs::write(made.path("/tmp/policy"), "#!/bin/sh\nexit 101\n").expect("write a policy");
        made.run("install", "-m 755 /tmp/policy /usr/sbin/policy-rc.d")
            .success();
        // Who runs the tests may have tapbridge installed.
        made.dpkg("--purge tapbridge");
        made
    }

    /// Where a file of the root is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// Runs a program there.
    pub fn run(&self, program: &str, words: &str) -> Output {
        run(self.command(program, words))
    }

    /// Starts a program there, which ends with what is returned.
    pub fn start(&self, program: &str, words: &str) -> Started {
        let mut command = self.command(program, words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Started(command.spawn().expect("start a program"))
    }

    fn command(&self, program: &str, words: &str) -> Command {
        let mut chroot = Command::new("chroot");
        chroot
            .arg(&self.folder)
            .arg(program)
            .args(words.split_whitespace())
            .env("LC_ALL", "C.UTF-8");
        chroot
    }

    /// Runs a line of a shell's, which must succeed.
    #[track_caller]
    pub fn shell(&self, line: &str) {
        let script = "/tmp/line";
        fs::write(self.path(script), line).expect("write a script");
        self.run("sh", &format!("-e {script}")).success();
    }

    /// Puts one of the packages, "old" or "new", into the root's /tmp; answers where it is.
    pub fn bring(&self, which: &str) -> String {
        let package = format!("/tmp/{which}.deb");
        let from = packages().expect("packages").join(format!("{which}.deb"));
        fs::copy(&from, self.path(&package)).expect("copy a package");
        package
    }

    /// Installs one of the packages; answers with all that was said.
    #[track_caller]
    pub fn install(&self, which: &str) -> String {
        let package = self.bring(which);
        // Small images leave out what nobody reads there.
        self.dpkg(&format!("--path-include=/usr/share/* --install {package}"))
    }

    /// Runs dpkg, which must succeed; answers with all that was said.
    #[track_caller]
    pub fn dpkg(&self, words: &str) -> String {
        // Rebuilding the index of all manual pages takes longer than all the rest.
        let output = self.run("dpkg", &format!("--force-unsafe-io --no-triggers {words}"));
        let complaints = output.stderr.clone();
        output.success() + &complaints
    }
}

/// A program that runs.
pub struct Started(Child);

impl Started {
    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("look at a program").is_none()
    }

    /// Asks it to end, and waits for that.
    pub fn end(mut self) {
        test_support::program::signal(&self.0, "TERM");
        let status = wait(&mut self.0, LIMIT);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
