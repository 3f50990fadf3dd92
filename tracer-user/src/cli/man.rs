//! `headroom man`: manual pages from the command line's own definitions.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory as _;

use crate::cli::Cli;

/// Write manual pages into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  headroom man /usr/local/share/man/man1")]
pub struct Args {
    /// The folder; it must exist
    folder: PathBuf,
}

/// Writes a page for headroom and one for each subcommand.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .with_context(|| format!("cannot write manual pages to {}", args.folder.display()))
}
