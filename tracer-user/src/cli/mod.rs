//! The command line: one file per subcommand, with its arguments and its `run`, nothing else.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod advise;
pub mod alert;
pub mod attach;
pub mod completions;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod export;
pub mod lab;
pub mod man;
pub mod mark;
pub mod output;
pub mod pods;
pub mod progress;
pub mod protect;
pub mod record;
pub mod report;
pub mod say;
pub mod size;
pub mod time;
pub mod top;
pub mod watch;
pub mod wholeness;

/// Which thread is eating a VM pod's memory headroom, before the kernel kills the VM.
#[derive(Debug, Parser)]
#[command(name = "headroom", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: output::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Advise(Box<advise::Args>),
    #[command(hide = true)]
    Completions(completions::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
    Export(export::Args),
    Lab(lab::Args),
    #[command(hide = true)]
    Man(man::Args),
    Mark(mark::Args),
    Pods(pods::Args),
    Record(Box<record::Args>),
    Size(Box<size::Args>),
    Report(report::Args),
    Top(top::Args),
    Watch(Box<watch::Args>),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = crate::lab::actor::play_if_asked() {
        return code;
    }
    let cli = Cli::parse();
    cli.output.apply();
    finish(&run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Advise(args) => advise::run(args),
        Command::Completions(args) => {
            completions::run(args);
            Ok(())
        }
        Command::Doctor(args) => doctor::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Export(args) => export::run(args),
        Command::Lab(args) => lab::run(args),
        Command::Man(args) => man::run(args),
        Command::Mark(args) => mark::run(args),
        Command::Pods(args) => pods::run(args),
        Command::Record(args) => record::run(args),
        Command::Size(args) => size::run(args),
        Command::Report(args) => report::run(args),
        Command::Top(args) => top::run(args),
        Command::Watch(args) => watch::run(args),
    }
}

/// Turns what a command returned into an exit status, and its error into one line.
fn finish(result: &anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` has.
        Err(error) if is_broken_pipe(error) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}").replace('\n', " ");
            // A full disk behind standard error must not change the status.
            let _ = writeln!(std::io::stderr(), "headroom: {line}");
            exit::status_of(error).into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
