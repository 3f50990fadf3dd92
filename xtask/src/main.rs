//! `cargo xtask`: set up, build, test and show headroom.

mod cli;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build;

/// Set up, build, test and show headroom. Whatever is missing for a command is set up first.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the build and the VM lab need: rust-src, bpf-linker, QEMU, a kernel.
    Setup(cli::setup::Setup),
    /// Build the static binary.
    Build,
    /// Build what is handed out: the static program, a Debian package, an archive, a container image, checksums.
    Dist(cli::dist::Dist),
    /// Run all checks and tests, those on this host and those in VMs. Needs root.
    Test(cli::test::Test),
    /// Boot a kernel in an emulated machine and run a command in it.
    Vm(cli::vm::Vm),
    /// Reproduce the OOM kill of a VM pod and show who ate the headroom.
    Lab(cli::lab::Lab),
    /// Run everything on every kernel and backend, and write docs/kernels.md.
    Matrix(cli::matrix::Matrix),
    /// Measure what tracing costs, and write docs/performance.md.
    Bench(cli::bench::Bench),
    /// Write the README's accuracy table from real runs. Needs root.
    Accuracy(cli::accuracy::Accuracy),
    /// Write the tables of docs/forecast.md from real runs. Needs root.
    Forecast(cli::forecast::Forecast),
}

fn main() -> ExitCode {
    match run(Xtask::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(setup) => setup.run()?,
        Command::Build => {
            println!("{}", build::binaries()?.headroom().display());
        }
        Command::Dist(dist) => dist.run()?,
        Command::Test(test) => test.run()?,
        Command::Vm(vm) => return vm.run(),
        Command::Lab(lab) => return lab.run(),
        Command::Matrix(matrix) => matrix.run()?,
        Command::Bench(bench) => bench.run()?,
        Command::Accuracy(accuracy) => accuracy.run()?,
        Command::Forecast(forecast) => forecast.run()?,
    }
    Ok(ExitCode::SUCCESS)
}
