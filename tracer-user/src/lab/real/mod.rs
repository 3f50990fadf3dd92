//! A real QEMU in the pod, running the lab's own [payload].

pub mod payload;
pub mod serial;
pub mod smaps;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::actor::spec::{Backend, GuestRam};
use super::cast::{NAMESPACE, VM};
use super::plan::{MIB, Member, Program};

/// QEMU's name in PATH.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The environment of the lab's own VMs sets this to 1: KVM there is the VM's own.
pub const KVM_ALLOWED: &str = "HEADROOM_LAB_KVM";
/// Size of the sparse disk: more than any scenario writes.
const DISK: u64 = 1 << 30;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM inside the lab's own VMs, else TCG
    #[default]
    Auto,
    /// The kernel's KVM
    Kvm,
    /// QEMU's own emulation
    Tcg,
}

/// How QEMU opens the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Cache {
    /// Through the host's page cache
    #[default]
    Writeback,
    /// Past it (`O_DIRECT`)
    None,
}

/// A real QEMU and how to run it.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Path of the program.
    pub program: PathBuf,
    /// Runs on KVM.
    pub kvm: bool,
    /// How it opens the disk.
    pub cache: Cache,
}

/// A real QEMU's part.
#[derive(Clone, Debug)]
pub struct Part {
    /// What runs.
    pub program: PathBuf,
    /// What the payload does, one phase after the other.
    pub tasks: Vec<Task>,
    /// Its guest RAM.
    pub ram: GuestRam,
    /// What it writes is charged as page cache.
    pub cached: bool,
}

/// What the payload does in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Touches guest RAM up to this address, at most this fast.
    Touch {
        /// Bytes from the start of guest RAM.
        until: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Writes this much to the disk.
    Write {
        /// Bytes.
        bytes: u64,
        /// Requests of 1 MiB in flight.
        depth: u64,
    },
}

impl Qemu {
    /// Finds QEMU in PATH and settles what runs the guest.
    #[must_use]
    pub fn find(accel: Accel, cache: Cache) -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let program = std::env::split_paths(&path)
            .map(|folder| folder.join(PROGRAM))
            .find(|program| program.is_file())?;
        let kvm = match accel {
            Accel::Kvm => true,
            Accel::Tcg => false,
            Accel::Auto => {
                let loaded = ["kvm_amd", "kvm_intel"]
                    .iter()
                    .any(|module| Path::new("/sys/module").join(module).exists());
                loaded && std::env::var_os(KVM_ALLOWED).is_some_and(|value| value == "1")
            }
        };
        Some(Self { program, kvm, cache })
    }

    /// Writes the payload and an empty disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn prepare(folder: &Path) -> io::Result<()> {
        fs::write(rom(folder), payload::rom())?;
        File::create(disk(folder))?.set_len(DISK)
    }

    /// The member of the cast: this QEMU, its payload doing one task per phase.
    #[must_use]
    pub fn member(&self, ram: GuestRam, tasks: &[Task], folder: &Path) -> Member {
        Member {
            name: "qemu".to_owned(),
            argv: self.argv(ram, folder),
            program: Program::Real(Part {
                program: self.program.clone(),
                tasks: tasks.to_vec(),
                ram,
                cached: self.cache == Cache::Writeback,
            }),
        }
    }

    /// The command line, with one vCPU, which the payload runs on.
    fn argv(&self, ram: GuestRam, folder: &Path) -> Vec<String> {
        let backend = match ram.backend {
            Backend::Ram => "memory-backend-ram",
            Backend::Memfd => "memory-backend-memfd,share=on",
            Backend::Hugepages => "memory-backend-memfd,share=on,hugetlb=on",
        };
        let (backend, options) = backend.split_once(',').unwrap_or((backend, ""));
        let comma = if options.is_empty() { "" } else { "," };
        let direct = if self.cache == Cache::None { "on" } else { "off" };
        let accel = if self.kvm { "kvm" } else { "tcg,thread=multi" };
        let folder_text = folder.display();
        let line = format!(
            "{} -name guest={NAMESPACE}_{VM},debug-threads=on -nodefaults -no-user-config -display none -no-reboot \
             -accel {accel} -machine pc,dump-guest-core=off,memory-backend=pc.ram -cpu qemu64 -smp 1 -m {}M \
             -object {backend},id=pc.ram,size={}{comma}{options} -object iothread,id=iothread1 \
             -blockdev driver=file,node-name=disk,filename={folder_text}/disk.raw,cache.direct={direct} \
             -device virtio-blk-pci,drive=disk,iothread=iothread1,disable-modern=on \
             -chardev stdio,id=console,signal=off -serial chardev:console \
             -bios {}",
            self.program.display(),
            ram.bytes / MIB,
            ram.bytes,
            rom(folder).display(),
        );
        line.split_whitespace().map(str::to_owned).collect()
    }
}

fn rom(folder: &Path) -> PathBuf {
    folder.join("payload.rom")
}

fn disk(folder: &Path) -> PathBuf {
    folder.join("disk.raw")
}

impl Task {
    /// The line that tells the payload to do it.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Touch { until, rate } => format!("t{},{}\n", until / MIB, 1000 * MIB / (*rate).max(MIB)),
            Self::Write { bytes, depth } => format!("w{},{depth}\n", bytes / MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_in_the_payloads_words() {
        let touch = Task::Touch {
            until: 224 * MIB,
            rate: 64 * MIB,
        };
        let write = Task::Write {
            bytes: 96 * MIB,
            depth: 4,
        };
        assert_eq!([touch.line(), write.line()], ["t224,15\n", "w96,4\n"]);
    }

    #[test]
    fn the_command_line_has_what_discovery_looks_for() {
        let qemu = Qemu {
            program: "/usr/bin/qemu-system-x86_64".into(),
            kvm: false,
            cache: Cache::None,
        };
        let ram = GuestRam {
            bytes: 64 * MIB,
            backend: Backend::Memfd,
        };
        let line = qemu.argv(ram, Path::new("/f")).join(" ");
        for part in [
            "-object memory-backend-memfd,id=pc.ram,size=67108864,share=on",
            "memory-backend=pc.ram",
            "guest=lab_vm1,debug-threads=on",
            "cache.direct=on",
            "-accel tcg,thread=multi",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
