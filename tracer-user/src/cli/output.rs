//! What every command has in common: how much it says, and whether in colour.

use anstream::ColorChoice;
use env_logger::{Target, WriteStyle};
use log::LevelFilter;

use crate::cli::say::Stderr;

/// Behind a command's own flags in its help; clap counts those from 1, and has --help at 999.
const LAST: usize = 900;

/// Flags of every command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say more on stderr: -v informs, -vv is for debugging
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = LAST)]
    verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = LAST)]
    quiet: bool,
    /// Colours: auto looks for a terminal and NO_COLOR
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN", display_order = LAST)]
    color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Args {
    /// Makes the whole program heed them.
    pub fn apply(&self) {
        match self.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
        .write_global();
        let level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Error,
            (false, 0) => LevelFilter::Warn,
            (false, 1) => LevelFilter::Info,
            (false, _) => LevelFilter::Debug,
        };
        let style = match anstream::AutoStream::choice(&std::io::stderr()) {
            ColorChoice::Never => WriteStyle::Never,
            _ => WriteStyle::Always,
        };
        env_logger::Builder::new()
            .filter_level(level)
            .format_timestamp(None)
            .format_target(false)
            // A tracer must not wait for whoever reads its warnings.
            .target(Target::Pipe(Box::new(Stderr)))
            .write_style(style)
            .init();
    }
}
