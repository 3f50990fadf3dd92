//! `headroom top`: who grew when, full screen.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::{ExitError, Status};
use crate::cli::report::not_read;
use crate::recording::State;
use crate::top::replay::Player;
use crate::top::{Session, Theme, replay};

/// Drawing more often than this shows nothing new.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// Play a recording full screen: who grew, moment by moment
///
/// Press ? for the keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: headroom top vm1.jsonl.zst")]
pub struct Args {
    /// A recording made by `headroom record`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Time between two frames; keys are answered at once
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Draw with ASCII alone, as is done where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
}

/// Plays a recording.
///
/// # Errors
/// Without a terminal, when the recording cannot be read, and, with status 5, when it is damaged.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        anyhow::bail!("top needs a terminal; `headroom record` and `headroom report` need none");
    }
    let theme = Theme {
        color: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        unicode: !args.ascii && speaks_utf8(|name| std::env::var(name).ok()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(play(&args.file, args, theme))
}

async fn play(path: &Path, args: &Args, theme: Theme) -> anyhow::Result<()> {
    let mut player = Player::open(path).map_err(|error| not_read(path, &error))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut session = Session::start(theme, args.interval, true).context("cannot use the terminal")?;
    let result = tokio::select! {
        result = replay(&mut session, &mut player) => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    drop(session);
    result?;
    if player.state() == State::Damaged {
        let message = format!("damaged, what could be read was shown: {}", path.display());
        return Err(ExitError::new(Status::Damaged, message).into());
    }
    Ok(())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = text.parse::<jiff::SignedDuration>().ok();
    let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
    let interval = interval.ok_or_else(|| format!("'{text}' is not a time: write it as 500ms, 1s or 5s"))?;
    if interval < LEAST_INTERVAL {
        return Err("less than 100ms shows nothing new".to_owned());
    }
    Ok(interval)
}

/// POSIX: the first of these that is set and not empty names the locale.
fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_what_can_be_drawn() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            }
        };
        assert!(speaks_utf8(with(&[("LANG", "de_DE.UTF-8")])));
        assert!(speaks_utf8(with(&[
            ("LC_ALL", ""),
            ("LC_CTYPE", "C.utf8"),
            ("LANG", "C")
        ])));
        assert!(!speaks_utf8(with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")])));
        assert!(!speaks_utf8(with(&[])), "a container rarely says");
    }

    #[test]
    fn frames_have_a_least_interval() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert!(interval("1ms").is_err());
    }
}
