//! `headroom completions`: what a shell needs to complete headroom's command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  headroom completions bash > /etc/bash_completion.d/headroom")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints them.
pub fn run(args: &Args) {
    clap_complete::generate(args.shell, &mut Cli::command(), "headroom", &mut anstream::stdout());
}
