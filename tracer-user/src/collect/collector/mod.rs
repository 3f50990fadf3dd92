//! The loop's body: what happens at each tick, in the order that keeps the recording exact.

mod records;
mod walk;

use tracer_common::Account;

use super::accounts::Accounts;
use super::departures::Departures;
use super::files::top_files;
use super::kills::Kills;
use super::live::Holdings;
use super::losses::Losses;
use super::names::{Names, Pods};
use super::sink::EventSink;
use super::stacks::Stacks;
use super::targets::{KillFiles, Scope, Targets};
use crate::node::Node;
use crate::node::kmsg::{KernelLog, last_oom_report};
use crate::probe::{ProbeError, Tracer, boot_ns};
use crate::recording::event::{Body, Event, Footer, Header, Mark};
use crate::symbols::Symbols;

/// How often the kernel's own figures are sampled.
const SAMPLE_NS: u64 = 1_000_000_000;

/// Why collecting stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The kernel side.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No thread for symbols.
    #[error("cannot start a thread for symbols: {0}")]
    Symbols(std::io::Error),
    /// The sink.
    #[error(transparent)]
    Sink(#[from] anyhow::Error),
}

/// Turns records and node facts into events.
pub struct Collector<S> {
    node: Node,
    tracer: Tracer,
    targets: Targets,
    accounts: Accounts,
    holdings: Holdings,
    names: Names,
    kills: Kills,
    sink: S,
    departures: Departures,
    /// Nothing is traced any more.
    detached: bool,
    /// Memcgs that were watched no more when the accounts were last read.
    leaving: Vec<u64>,
    losses: Losses,
    last_sample_ns: u64,
    next_walk_ns: u64,
    last_walk_ns: u64,
    killed_ns: Option<u64>,
    granularity: u64,
    kernel_log: Option<KernelLog>,
    /// What happened after a kill that is not announced yet.
    held: Vec<Event>,
    /// A program was started in a watched memcg: the pods are looked at without waiting.
    programs_started: bool,
    /// What the memcgs showed right after kills.
    kill_files: Vec<KillFiles>,
    /// Stacks of charges, where they are sampled.
    stacks: Option<Stacks>,
}

impl<S: EventSink> Collector<S> {
    /// A collector over an attached tracer. Writes the header, looks at the targets and takes the first samples.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn start(node: Node, tracer: Tracer, scope: Scope, header: Header, sink: S) -> Result<Self, CollectError> {
        let now = boot_ns();
        let kernel_log = KernelLog::at_end(&node);
        if let Err(error) = &kernel_log {
            let missing = match error.kind() {
                std::io::ErrorKind::PermissionDenied => " (CAP_SYSLOG is missing, or a container may not use it)",
                _ => "",
            };
            log::warn!("kills come without the kernel's own report: /dev/kmsg: {error}{missing}");
        }
        let stacks = tracer.samples_stacks().then(|| Symbols::start(node.clone()));
        let stacks = stacks.transpose().map_err(CollectError::Symbols)?;
        let mut this = Self {
            stacks: stacks.map(|symbols| Stacks::new(header.granularity, symbols)),
            node,
            tracer,
            targets: Targets::new(scope),
            accounts: Accounts::default(),
            holdings: Holdings::default(),
            names: Names::new(now),
            kills: Kills::default(),
            sink,
            departures: Departures::default(),
            detached: false,
            leaving: Vec::new(),
            losses: Losses::default(),
            last_sample_ns: 0,
            next_walk_ns: now,
            last_walk_ns: now,
            killed_ns: None,
            granularity: header.granularity,
            kernel_log: kernel_log.ok(),
            held: Vec::new(),
            programs_started: false,
            kill_files: Vec::new(),
        };
        this.emit(now, Body::Header(header))?;
        this.losses = Losses::attached(&this.tracer)?;
        this.sample(boot_ns())?;
        Ok(this)
    }

    /// The sink.
    pub const fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// When the last kill in a watched pod was seen.
    #[must_use]
    pub const fn killed_ns(&self) -> Option<u64> {
        self.killed_ns
    }

    /// Whether every given target is gone.
    #[must_use]
    pub fn all_gone(&self) -> bool {
        self.targets.all_gone()
    }

    /// Everything that is due: records, accounts, targets, samples, kills. To be called every 20 to 50 ms.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn tick(&mut self) -> Result<(), CollectError> {
        self.drain()?;
        let now = boot_ns();
        if std::mem::take(&mut self.programs_started) || (self.targets.incomplete() && now >= self.next_walk_ns) {
            self.refresh(now)?;
        }
        if now.saturating_sub(self.last_sample_ns) >= SAMPLE_NS {
            self.sample(now)?;
        } else if now >= self.next_walk_ns {
            self.walk()?;
        }
        self.announce_kills(now)
    }

    /// Puts a mark into the recording, between two samples, so that what was charged before it is told from what was charged
    /// after it. False when none of these memcgs is watched; without any, it concerns every pod.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn mark(&mut self, text: &str, memcgs: &[u64]) -> Result<bool, CollectError> {
        let by_memcg = self.targets.by_memcg();
        let pod = memcgs.iter().find_map(|memcg| by_memcg.get(memcg).copied());
        if pod.is_none() && !memcgs.is_empty() {
            return Ok(false);
        }
        self.sample(boot_ns())?;
        self.bound_stacks(boot_ns());
        let text = text.to_owned();
        self.emit(boot_ns(), Body::Mark(Mark { text, pod }))?;
        self.sample(boot_ns())?;
        Ok(true)
    }

    /// The footer that would stand here if recording ended now, with the last accounts and figures emitted before it.
    /// `None` while a kill waits to be announced: what happened since is not emitted yet.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn checkpoint(&mut self, ended: &str) -> Result<Option<Footer>, CollectError> {
        let accounts = self.sample(boot_ns())?;
        if self.kills.any_waiting() {
            return Ok(None);
        }
        Ok(Some(self.footer(&accounts, ended)))
    }

    fn footer(&self, accounts: &[(u32, Account)], ended: &str) -> Footer {
        let accounts = accounts.iter().map(|(_, account)| account);
        let in_map = accounts.map(|account| (account.key, account.charged, account.uncharged));
        Footer {
            totals: self.accounts.totals(in_map),
            loss: self.losses.told(),
            files: top_files(&self.node, &self.tracer, &self.targets),
            ended: ended.to_owned(),
        }
    }

    /// Whether a kill waits to be announced.
    #[must_use]
    pub fn kill_pending(&self) -> bool {
        self.kills.any_waiting()
    }

    /// Takes what the memcgs of kills showed right after them.
    pub fn take_kill_files(&mut self) -> Vec<KillFiles> {
        std::mem::take(&mut self.kill_files)
    }

    /// Detaches, reads the maps once more, and closes with the footer.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn finish(mut self, ended: &str) -> Result<S, CollectError> {
        self.sample(boot_ns())?;
        self.tracer.detach();
        self.detached = true;
        self.losses.look_at_programs(&self.tracer);
        self.drain()?;
        self.walk()?;
        self.tell_holdings(boot_ns())?;
        self.announce_kills(u64::MAX)?;
        self.emit_stacks(Stacks::last_events)?;
        self.update_loss()?;
        let accounts = self.tracer.accounts();
        let footer = self.footer(&accounts, ended);
        self.emit(boot_ns(), Body::Footer(footer))?;
        Ok(self.sink)
    }

    /// Hands an event on; while a kill waits for the kernel's report, behind that kill.
    fn emit(&mut self, t: u64, body: Body) -> Result<(), CollectError> {
        let event = Event { t, body };
        if self.kills.any_waiting() {
            self.held.push(event);
            return Ok(());
        }
        Ok(self.sink.event(&event)?)
    }

    /// Looks at the pods again.
    fn refresh(&mut self, now: u64) -> Result<(), CollectError> {
        for pod in self.targets.refresh(&self.node, &mut self.tracer)? {
            self.emit(now, Body::Pod(pod))?;
        }
        let mut events = Vec::new();
        let pods = Pods(self.targets.by_memcg());
        for (pid, comm, memcg) in self.targets.members() {
            self.names.process(&self.node, &pods, pid, comm, memcg, &mut events);
        }
        for body in events {
            self.emit(now, body)?;
        }
        Ok(())
    }

    /// The accounts, then the kernel's own figures, as close to each other as can be.
    fn sample(&mut self, now: u64) -> Result<Vec<(u32, Account)>, CollectError> {
        self.refresh(now)?;
        self.losses.look_at_programs(&self.tracer);
        self.drain()?;
        let accounts = self.walk()?;
        let began = boot_ns();
        self.tell_holdings(began)?;
        for (t, sample) in self.targets.samples(&self.node) {
            self.emit(t, Body::Sample(sample))?;
        }
        self.last_sample_ns = began;
        Ok(accounts)
    }

    fn announce_kills(&mut self, now: u64) -> Result<(), CollectError> {
        for event in self.kills.ready(now) {
            self.killed_ns = Some(event.t);
            let report = self.kernel_report();
            self.sink.event(&with_report(event, report))?;
        }
        if !self.kills.any_waiting() {
            for event in std::mem::take(&mut self.held) {
                self.sink.event(&event)?;
            }
        }
        Ok(())
    }

    /// What the kernel printed about the last kill; empty where its log is not readable.
    fn kernel_report(&mut self) -> Vec<String> {
        let Some(log) = &mut self.kernel_log else {
            return Vec::new();
        };
        match log.read_new() {
            Ok(records) => last_oom_report(&records),
            Err(error) => {
                log::warn!("cannot read the kernel's log: {error}");
                Vec::new()
            }
        }
    }
}

fn with_report(mut event: Event, report: Vec<String>) -> Event {
    if let Body::Oom(oom) = &mut event.body {
        oom.kernel_report = report;
    }
    event
}
