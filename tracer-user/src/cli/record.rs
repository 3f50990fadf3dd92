//! `headroom record`: attach, and write down what happens.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::cli::doctor::kernel_release;
use crate::cli::exit::{ExitError, Status};
use crate::cli::{doctor, protect};
use crate::collect::{Collector, EventSink, Scope};
use crate::node::target::Target;
use crate::node::{CgroupVersion, Node};
use crate::probe::{BackendChoice, Options, Tracer, boot_ns};
use crate::recording::event::{Body, Event, FORMAT, Header};
use crate::recording::{Overwrite, Writer};
use crate::status::StatusLine;
use crate::units::Bytes;

/// How often the ring buffer is emptied. Charge records do not wake anyone: waking costs the thread that charges.
const DRAIN: Duration = Duration::from_millis(25);
/// How long recording goes on after the kill: the kernel's report, and what the kill gave back.
const AFTER_OOM: Duration = Duration::from_secs(2);

/// Record what VM pods charge, until Ctrl-C, a duration, a kill or the end of a command
///
/// Without TARGET every VM pod of the node is watched, also those that start later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom record                                   every VM pod, until Ctrl-C
  headroom record default/vm1 --until-oom -o vm1.jsonl.zst
  headroom record --duration 2h                     a backup window")]
pub struct Args {
    /// NAMESPACE/VM, VM name, pod uid, pid:N or cgroup:/path
    targets: Vec<String>,
    /// Write to this file instead of headroom-HOST-TIME.jsonl.zst
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the output file
    #[arg(long)]
    force: bool,
    /// Stop after this time, as in 90s, 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop 2 s after the kernel has killed in a watched pod
    #[arg(long)]
    until_oom: bool,
    /// Run the command behind `--` and stop with it
    #[arg(long = "command", requires = "argv")]
    run_command: bool,
    /// Count charges with this backend alone
    #[arg(long, value_enum, default_value_t)]
    backend: BackendChoice,
    /// Bytes that a thread charges before it is written down; what is less follows within a second
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    granularity: Bytes,
    /// Stay as likely to be killed as before, instead of being protected from the OOM killer
    #[arg(long)]
    no_protect: bool,
    /// Size of the ring buffer, a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", hide = true)]
    ring: Bytes,
    /// Command and its arguments
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<OsString>,
}

/// Attaches and records.
///
/// # Errors
/// Exit status 3 when this node cannot be traced, 4 when a target is not there, 1 when the recording cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(record(args))
}

async fn record(args: &Args) -> anyhow::Result<()> {
    let unsupported = |reason: String| ExitError::new(Status::Unsupported, format!("cannot trace here: {reason}"));
    let node = Node::new(Path::new("/")).map_err(|error| unsupported(error.to_string()))?;
    let scope = scope(&node, &args.targets)?;
    let options = Options {
        backend: args.backend,
        granularity: args.granularity.0.max(1),
        ring_bytes: ring_bytes(args)?,
        cgroup_v1: node.hierarchy().version == CgroupVersion::V1,
    };
    let path = args.output.clone().unwrap_or_else(default_path);
    let tracer = Tracer::attach(Path::new("/"), options).map_err(|error| unsupported(doctor::reason(&error)))?;
    let overwrite = if args.force {
        Overwrite::Replace
    } else {
        Overwrite::Refuse
    };
    let writer = Writer::create(&path, overwrite)?;
    if !args.no_protect {
        protect::from_oom_killer();
    }
    // SAFETY: the descriptor is owned by the AsyncFd, and nothing else closes it.
    let wake = unsafe { AsyncFd::register(tracer.wake_fd()?) }.context("cannot wait for the ring buffer")?;
    let header = header(&node, &tracer, options);
    let sink = Sink {
        writer,
        status: StatusLine::new(std::io::stderr().is_terminal()),
    };
    let collector = Collector::start(node, tracer, scope, header, sink)?;
    // Whoever started us (a backup script, the lab) waits for this line.
    eprintln!("headroom: attached, recording to {}", path.display());
    let child = start_command(args)?;
    let (collector, ended, status) = follow(args, collector, wake, child).await?;
    let mut sink = collector.finish(ended)?;
    sink.writer.finish()?;
    sink.status.clear();
    eprintln!("headroom: {ended}; read it with `headroom report {}`", path.display());
    command_status(status)
}

/// Ticks until something ends the recording: says what it was.
async fn follow(
    args: &Args,
    mut collector: Collector<Sink>,
    wake: AsyncFd<OwnedFd>,
    mut child: Option<Child>,
) -> anyhow::Result<(Collector<Sink>, &'static str, Option<ExitStatus>)> {
    let mut ticks = interval(DRAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            ready = wake.readable() => ready?.clear_ready(),
            _ = interrupt.recv() => return Ok((collector, "interrupted", None)),
            _ = terminate.recv() => return Ok((collector, "terminated", None)),
            _ = hangup.recv() => return Ok((collector, "terminal closed", None)),
            () = until(deadline) => return Ok((collector, "duration over", None)),
            status = exit_of(&mut child) => return Ok((collector, "command ended", Some(status?))),
        }
        collector.tick()?;
        collector.sink().writer.tick(boot_ns())?;
        let since_kill = collector
            .killed_ns()
            .map(|killed| Duration::from_nanos(boot_ns().saturating_sub(killed)));
        if args.until_oom && since_kill.is_some_and(|since| since >= AFTER_OOM) {
            return Ok((collector, "oom", None));
        }
        if collector.all_gone() {
            return Ok((collector, "target gone", None));
        }
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
    let child = Command::new(program).args(arguments).kill_on_drop(true).spawn();
    Ok(Some(
        child.with_context(|| format!("cannot run {}", program.display()))?,
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

fn scope(node: &Node, targets: &[String]) -> anyhow::Result<Scope> {
    if targets.is_empty() {
        return Ok(Scope::All);
    }
    let targets = targets
        .iter()
        .map(|target| target.parse())
        .collect::<Result<Vec<Target>, _>>();
    let targets = targets.map_err(|error| ExitError::new(Status::Usage, error.to_string()))?;
    let pods = node
        .resolve(&targets)
        .map_err(|error| ExitError::new(Status::NotFound, error.to_string()))?;
    Ok(Scope::Pods(pods))
}

fn ring_bytes(args: &Args) -> anyhow::Result<u32> {
    u32::try_from(args.ring.0)
        .ok()
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= 4096)
        .ok_or_else(|| ExitError::new(Status::Usage, "--ring must be a power of two from 4KiB to 2GiB").into())
}

fn host() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.nodename().to_string_lossy().into_owned(),
    )
}

fn default_path() -> PathBuf {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    PathBuf::from(format!("headroom-{}-{now}.jsonl.zst", host()))
}

fn header(node: &Node, tracer: &Tracer, options: Options) -> Header {
    let since_epoch = Timestamp::now().as_nanosecond();
    let boot_unix_ns = since_epoch - i128::from(boot_ns());
    Header {
        format: FORMAT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        kernel: kernel_release(),
        cgroup: node.hierarchy().version.to_string(),
        boot_unix_ns: u64::try_from(boot_unix_ns).unwrap_or(0),
        backends: tracer.backends(),
        granularity: options.granularity,
        page_size: crate::probe::page_size(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        forecasts: false,
    }
}

/// Writes events, and shows a line a second where someone looks.
struct Sink {
    writer: Writer<File>,
    status: StatusLine,
}

impl EventSink for Sink {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if !matches!(event.body, Body::Header(_)) {
            self.status.event(event);
        }
        Ok(self.writer.push(event)?)
    }
}

/// A duration as people write it: `90s`, `15m`, `2h`, `1h30m`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("'{text}' is not a time: write it as 90s, 15m or 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("20"), Ok(Duration::from_secs(20)));
        assert!(duration("-5s").is_err());
        assert!(duration("soon").is_err());
    }
}
