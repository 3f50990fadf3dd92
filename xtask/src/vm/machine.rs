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
/// Emulation takes a CPU whole; tests of this machine wait most of the time and shall not be late when they do not.
const NICENESS: &str = "10";

pub(super) struct Machine<'a> {
    /// Where everything it makes is.
    pub folder: &'a Path,
    pub kernel: &'a Kernel,
    pub memory_mib: u32,
    pub initramfs: PathBuf,
    pub numa_nodes: u32,
    pub scratch_disk: bool,
    pub hugepages: u32,
    /// Counts instructions: see [`Vm::count_instructions`](super::Vm::count_instructions).
    pub icount: bool,
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
        let mut command = Command::new("nice");
        command
            .args(["-n", NICENESS])
            .arg(qemu::emulator()?)
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            // Never the host's KVM: emulation is the same everywhere, and its CPU offers SVM to the kernel inside.
            .args([
                "-accel",
                ACCELERATOR,
                "-machine",
                "pc",
                "-cpu",
                "max",
                "-smp",
                &if self.icount { 1 } else { CPUS }.to_string(),
            ])
            .args(if self.icount { &ICOUNT[..] } else { &[] })
            .args(["-m", &format!("{}M", self.memory_mib)])
            .args(numa(self.memory_mib, self.numa_nodes))
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .arg("-append")
            .arg(format!(
                "{COMMAND_LINE} hugepages={}{}",
                self.hugepages,
                if self.icount { " norandmaps" } else { "" }
            ))
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

/// The kernel's. It need not find out whether the timer's interrupts arrive, as they do: it waits for ten of them for so many
/// rounds of a loop, and where the host is busy the emulated timer is too slow for that.
/// kernel: arch/x86/kernel/apic/io_apic.c check_timer(), no_timer_check (5.10 to 7.3)
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 rdinit=/init no_timer_check";

/// The CPUs take turns in one emulating thread. With a thread for each, one executes breakpoints that another has long
/// taken out of the kernel's text, as attaching does; the kernel, rightly, calls that an oops. Two machines side by side
/// use two of the host's CPUs all the same.
const ACCELERATOR: &str = "tcg,thread=single";

/// The clock advances a nanosecond an instruction, and does not wait for the host's when there is nothing to do. Where mappings
/// lie in such a machine (`norandmaps`) is the same in each, too: it decides how long the kernel searches for them.
const ICOUNT: [&str; 2] = ["-icount", "shift=0,sleep=off"];

/// CPUs of the machine.
const CPUS: u32 = 2;

/// Splits memory and CPUs evenly.
fn numa(memory_mib: u32, nodes: u32) -> Vec<String> {
    if nodes < 2 {
        return Vec::new();
    }
    let mut arguments = Vec::new();
    for node in 0..nodes {
        let mib = memory_mib / nodes + if node == 0 { memory_mib % nodes } else { 0 };
        let cpus = (0..CPUS).filter(|cpu| cpu % nodes == node);
        let cpus: String = cpus.map(|cpu| format!(",cpus={cpu}")).collect();
        arguments.extend([
            "-object".to_owned(),
            format!("memory-backend-ram,id=node{node},size={mib}M"),
            "-numa".to_owned(),
            format!("node,nodeid={node},memdev=node{node}{cpus}"),
        ]);
    }
    arguments
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_memory_and_cpus() {
        assert!(numa(1024, 1).is_empty());
        let words = numa(1025, 2).join(" ");
        for part in [
            "id=node0,size=513M",
            "id=node1,size=512M",
            "nodeid=0,memdev=node0,cpus=0",
            "nodeid=1,memdev=node1,cpus=1",
        ] {
            assert!(words.contains(part), "{part} in {words}");
        }
    }
}
