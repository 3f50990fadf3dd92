//! `headroom top`: who grows now, full screen.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::cli::attach::{self, AttachArgs, Signals};
use crate::cli::exit::{ExitError, Status};
use crate::cli::report::not_read;
use crate::cli::time::duration;
use crate::node::privileges::Children;
use crate::recording::State;
use crate::top::replay::Player;
use crate::top::{Feed, Session, Theme, live, replay};

/// Drawing more often than this shows nothing new.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// Show who grows now, full screen, or play a recording
///
/// Without TARGET every VM pod is shown, also those that start later. Press ? for the keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom top                           every VM pod of this node
  headroom top default/vm1 --interval 5s
  headroom top vm1.jsonl.zst             play a recording, from its end")]
pub struct Args {
    #[command(flatten)]
    attach: AttachArgs,
    /// Time between two frames; keys are answered at once
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Draw with ASCII alone, as is done where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
}

/// Shows pods, or a recording.
///
/// # Errors
/// Exit status 3 when this node cannot be traced, 4 when a target is not there, 5 when the recording is damaged.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let recording = recording(args.attach.targets_given())?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        anyhow::bail!("top needs a terminal; `headroom record` and `headroom report` need none");
    }
    let theme = Theme {
        color: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        unicode: !args.ascii && speaks_utf8(|name| std::env::var(name).ok()),
    };
    match recording {
        Some(path) => attach::runtime()?.block_on(play(&path, args, theme)),
        None => attach::runtime()?.block_on(watch(args, theme)),
    }
}

async fn watch(args: &Args, theme: Theme) -> anyhow::Result<()> {
    let attached = args.attach.attach_following()?;
    let mut signals = Signals::catch()?;
    let (mut collector, wake) = attached.guard(Children::Nothing)?.collect(Feed::live())?;
    let mut session = Session::start(theme, args.interval, false).context("cannot use the terminal")?;
    let result = live(&mut session, &mut collector, &wake, signals.next()).await;
    // The terminal first: what goes wrong now is to be read there.
    drop(session);
    result
}

async fn play(path: &Path, args: &Args, theme: Theme) -> anyhow::Result<()> {
    let mut player = Player::open(path).map_err(|error| not_read(path, &error))?;
    let mut signals = Signals::catch()?;
    let mut session = Session::start(theme, args.interval, true).context("cannot use the terminal")?;
    let result = tokio::select! {
        result = replay(&mut session, &mut player) => result,
        _ = signals.next() => Ok(()),
    };
    drop(session);
    result?;
    if player.state() == State::Damaged {
        let message = format!("damaged, what could be read was shown: {}", path.display());
        return Err(ExitError::new(Status::Damaged, message).into());
    }
    Ok(())
}

/// The recording, if what was given is one: a file of this name, or one that can only be.
fn recording(targets: &[String]) -> anyhow::Result<Option<PathBuf>> {
    let is_file = |target: &String| Path::new(target).is_file() || target.ends_with(".jsonl.zst");
    match targets {
        [target] if is_file(target) => Ok(Some(PathBuf::from(target))),
        targets => match targets.iter().find(|target| is_file(target)) {
            Some(file) => Err(ExitError::new(
                Status::Usage,
                format!("{file} is a recording: it is shown alone, without other targets"),
            )
            .into()),
            None => Ok(None),
        },
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
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
    fn a_recording_is_told_from_a_target() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().display().to_string();
        assert_eq!(recording(std::slice::from_ref(&path))?, Some(file.path().to_owned()));
        assert_eq!(recording(&["default/vm1".to_owned()])?, None);
        assert_eq!(
            recording(&["gone.jsonl.zst".to_owned()])?,
            Some("gone.jsonl.zst".into())
        );
        assert!(recording(&[path, "vm1".to_owned()]).is_err());
        Ok(())
    }

    #[test]
    fn frames_have_a_least_interval() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert!(interval("1ms").is_err());
    }
}
