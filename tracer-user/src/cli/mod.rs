//! The command line: one file per subcommand, with its arguments and its `run`, nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod exit;

/// Which thread is eating a VM pod's memory headroom, before the kernel kills the VM.
#[derive(Debug, Parser)]
#[command(name = "headroom", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {}
}
