//! `headroom watch`: for as long as the node runs, an incident folder at each kill or alert.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use crate::cli::alert::AlertArgs;
use crate::cli::attach::{self, AttachArgs, Guarded, Signals};
use crate::cli::exit::{ExitError, Status};
use crate::cli::say::say;
use crate::cli::time::duration;
use crate::collect::{self, Chain, Collector, EventSink};
use crate::incident::{Clerk, Store, Watcher};
use crate::metrics::{Exchange, Meter, Server};
use crate::node::Node;
use crate::node::privileges::Children;
use crate::probe::boot_ns;
use crate::recording::event::Event;
use crate::recording::flight::Limits;
use crate::schedule::{self, Window};
use crate::units::Bytes;

/// Least memory for the flight recorder: some seconds of a storm.
const LEAST_MEMORY: u64 = 1 << 20;
/// Least room on disk beyond a recording: for its reports.
const LEAST_REPORTS: u64 = 8 << 20;

/// Keep the last minutes in memory, and write an incident folder at each kill or alert
///
/// Without TARGET every VM pod of the node is watched, also those that start later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom watch -o /var/lib/headroom/incidents
  headroom watch default/vm1 --keep 1h --memory 256MiB
  headroom watch --listen 9769
  headroom watch --window 22:00-02:00,Europe/Berlin
  headroom watch --alert-eta 5m --alert-headroom 64MiB --on-alert /usr/local/bin/tell-the-pager")]
pub struct Args {
    #[command(flatten)]
    attach: AttachArgs,
    /// Folder for incident folders, made where it is not there
    #[arg(short, long, value_name = "DIR", default_value = "headroom-incidents")]
    output: PathBuf,
    /// How much of the past an incident holds, as in 90s, 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15m")]
    keep: Duration,
    /// Watch within this window of every day only; in between nothing is attached. Times are of this system's time zone, or
    /// of TZ, such as Europe/Berlin
    #[arg(long, value_name = "HH:MM-HH:MM[,TZ]")]
    window: Option<Window>,
    /// Memory for that at most; when it is used up, less than --keep is held
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    memory: Bytes,
    /// Disk space for all incidents at most; the oldest go first
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    max_disk: Bytes,
    /// Answer Prometheus at PORT of this node alone, or at IP:PORT for others; /metrics and /healthz
    ///
    /// Names of VMs and processes are in the metrics: beyond this node, have only who may know them reach the address.
    #[arg(long, value_name = "[IP:]PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    alerts: AlertArgs,
}

/// `9769` is of the loopback device; other devices have to be named.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse()
        .map_err(|_| "write a port, as in 9769, or an address of this node and a port, as in 192.0.2.1:9769".to_owned())
}

/// Starts to answer, with the sink that knows what.
fn listen(address: SocketAddr, sinks: &mut Chain) -> anyhow::Result<Server> {
    let exchange = Arc::new(Exchange::default());
    let server = Server::start(address, Arc::clone(&exchange)).with_context(|| not_listening(address))?;
    sinks.push(Meter::new(exchange));
    say(format_args!("metrics at http://{}/metrics", server.address()));
    if !server.address().ip().is_loopback() {
        say("whoever reaches this address reads the names of this node's VMs and processes");
    }
    Ok(server)
}

fn not_listening(address: SocketAddr) -> String {
    format!("cannot listen at {address}")
}

/// Watches until a signal comes.
///
/// # Errors
/// Exit status 3 when this node cannot be traced, 4 when a target is not there, 1 when the folder cannot be used.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let limits = limits(args)?;
    attach::runtime()?.block_on(watch(args, limits))
}

fn limits(args: &Args) -> anyhow::Result<Limits> {
    let usage = |message: String| -> anyhow::Error { ExitError::new(Status::Usage, message).into() };
    if args.memory.0 < LEAST_MEMORY {
        return Err(usage(format!("--memory must be at least {}", Bytes(LEAST_MEMORY))));
    }
    let least_disk = args.memory.0.saturating_add(LEAST_REPORTS);
    if args.max_disk.0 < least_disk {
        let message = format!(
            "--max-disk must be at least {} more than --memory: an incident's recording may take all of that",
            Bytes(LEAST_REPORTS)
        );
        return Err(usage(message));
    }
    Ok(Limits {
        keep_ns: u64::try_from(args.keep.as_nanos()).unwrap_or(u64::MAX),
        memory: usize::try_from(args.memory.0).unwrap_or(usize::MAX),
    })
}

async fn watch(args: &Args, limits: Limits) -> anyhow::Result<()> {
    // What stands in the way is told now, not when the window begins.
    args.alerts.check()?;
    if let Some(address) = args.listen {
        TcpListener::bind(address).with_context(|| not_listening(address))?;
    }
    let attached = args.attach.attach_following()?.foreseeing();
    let store = Store::open(&args.output, args.max_disk.0)?;
    let guarded = match args.window {
        None => attached.guard(Children::Nothing)?,
        Some(_) => attached.guard_to_attach_again(Children::Nothing)?,
    };
    store.check_writable()?;
    let clerk = Clerk::start(store, Node::new("/".as_ref())?).context("cannot start a thread")?;
    let mut watching = Watching {
        args,
        limits,
        clerk,
        signals: Signals::catch()?,
    };
    let ended = match &args.window {
        Some(window) => watching.windows(window, guarded).await?,
        None => watching.session(guarded, None).await?,
    };
    watching.clerk.finish();
    say(ended);
    Ok(())
}

/// What a window ends with.
const WINDOW_OVER: &str = "window over";

/// A `watch` under way.
struct Watching<'a> {
    args: &'a Args,
    limits: Limits,
    clerk: Clerk,
    signals: Signals,
}

impl Watching<'_> {
    /// Watches in each window, until a signal comes. In between nothing is attached.
    async fn windows(&mut self, window: &Window, attached: Guarded) -> anyhow::Result<&'static str> {
        let mut attached = Some(attached);
        loop {
            let now = Timestamp::now();
            let found = window.next(now).context("this window never comes")?;
            if found.start.timestamp() > now {
                attached = None;
                say(format_args!("waiting until {}; nothing is attached", found.start));
                if let Some(said) = self.sleep_until(found.start.timestamp()).await {
                    return Ok(said);
                }
            }
            let ready = match attached.take() {
                Some(attached) => Ok(attached),
                None => self
                    .args
                    .attach
                    .attach_following()
                    .map(|attached| attached.foreseeing().guarded_already()),
            };
            let end = found.end.timestamp();
            match ready {
                Ok(attached) => {
                    let ended = self.session(attached, Some(end)).await?;
                    if ended != WINDOW_OVER {
                        return Ok(ended);
                    }
                }
                // Its VM may be there when the next one begins.
                Err(error) => {
                    say(format_args!("nothing is watched in this window: {error:#}"));
                    if let Some(said) = self.sleep_until(end).await {
                        return Ok(said);
                    }
                }
            }
        }
    }

    /// Sleeps; says what ended that early.
    async fn sleep_until(&mut self, at: Timestamp) -> Option<&'static str> {
        tokio::select! {
            said = self.signals.next() => Some(said),
            () = schedule::sleep_until(at) => None,
        }
    }

    /// Watches until a signal comes, or until then; says which.
    async fn session(&mut self, attached: Guarded, until: Option<Timestamp>) -> anyhow::Result<&'static str> {
        let Self {
            args,
            limits,
            clerk,
            signals,
        } = self;
        let mut others = Chain::default();
        others.push(args.alerts.check()?.lookout()?);
        // It stops answering when it is dropped, at the end.
        let _server = args.listen.map(|address| listen(address, &mut others)).transpose()?;
        let sinks = Sinks {
            watcher: Watcher::new(*limits)?,
            others,
        };
        let (mut collector, wake) = attached.collect(sinks)?;
        say(format_args!(
            "attached, watching; incidents go to {}",
            args.output.display()
        ));
        let stop = async {
            Ok(tokio::select! {
                said = signals.next() => said,
                () = until_time(until) => WINDOW_OVER,
            })
        };
        let mut marks = attach::listen_for_marks();
        let ended = collect::run(&mut collector, &wake, stop, |collector| {
            attach::put_marks(&mut marks, collector)?;
            write_due(collector, clerk, boot_ns())?;
            Ok(None)
        })
        .await?;
        // A kill of the last seconds is told with what there is.
        for _ in 0..ATTEMPTS {
            if write_due(&mut collector, clerk, u64::MAX)? {
                break;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            collector.tick()?;
        }
        collector.finish(ended)?.finish()?;
        if ended == WINDOW_OVER {
            say("window over; detached");
        }
        Ok(ended)
    }
}

async fn until_time(end: Option<Timestamp>) {
    match end {
        Some(end) => schedule::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// A kill waits 0.3 s for the kernel's report before it is announced.
const ATTEMPTS: usize = 40;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(25);

/// Writes the incidents that are due at this time. False when that has to wait.
fn write_due(collector: &mut Collector<Sinks>, clerk: &Clerk, now_ns: u64) -> anyhow::Result<bool> {
    let files = collector.take_kill_files();
    let watcher = &mut collector.sink().watcher;
    watcher.kill_files(files);
    if !watcher.is_due(now_ns) {
        return Ok(!collector.kill_pending());
    }
    let Some(footer) = collector.checkpoint("incident")? else {
        return Ok(false);
    };
    for incident in collector.sink().watcher.take_due(now_ns, boot_ns(), &footer)? {
        clerk.write(incident);
    }
    Ok(true)
}

/// The flight recorder and whatever else listens.
struct Sinks {
    watcher: Watcher,
    others: Chain,
}

impl Sinks {
    /// What the others made of it is part of the story.
    fn hand_on(&mut self) -> anyhow::Result<()> {
        let made = self.others.made();
        made.iter().try_for_each(|event| self.watcher.event(event))
    }
}

impl EventSink for Sinks {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.watcher.event(event)?;
        self.others.event(event)?;
        self.hand_on()
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<()> {
        self.watcher.tick(now_ns)?;
        self.others.tick(now_ns)?;
        self.hand_on()
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.others.finish()
    }
}
