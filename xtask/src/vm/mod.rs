//! Virtual machines with a kernel of choice, headroom inside, and commands to run.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use xtask::vm::Vm;
//!
//! let run = Vm::new("doctor").command(["/bin/headroom", "doctor", "--json"]).boot()?;
//! run.expect_success()?;
//! println!("{}", run.commands[0].stdout());
//! # Ok(())
//! # }
//! ```
//!
//! The machine is emulated (QEMU's TCG), so it runs anywhere; its CPU offers SVM, so that the kernel in it can load
//! its own KVM. Whatever a command puts into `/results` is brought back. Two VMs run side by side; a third waits for its turn, whoever asks.

pub mod initramfs;
pub mod program;
pub mod protocol;
pub mod real_qemu;
pub mod results;
pub mod suite;

mod machine;
mod run;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::setup::Kernel;
use crate::{build, paths, setup};
use initramfs::Initramfs;
use protocol::{PLAN, Plan};

pub use protocol::{Cgroup, Status};
pub use run::{CommandRun, VmRun};

/// The kernel line that is booted where nothing else is asked for.
pub const DEFAULT_KERNEL: &str = "6.12";

/// Modules for the VM's disks and for file systems on them, in the order in which most kernels want them. Kernels that lack one
/// have it built in.
const DISK_MODULES: [&str; 11] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "lib/crc16",
    "crypto/crc32c_generic",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// Modules for VMs inside the VM.
const KVM_MODULES: [&str; 3] = ["virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd"];

/// A VM to be booted.
#[derive(Clone, Debug)]
pub struct Vm {
    name: String,
    kernel: String,
    cgroup: Cgroup,
    real: bool,
    disk: bool,
    numa_nodes: u32,
    hugepages: u32,
    icount: bool,
    modules: Vec<String>,
    memory_mib: Option<u32>,
    timeout: Duration,
    echo: bool,
    files: Vec<(PathBuf, String)>,
    programs: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    commands: Vec<Vec<String>>,
}

impl Vm {
    /// A VM with the default kernel and cgroup v2. What it leaves is kept in `target/vm/NAME`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kernel: DEFAULT_KERNEL.to_owned(),
            cgroup: Cgroup::default(),
            real: false,
            disk: false,
            numa_nodes: 1,
            hugepages: 0,
            icount: false,
            modules: Vec::new(),
            memory_mib: None,
            timeout: Duration::from_secs(300),
            echo: false,
            files: Vec::new(),
            programs: Vec::new(),
            environment: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// Boots the newest kernel of this line, such as `6.12`.
    #[must_use]
    pub fn kernel(mut self, line: &str) -> Self {
        line.clone_into(&mut self.kernel);
        self
    }

    /// Mounts this version of memory cgroups.
    #[must_use]
    pub fn cgroup(mut self, version: Cgroup) -> Self {
        self.cgroup = version;
        self
    }

    /// Brings KVM and a real `qemu-system-x86_64`, and a disk with ext4 at `/var/tmp`.
    #[must_use]
    pub fn real(mut self, real: bool) -> Self {
        self.real = real;
        if !real {
            return self;
        }
        self.disk(true).kvm()
    }

    /// Brings KVM, whose modules find the emulated CPU's SVM.
    #[must_use]
    pub fn kvm(self) -> Self {
        // The KVM in there is the VM's own: the lab and the workloads may use it.
        let vm = self.env("HEADROOM_LAB_KVM", "1");
        KVM_MODULES.iter().fold(vm, |vm, module| vm.module(module))
    }

    /// Brings a disk with ext4 at `/var/tmp`, which a VM with a real QEMU has anyway.
    #[must_use]
    pub fn disk(mut self, disk: bool) -> Self {
        self.disk = disk;
        if !disk {
            return self;
        }
        // What is written has to be on a real file system, or it would be shmem.
        self.env("TMPDIR", protocol::SCRATCH)
    }

    /// Splits memory and CPUs into this many NUMA nodes, between which pages can be migrated.
    #[must_use]
    pub fn numa_nodes(mut self, nodes: u32) -> Self {
        self.numa_nodes = nodes.max(1);
        self
    }

    /// Reserves huge pages of 2 MiB at boot.
    #[must_use]
    pub fn hugepages(mut self, count: u32) -> Self {
        self.hugepages = count;
        self
    }

    /// Gives the VM one CPU whose time stamp counter counts instructions: what a piece of work takes is then the same
    /// whatever else the host does.
    #[must_use]
    pub fn count_instructions(mut self) -> Self {
        self.icount = true;
        self
    }

    /// Loads a module of the kernel's package, such as `drivers/block/loop`, where the kernel has it as one.
    #[must_use]
    pub fn module(mut self, path: &str) -> Self {
        self.modules.push(path.to_owned());
        self
    }

    /// Gives the VM this much memory; by default 1 GiB, and 2 GiB with a real QEMU inside.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// Gives up after this time from power-on; by default 300 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Prints what the commands write while they run.
    #[must_use]
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Puts a file of the host into the VM. A program must be static; see [`Vm::program`] for others.
    #[must_use]
    pub fn file(mut self, host: impl Into<PathBuf>, guest: &str) -> Self {
        self.files.push((host.into(), guest.to_owned()));
        self
    }

    /// Puts a program of the host with its libraries into the VM, at the same path.
    #[must_use]
    pub fn program(mut self, host: impl Into<PathBuf>) -> Self {
        self.programs.push(host.into());
        self
    }

    /// Sets a variable for all commands.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a command, after those added before. Whatever it leaves running is killed when it ends.
    #[must_use]
    pub fn command<I, S>(mut self, words: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.commands.push(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets up, builds, boots, runs the commands, and brings the results.
    ///
    /// # Errors
    /// When the VM does not get to its end: setup or build failed, the kernel panicked, init failed, or time was up.
    /// A command that fails is no error here: see [`VmRun::expect_success`].
    pub fn boot(self) -> Result<VmRun> {
        let kernel = setup::vm(&self.kernel)?;
        if self.cgroup == Cgroup::V1 && !kernel.line.cgroup_v1 {
            anyhow::bail!("Debian's {} kernels have no v1 memory controller", self.kernel);
        }
        let binaries = build::vm_binaries()?;
        let folder = paths::target().join("vm").join(&self.name);
        let _running = slot(&folder)?;
        empty(&folder)?;
        let initramfs = folder.join("initramfs.cpio");
        self.pack(&kernel, &binaries, &initramfs)?;
        let machine = machine::Machine {
            folder: &folder,
            kernel: &kernel,
            memory_mib: self.memory_mib.unwrap_or(if self.real { 2048 } else { 1024 }),
            initramfs,
            numa_nodes: self.numa_nodes,
            hugepages: self.hugepages,
            icount: self.icount,
            scratch_disk: self.disk,
        };
        run::run(&machine, self.commands, self.timeout, self.echo)
            .with_context(|| format!("VM {} ({}; see {})", self.name, kernel.release, folder.display()))
    }

    /// Writes the initramfs.
    fn pack(&self, kernel: &Kernel, binaries: &build::Binaries, path: &Path) -> Result<()> {
        let mut initramfs = Initramfs::create(path)?;
        initramfs.file(&binaries.vm_init(), "init")?;
        initramfs.file(&binaries.headroom(), "bin/headroom")?;
        for (host, guest) in &self.files {
            initramfs.file(host, guest)?;
        }
        for program in &self.programs {
            pack_at_same_path(&mut initramfs, &program::with_libraries(program)?)?;
        }
        let mut modules = DISK_MODULES.to_vec();
        modules.extend(self.modules.iter().map(String::as_str));
        if self.real {
            pack_at_same_path(&mut initramfs, &real_qemu::files()?)?;
        }
        let mut plan = Plan {
            cgroup: self.cgroup,
            modules: Vec::new(),
            scratch_disk: self.disk,
            environment: self.environment.clone(),
            commands: self.commands.clone(),
        };
        for file in modules.iter().filter_map(|module| kernel.module(module)) {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .context("a module has a name")?;
            let guest = format!("lib/modules/{name}");
            initramfs.file(&file, &guest)?;
            plan.modules.push(format!("/{guest}"));
        }
        initramfs.content(PLAN, &serde_json::to_vec(&plan)?)?;
        initramfs.finish()
    }
}

fn pack_at_same_path<'a>(initramfs: &mut Initramfs, files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    for file in files {
        let name = file
            .to_str()
            .with_context(|| format!("{} is not text", file.display()))?;
        initramfs.file(file, name)?;
    }
    Ok(())
}

/// How many VMs run side by side. Most of a VM's time goes into waiting, so that two of them do not miss their deadlines
/// on two CPUs; more would only take each other's time.
const SIDE_BY_SIDE: usize = 2;

/// Waits for its turn: until fewer than [`SIDE_BY_SIDE`] VMs run, whoever booted them, and none in `folder`.
fn slot(folder: &Path) -> Result<(Flock<File>, Flock<File>)> {
    let parent = folder.parent().context("target/vm has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("a VM has a name")?;
    let own =
        lock(&parent.join(format!(".{name}.lock")), FlockArg::LockExclusive)?.context("a lock that waits is got")?;
    loop {
        for number in 0..SIDE_BY_SIDE {
            if let Some(slot) = lock(
                &parent.join(format!(".slot{number}.lock")),
                FlockArg::LockExclusiveNonblock,
            )? {
                return Ok((own, slot));
            }
        }
        sleep(TURN);
    }
}

/// How often a VM that waits looks for its turn.
const TURN: Duration = Duration::from_millis(200);

/// Takes a lock; `None` where another has it and `how` is not to wait.
fn lock(path: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Makes `folder`, empty.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
