//! `cargo xtask vm`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use xtask::build::vm_binaries;
use xtask::vm::suite::{CYCLES, Cell, STAND_INS, WORKLOADS};
use xtask::vm::{Cgroup, DEFAULT_KERNEL, Status, Vm as Machine, VmRun};

/// Boot a kernel in an emulated machine and run a test or a command in it.
///
/// TEST is a workload (docs/kernels.md lists them) or a scenario of `headroom lab`. For a command, the machine holds
/// headroom (at /bin/headroom) and what you add. Files that it leaves in /results are brought back.
/// Examples: cargo xtask vm --kernel 6.1 --backend kprobe swap
///           cargo xtask vm -- /bin/headroom doctor
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Vm {
    /// The kernel line to boot the newest kernel of.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// The version of memory cgroups.
    #[arg(long, value_enum, default_value = "v2")]
    cgroup: CgroupVersion,
    /// What counts the charges in a TEST: fentry, kprobe, tracepoint, or the first that works.
    #[arg(long, default_value = "auto")]
    backend: String,
    /// Bring KVM and this host's qemu-system-x86_64 into the machine.
    #[arg(long)]
    real: bool,
    /// Bring a disk with ext4 at /var/tmp.
    #[arg(long)]
    disk: bool,
    /// Split memory and CPUs into this many NUMA nodes.
    #[arg(long, default_value_t = 1)]
    numa: u32,
    /// Load a module of the kernel's package, such as drivers/block/loop.
    #[arg(long, value_name = "PATH")]
    module: Vec<String>,
    /// Seconds until the machine is given up.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// The machine's memory in MiB.
    #[arg(long)]
    memory: Option<u32>,
    /// Bring a program of this host, with its libraries.
    #[arg(long, value_name = "PATH")]
    program: Vec<PathBuf>,
    /// Bring a file of this host.
    #[arg(long, value_name = "HOST:VM")]
    file: Vec<String>,
    /// A workload, or a scenario of the lab.
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    test: Option<String>,
    /// The command and its arguments.
    #[arg(last = true)]
    command: Vec<String>,
}

/// A version of memory cgroups.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CgroupVersion {
    V1,
    V2,
}

impl Vm {
    pub fn run(self) -> Result<ExitCode> {
        let timeout = Duration::from_secs(self.timeout);
        let mut vm = self.machine()?.timeout(timeout).echo(true);
        for module in &self.module {
            vm = vm.module(module);
        }
        if let Some(mib) = self.memory {
            vm = vm.memory_mib(mib);
        }
        for program in self.program {
            vm = vm.program(program);
        }
        for file in &self.file {
            let (host, guest) = file
                .split_once(':')
                .with_context(|| format!("--file {file}: write HOST:VM"))?;
            vm = vm.file(host, guest);
        }
        finish(&vm.boot()?)
    }
}

impl Vm {
    /// The machine of a test, or one for a command.
    fn machine(&self) -> Result<Machine> {
        let cgroup = match self.cgroup {
            CgroupVersion::V1 => Cgroup::V1,
            CgroupVersion::V2 => Cgroup::V2,
        };
        let Some(test) = &self.test else {
            let vm = Machine::new("command").kernel(&self.kernel).cgroup(cgroup);
            // A real QEMU has a disk anyway.
            let vm = if self.real { vm.real(true) } else { vm.disk(self.disk) };
            return Ok(vm.numa_nodes(self.numa).command(self.command.iter().cloned()));
        };
        let cell = Cell::new(&self.kernel, cgroup, &self.backend);
        if test == CYCLES || WORKLOADS.contains(&test.as_str()) {
            return Ok(cell.workloads("test", &vm_binaries()?, &[test]));
        }
        if STAND_INS.iter().any(|words| words[0] == test) {
            let words = if self.real {
                vec![test.as_str(), "--real"]
            } else {
                vec![test.as_str()]
            };
            return Ok(cell.lab("test", &[&words]));
        }
        let scenarios = STAND_INS.iter().map(|words| words[0]);
        let known: Vec<&str> = WORKLOADS.into_iter().chain([CYCLES]).chain(scenarios).collect();
        bail!("there is no test {test}; there is {}", known.join(", "))
    }
}

/// Says how the command in the VM ended, and ends the same way.
pub fn finish(run: &VmRun) -> Result<ExitCode> {
    let command = run.commands.first().context("the VM ran no command")?;
    eprintln!("vm: kernel {}; files are in {}", run.release, run.file("").display());
    match &command.status {
        Status::Exited(code) => Ok(ExitCode::from(u8::try_from(*code).unwrap_or(1))),
        status => anyhow::bail!("in the VM, `{}` ended with {status:?}", command.words.join(" ")),
    }
}
