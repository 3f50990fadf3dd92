//! `headroom record`: attach, and write down what happens.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use jiff::{Timestamp, ZonedDateTime};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use crate::cli::alert::AlertArgs;
use crate::cli::attach::{self, AttachArgs, Signals, StackArgs};
use crate::cli::exit::{ExitError, Status};
use crate::cli::protect;
use crate::cli::say::say;
use crate::cli::time::duration;
use crate::collect::{self, Chain, EventSink};
use crate::node::privileges::Children;
use crate::probe::boot_ns;
use crate::recording::event::{Body, Event};
use crate::recording::{Overwrite, WriteError, Writer};
use crate::schedule::{self, Daily, Window};
use crate::status::StatusLine;

/// How long recording goes on after the kill: the kernel's report, and what the kill gave back.
pub const AFTER_OOM: Duration = Duration::from_secs(2);

/// Record what VM pods charge, until Ctrl-C, a duration, a kill or the end of a command
///
/// Without TARGET every VM pod of the node is watched, also those that start later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom record                                   every VM pod, until Ctrl-C
  headroom record default/vm1 --until-oom -o vm1.jsonl.zst
  headroom record --duration 2h                     a backup that runs now
  headroom record --window 22:00-02:00              one that runs at night
  headroom record default/vm1 --stacks              with the code paths that overhead comes from
  headroom record --alert-eta 5m --on-alert 'logger -t headroom a VM runs out of headroom'")]
pub struct Args {
    #[command(flatten)]
    attach: AttachArgs,
    /// Write to this file instead of headroom-HOST-TIME.jsonl.zst
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the output file
    #[arg(long)]
    force: bool,
    /// Stop after this time, as in 90s, 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Record within this window of the day: wait for it where it is not now, and stop at its end. Nothing is attached
    /// before and after. Times are of this system's time zone, or of TZ, such as Europe/Berlin
    #[arg(long, value_name = "HH:MM-HH:MM[,TZ]", conflicts_with = "at")]
    window: Option<Window>,
    /// Attach at this time of day, today or tomorrow
    #[arg(long, value_name = "HH:MM[,TZ]")]
    at: Option<Daily>,
    /// Stop 2 s after the kernel has killed in a watched pod
    #[arg(long)]
    until_oom: bool,
    #[command(flatten)]
    stacks: StackArgs,
    #[command(flatten)]
    alerts: AlertArgs,
    /// Run the command behind `--` and stop with it
    #[arg(long = "command", requires = "argv")]
    run_command: bool,
    /// Command and its arguments
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<OsString>,
}

/// Attaches and records.
///
/// # Errors
/// Exit status 3 when this node cannot be traced, 4 when a target is not there, 1 when the recording cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    attach::runtime()?.block_on(record(args))
}

async fn record(args: &Args) -> anyhow::Result<()> {
    let alerting = args.alerts.check()?;
    let mut signals = Signals::catch()?;
    let (begin, end) = times(args)?;
    let path = args.output.clone().unwrap_or_else(|| {
        let at = begin.as_ref().map_or_else(Timestamp::now, ZonedDateTime::timestamp);
        default_path(&args.attach.host(), at)
    });
    if let Some(said) = wait(args, begin, &path, &mut signals).await? {
        say(said);
        return Ok(());
    }
    let attached = args.attach.attach_with(args.stacks)?.foreseeing();
    let overwrite = if args.force {
        Overwrite::Replace
    } else {
        Overwrite::Refuse
    };
    let writer = Writer::create(&path, overwrite)?;
    let children = Children::of(args.run_command);
    let guarded = attached.guard(children)?;
    let mut signals = Signals::catch()?;
    let mut sinks = Chain::default();
    sinks.push(Recording(writer));
    sinks.push(StatusLine::new(std::io::stderr().is_terminal()));
    sinks.push(alerting.lookout()?);
    let (mut collector, wake) = guarded.collect(sinks)?;
    // Whoever started us (a backup script, the lab) waits for this line.
    say(format_args!("attached, recording to {}", path.display()));
    let mut child = start_command(args)?;
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    let stop = async {
        Ok(tokio::select! {
            said = signals.next() => End::new(said),
            () = until(deadline) => End::new("duration over"),
            () = until_time(end) => End::new("window over"),
            status = exit_of(&mut child) => End { said: "command ended", status: Some(status?) },
        })
    };
    let mut marks = attach::listen_for_marks();
    let end = collect::run(&mut collector, &wake, stop, |collector| {
        attach::put_marks(&mut marks, collector)?;
        let since_kill = collector
            .killed_ns()
            .map(|killed| Duration::from_nanos(boot_ns().saturating_sub(killed)));
        let killed = args.until_oom && since_kill.is_some_and(|since| since >= AFTER_OOM);
        Ok(match (killed, collector.all_gone()) {
            (true, _) => Some(End::new("oom")),
            (false, true) => Some(End::new("target gone")),
            (false, false) => None,
        })
    })
    .await?;
    collector.finish(end.said)?.finish()?;
    say(format_args!(
        "{}; read it with `headroom report {}`",
        end.said,
        path.display()
    ));
    command_status(end.status)
}

/// What ended a recording.
struct End {
    said: &'static str,
    /// How the command ended.
    status: Option<ExitStatus>,
}

impl End {
    const fn new(said: &'static str) -> Self {
        Self { said, status: None }
    }
}

/// When to begin, where that is not now, and when to end.
fn times(args: &Args) -> anyhow::Result<(Option<ZonedDateTime>, Option<Timestamp>)> {
    let now = Timestamp::now();
    if let Some(window) = &args.window {
        let found = window.next(now).context("this window never comes")?;
        return Ok((
            Some(found.start).filter(|start| start.timestamp() > now),
            Some(found.end.timestamp()),
        ));
    }
    let at = args.at.as_ref().map(|at| at.next(now).context("this time never comes"));
    Ok((at.transpose()?, None))
}

/// Waits until it is time; says what ended that early. What will stand in the way then is told now.
async fn wait(
    args: &Args,
    begin: Option<ZonedDateTime>,
    path: &Path,
    signals: &mut Signals,
) -> anyhow::Result<Option<&'static str>> {
    let Some(begin) = begin else { return Ok(None) };
    if !args.force && path.exists() {
        return Err(WriteError::Exists { path: path.to_owned() }.into());
    }
    drop(args.attach.attach_with(args.stacks)?);
    say(format_args!("waiting until {begin}; nothing is attached"));
    Ok(tokio::select! {
        said = signals.next() => Some(said),
        () = schedule::sleep_until(begin.timestamp()) => None,
    })
}

async fn until_time(end: Option<Timestamp>) {
    match end {
        Some(end) => schedule::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn exit_of(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

fn start_command(args: &Args) -> anyhow::Result<Option<Child>> {
    if !args.run_command {
        return Ok(None);
    }
    let [program, arguments @ ..] = args.argv.as_slice() else {
        return Err(ExitError::new(Status::Usage, "--command needs a command behind --").into());
    };
    let mut command = Command::new(program);
    protect::not(command.args(arguments).kill_on_drop(true).as_std_mut());
    Ok(Some(
        command
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?,
    ))
}

fn command_status(status: Option<ExitStatus>) -> anyhow::Result<()> {
    match status {
        Some(status) if !status.success() => Err(anyhow::anyhow!(
            "the command ended with {status}; its recording is whole"
        )),
        _ => Ok(()),
    }
}

fn default_path(host: &str, begin: Timestamp) -> PathBuf {
    let begin = begin.strftime("%Y%m%dT%H%M%SZ").to_string();
    PathBuf::from(format!("headroom-{host}-{begin}.jsonl.zst"))
}

/// Writes events down.
struct Recording(Writer<File>);

impl EventSink for Recording {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        Ok(self.0.push(event)?)
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<()> {
        Ok(self.0.tick(now_ns)?)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.0.finish()?)
    }
}

/// Shows a line a second where someone looks.
impl EventSink for StatusLine {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match event.body {
            Body::Header(_) => {}
            // It is told on a line of its own.
            Body::Alert(_) => self.clear(),
            _ => StatusLine::event(self, event),
        }
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.clear();
        Ok(())
    }
}
