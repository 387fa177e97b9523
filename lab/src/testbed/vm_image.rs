//! What a virtual machine boots: a kernel, and an initramfs, made from unpacked Debian packages. A guest's has the
//! measuring programs, and nothing of it comes from the host's own /boot or libraries. That of tests gets programs of
//! the host.

mod archive;
mod host;
mod kernel;
mod libraries;
mod packages;

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};

use self::{archive::Archive, libraries::Needs, packages::BUSYBOX};

pub use {host::PROGRAM, host::environment, packages::Packages};

const INIT: &str = include_str!("vm_image/init.sh");

/// Raised when what is written changes and neither [`INIT`] nor a list of modules does.
const FORM: u32 = 4;

/// What drives a virtio network card and a virtio port on PCI, each module after those it needs.
const MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/char/virtio_console",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// What tests use of the kernel beside those, each module after those it needs.
const TESTED_MODULES: [&str; 18] = [
    "drivers/net/tun",
    "drivers/net/tap",
    "drivers/net/veth",
    "drivers/vhost/vhost_iotlb",
    "drivers/vhost/vhost",
    "drivers/vhost/vhost_net",
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "net/bridge/br_netfilter",
    "net/802/garp",
    "net/802/mrp",
    "net/8021q/8021q",
    "net/sched/sch_htb",
    "net/sched/sch_tbf",
    "lib/libcrc32c",
    "net/netfilter/nfnetlink",
    "net/netfilter/nf_tables",
];

const PROGRAMS: [&str; 4] = [
    "usr/bin/iperf3",
    "usr/bin/sockperf",
    "usr/bin/weborf",
    "usr/bin/wrk",
];

/// The folder with the file `answer`, and what is in that.
pub const ANSWERS: &str = "/answers";
pub const ANSWER: &[u8] = b"answer\n";

/// Files that a machine boots.
#[derive(Debug, Clone)]
pub struct Image {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The kernel's release.
    pub release: String,
    /// The memory that it takes to hold the initramfs and to run what is in it, in MiB.
    pub memory: u64,
}

/// What an image is made of, beside busybox and [`INIT`].
#[derive(Hash)]
struct Recipe {
    /// The packages' root that has the kernel.
    kernel: PathBuf,
    modules: Vec<&'static str>,
    /// Programs of the guest's packages.
    programs: &'static [&'static str],
}

impl Image {
    /// The image of a guest, which is made when there is none yet.
    pub fn of_guest(packages: &Packages) -> Result<Self> {
        let recipe = Recipe {
            kernel: packages.guest(),
            modules: MODULES.to_vec(),
            programs: &PROGRAMS,
        };
        Self::obtain(packages, &recipe, 256)
    }

    /// The image that tests run in, which is made when there is none yet. It has no programs; see
    /// [`with_files`](Self::with_files).
    pub fn of_tests(packages: &Packages) -> Result<Self> {
        let recipe = Recipe {
            kernel: packages.tested(),
            modules: [&MODULES[..], &TESTED_MODULES[..]].concat(),
            programs: &[],
        };
        Self::obtain(packages, &recipe, 512)
    }

    fn obtain(packages: &Packages, recipe: &Recipe, memory: u64) -> Result<Self> {
        let (vmlinuz, release) = find_kernel(&recipe.kernel)?;
        let folder = packages
            .folder()
            .join(format!("image-{:016x}", digest(packages, recipe)?));
        if !folder.is_dir() {
            eprintln!("making Linux {release} and an initramfs in {}", folder.display());
            make(packages, recipe, &vmlinuz, &release, &folder)
                .with_context(|| format!("making the image of Linux {release}"))?;
        }
        let elf = folder.join("vmlinux");
        Ok(Self {
            kernel: if elf.exists() { elf } else { vmlinuz },
            initramfs: folder.join("initramfs.cpio"),
            release,
            memory,
        })
    }

    /// The image with files of the host, at the same paths, and the libraries that they need. It lies in a folder of
    /// the caller's.
    pub fn with_files(&self, files: &[PathBuf], folder: &Path) -> Result<Self> {
        self.with_archive(&host::archive(files)?, folder)
    }

    /// The image with a program of the host, called by [`PROGRAM`], beside programs of its own. It lies in a folder of the
    /// caller's.
    pub fn with_program(&self, program: &Path, folder: &Path) -> Result<Self> {
        self.with_archive(&host::program(program)?, folder)
    }

    fn with_archive(&self, archive: &[u8], folder: &Path) -> Result<Self> {
        let initramfs = folder.join("initramfs.cpio");
        let memory = |bytes: usize| 3 * u64::try_from(bytes >> 20).unwrap_or_default();
        // The kernel unpacks one archive after the other.
        let mut archives = read(&self.initramfs)?;
        archives.extend(archive);
        fs::write(&initramfs, &archives).with_context(|| format!("writing {}", initramfs.display()))?;
        Ok(Self {
            initramfs,
            // The archives, what comes out of them, and as much free again, of which its file system wants to have half.
            memory: self.memory + memory(archives.len()),
            ..self.clone()
        })
    }
}

/// Of all that decides what is in the image.
fn digest(packages: &Packages, recipe: &Recipe) -> Result<u64> {
    let mut digest = DefaultHasher::new();
    (FORM, INIT, recipe, packages.list()?).hash(&mut digest);
    Ok(digest.finish())
}

fn find_kernel(root: &Path) -> Result<(PathBuf, String)> {
    let boot = root.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))? {
        let entry = entry?;
        if let Ok(release) = kernel::release(&entry.file_name().to_string_lossy()) {
            return Ok((entry.path(), release.into()));
        }
    }
    bail!("no kernel in {}", boot.display())
}

/// Fills a folder of another name, so that the image appears complete or not at all.
fn make(packages: &Packages, recipe: &Recipe, vmlinuz: &Path, release: &str, folder: &Path) -> Result<()> {
    let partial = folder.with_extension(format!("{}.partial", process::id()));
    fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let made = fill(packages, recipe, vmlinuz, release, &partial).and_then(|()| {
        match fs::rename(&partial, folder) {
            // Another lab was faster.
            Err(_) if folder.is_dir() => Ok(fs::remove_dir_all(&partial)?),
            result => Ok(result?),
        }
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    made
}

fn fill(packages: &Packages, recipe: &Recipe, vmlinuz: &Path, release: &str, folder: &Path) -> Result<()> {
    match fs::read(vmlinuz)
        .map_err(Into::into)
        .and_then(|file| kernel::vmlinux(&file))
    {
        Ok(kernel) => fs::write(folder.join("vmlinux"), kernel)?,
        Err(error) => eprintln!(
            "{} will be booted as it is, which takes longer: {error:#}",
            vmlinuz.display()
        ),
    }
    fs::write(
        folder.join("initramfs.cpio"),
        initramfs(packages, recipe, release)?,
    )?;
    // The cache is the user's, this process root's: the user must be able to throw the image away.
    let owner = fs::metadata(packages.folder())?;
    for path in [folder.to_owned()]
        .into_iter()
        .chain(fs::read_dir(folder)?.flatten().map(|entry| entry.path()))
    {
        chown(&path, Some(owner.uid()), Some(owner.gid()))
            .with_context(|| format!("handing {} to its user", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn initramfs(packages: &Packages, recipe: &Recipe, release: &str) -> Result<Vec<u8>> {
    let root = &packages.guest();
    let mut archive = Archive::default();
    for folder in [
        "answers",
        "bin",
        "dev",
        "jobs",
        "lib",
        libraries::FOLDERS[0],
        "lib64",
        "modules",
        "proc",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "usr/share",
        "usr/share/misc",
    ] {
        archive.folder(folder);
    }
    // The kernel opens it for /init before anything is mounted.
    archive.character_device("dev/console", 5, 1);
    archive.file("init", INIT.as_bytes());
    archive.file(BUSYBOX, &read(&root.join(BUSYBOX))?);
    archive.symlink("bin/sh", "busybox");
    archive.file("answers/answer", ANSWER);
    // The types of files, which weborf insists on; it need not know any.
    archive.file("usr/share/misc/magic", b"");

    let mut needs = Vec::new();
    for program in recipe.programs {
        let file = read(&root.join(program))?;
        needs.push(Needs::of(&file).with_context(|| (*program).to_owned())?);
        archive.file(program, &file);
    }
    if let Some(linker) = needs.iter().find_map(|needs| needs.linker.as_deref()) {
        let name = linker.rsplit('/').next().unwrap_or(linker);
        archive.file(
            linker.trim_start_matches('/'),
            &read(&libraries::find(root, name)?)?,
        );
    }
    for (name, path) in libraries::closure(root, needs)? {
        archive.file(&format!("{}/{name}", libraries::FOLDERS[0]), &read(&path)?);
    }

    let modules = recipe.kernel.join("lib/modules").join(release);
    let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
    let mut order = String::new();
    for module in &recipe.modules {
        let file = format!("kernel/{module}.ko");
        if builtin.lines().any(|line| line == file) {
            continue;
        }
        let name = format!("{}.ko", module.rsplit('/').next().unwrap_or(module));
        archive.file(&format!("modules/{name}"), &packages.module(&modules.join(file))?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}
