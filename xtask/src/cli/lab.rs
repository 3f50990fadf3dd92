//! `cargo xtask lab`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::geteuid;
use xtask::build::binaries;
use xtask::vm::{DEFAULT_KERNEL, Vm};

/// What is reproduced where nothing else is asked for: the case that Harvester investigated.
const DEFAULT_SCENARIO: &str = "memhold";

/// Reproduce the OOM kill of a VM pod and show who ate the headroom.
///
/// Without arguments: the scenario memhold with a real QEMU on real KVM, in an emulated machine. Needs no root.
/// Example: cargo xtask lab daemon-leak --host -- --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Lab {
    /// The scenario; `headroom lab --help` lists them.
    scenario: Option<String>,
    /// Run in an emulated machine. This is the default.
    #[arg(long, conflicts_with = "host")]
    vm: bool,
    /// Run on this host. Needs root.
    #[arg(long)]
    host: bool,
    /// Put a real QEMU into the pod. The default where no scenario is named.
    #[arg(long)]
    real: bool,
    /// The kernel line of the emulated machine.
    #[arg(long, default_value = DEFAULT_KERNEL, conflicts_with = "host")]
    kernel: String,
    /// Seconds until the machine is given up.
    #[arg(long, default_value_t = 300, conflicts_with = "host")]
    timeout: u64,
    /// More arguments for `headroom lab`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Lab {
    pub fn run(self) -> Result<ExitCode> {
        if self.host { self.on_host() } else { self.in_vm() }
    }

    fn scenario(&self) -> &str {
        self.scenario.as_deref().unwrap_or(DEFAULT_SCENARIO)
    }

    /// Whether the QEMU of the scenario is a real one.
    fn real(&self) -> bool {
        self.real || (self.scenario.is_none() && !self.host)
    }

    /// `lab` and what follows it on headroom's command line.
    fn words(&self) -> Vec<String> {
        let mut words = vec!["lab".to_owned(), self.scenario().to_owned()];
        if self.real() {
            words.push("--real".to_owned());
        }
        words.extend(self.arguments.iter().cloned());
        words
    }

    fn on_host(&self) -> Result<ExitCode> {
        if !geteuid().is_root() {
            bail!("the lab makes cgroups and loads BPF programs: run as root, or leave --host away");
        }
        let mut command = Command::new(binaries()?.headroom());
        // In place of this process, so that signals and the exit status are headroom's own.
        Err(command.args(self.words()).exec()).context("cannot run headroom")
    }

    fn in_vm(&self) -> Result<ExitCode> {
        let mut words = vec!["/bin/headroom".to_owned()];
        words.extend(self.words());
        eprintln!("lab: `{}` in a VM with kernel {}", words.join(" "), self.kernel);
        let run = Vm::new("lab")
            .kernel(&self.kernel)
            .real(self.real())
            .timeout(Duration::from_secs(self.timeout))
            .echo(true)
            .command(words)
            .boot()?;
        let status = super::vm::finish(&run)?;
        eprintln!(
            "lab: on this host, as root: `cargo xtask lab {} --host`",
            self.scenario()
        );
        Ok(status)
    }
}
