//! The emulated machine: its disks and QEMU's command line.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::process::{capture, find};
use crate::setup::{Kernel, qemu};

/// Both disks are sparse: what they do not hold takes no room.
const DISK_BYTES: u64 = 4 << 30;

pub(super) struct Machine<'a> {
    /// Where everything it makes is.
    pub folder: &'a Path,
    pub kernel: &'a Kernel,
    pub memory_mib: u32,
    pub initramfs: PathBuf,
    pub scratch_disk: bool,
}

/// The running emulator; killed when dropped.
pub(super) struct Running(Child);

impl Machine<'_> {
    /// What the kernel prints.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// What init sends.
    pub fn messages(&self) -> PathBuf {
        self.folder.join("messages")
    }

    /// The disk that results are brought back on.
    pub fn results_disk(&self) -> PathBuf {
        self.folder.join("results.img")
    }

    /// Makes the disks and powers on.
    pub fn start(&self) -> Result<Running> {
        let results = self.results_disk();
        sparse(&results)?;
        // QEMU makes these too, but later than the host looks.
        for file in [self.console(), self.messages()] {
            File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let log = self.folder.join("qemu.log");
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(qemu::emulator()?);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            // Never the host's KVM: emulation is the same everywhere, and its CPU offers SVM to the kernel inside.
            .args([
                "-accel",
                "tcg,thread=multi",
                "-machine",
                "pc",
                "-cpu",
                "max",
                "-smp",
                "2",
            ])
            .args(["-m", &format!("{}M", self.memory_mib)])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", "console=ttyS0 panic=-1 loglevel=4 rdinit=/init"])
            .args(["-serial", &format!("file:{}", self.console().display())])
            .args(["-serial", &format!("file:{}", self.messages().display())])
            .args(["-drive", &drive(&results)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write QEMU's log")?)
            .stderr(log);
        if self.scratch_disk {
            let scratch = self.folder.join("scratch.img");
            sparse(&scratch)?;
            let mkfs = find("mkfs.ext4").context("mkfs.ext4 is missing: run `cargo xtask setup`")?;
            capture(Command::new(mkfs).args(["-q", "-F"]).arg(&scratch))?;
            command.args(["-drive", &drive(&scratch)]);
        }
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe {
            // The emulator must not outlive us, however we end.
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        command.spawn().map(Running).context("cannot start qemu-system-x86_64")
    }
}

impl Running {
    /// Whether it has been powered off.
    pub fn is_off(&mut self) -> Result<bool> {
        Ok(self.0.try_wait().context("cannot wait for QEMU")?.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drive(image: &Path) -> String {
    // Losing an image of this run to a power cut is no loss, so the host need not sync.
    let image = image.display().to_string().replace(',', ",,");
    format!("file={image},if=virtio,format=raw,cache=unsafe")
}

fn sparse(path: &Path) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(DISK_BYTES))
        .with_context(|| format!("cannot make {}", path.display()))
}
