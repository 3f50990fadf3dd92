//! `cargo xtask vm`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use xtask::vm::{Cgroup, DEFAULT_KERNEL, Status, Vm as Machine, VmRun};

/// Boot a kernel in an emulated machine and run a command in it.
///
/// The machine holds headroom (at /bin/headroom) and what you add. Files that the command leaves in /results are
/// brought back. Example: cargo xtask vm -- /bin/headroom doctor
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Vm {
    /// The kernel line to boot the newest kernel of.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// The version of memory cgroups.
    #[arg(long, value_enum, default_value = "v2")]
    cgroup: CgroupVersion,
    /// Bring KVM and this host's qemu-system-x86_64 into the machine.
    #[arg(long)]
    real: bool,
    /// Seconds until the machine is given up.
    #[arg(long, default_value_t = 120)]
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
    /// The command and its arguments.
    #[arg(last = true, required = true)]
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
        let mut vm = Machine::new("command")
            .kernel(&self.kernel)
            .cgroup(match self.cgroup {
                CgroupVersion::V1 => Cgroup::V1,
                CgroupVersion::V2 => Cgroup::V2,
            })
            .real(self.real)
            .timeout(Duration::from_secs(self.timeout))
            .echo(true)
            .command(self.command);
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

/// Says how the command in the VM ended, and ends the same way.
pub fn finish(run: &VmRun) -> Result<ExitCode> {
    let command = run.commands.first().context("the VM ran no command")?;
    eprintln!("vm: kernel {}; files are in {}", run.release, run.file("").display());
    match &command.status {
        Status::Exited(code) => Ok(ExitCode::from(u8::try_from(*code).unwrap_or(1))),
        status => anyhow::bail!("in the VM, `{}` ended with {status:?}", command.words.join(" ")),
    }
}
