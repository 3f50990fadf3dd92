//! `headroom lab`: reproduces a kill with known ground truth, traces it, and compares.

use std::path::PathBuf;

use crate::cli::alert::rate;
use crate::cli::exit::{ExitError, Status};
use crate::cli::progress;
use crate::lab::real::{Accel, Cache};
use crate::lab::scenario::Scenario;
use crate::lab::{self, Options};
use crate::probe::BackendChoice;
use crate::units::Bytes;

/// Reproduce a kill in a memcg of its own with known ground truth, trace it, and compare
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: headroom lab memhold --limit 600MiB")]
pub struct Args {
    /// What to reproduce
    #[arg(value_enum, default_value_t = Scenario::Memhold)]
    scenario: Scenario,
    /// Limit of the pod's container, as in 600MiB, for the same load; whether it is killed then is for the run to tell
    #[arg(long, value_name = "SIZE")]
    limit: Option<Bytes>,
    /// Size of guest RAM, as in 320MiB, under the same limit: what Reserved Memory makes of a guest
    #[arg(long, value_name = "SIZE")]
    guest_memory: Option<Bytes>,
    /// How fast whoever is to blame grows, as in 32MiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = rate)]
    rate: Option<Bytes>,
    /// What backs guest RAM
    #[arg(long, value_enum, default_value = "ram")]
    memory: lab::actor::spec::Backend,
    /// Run a real qemu-system-x86_64 with a small guest of the lab's own (memhold, backup-io, guest-only)
    #[arg(long)]
    real: bool,
    /// What runs the real QEMU's guest
    #[arg(long, value_enum, default_value_t, requires = "real")]
    accel: Accel,
    /// How the real QEMU opens its disk
    #[arg(long, value_enum, default_value_t, requires = "real")]
    cache: Cache,
    /// Count charges with this backend alone
    #[arg(long, value_enum, default_value_t)]
    backend: BackendChoice,
    /// Record stacks, too: which code path grows
    #[arg(long, conflicts_with = "no_trace")]
    stacks: bool,
    /// Keep the recording, the report and the truth in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    /// Only play the scenario and print the truth
    #[arg(long, hide = true)]
    no_trace: bool,
}

/// Runs the command.
///
/// # Errors
/// Without root, when the scenario cannot be played, or when the tracer's report differs from the truth.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        let message = "the lab makes cgroups and attaches probes: run it as root";
        return Err(ExitError::new(Status::Unsupported, message).into());
    }
    let progress = progress::steps();
    let options = Options {
        scenario: args.scenario,
        limit: args.limit.map(|bytes| bytes.0),
        guest: args.guest_memory.map(|bytes| bytes.0),
        rate: args.rate.map(|bytes| bytes.0),
        backend: args.memory,
        keep: args.keep.clone(),
        json: args.json,
        real: args.real.then_some((args.accel, args.cache)),
        trace: (!args.no_trace).then_some(args.backend),
        stacks: args.stacks,
    };
    let run = lab::run(&options, &|step| progress.set_message(step.to_owned()));
    progress.finish_and_clear();
    lab::conclude(&options, &run?)
}
