//! The loop's body: what happens at each tick, in the order that keeps the recording exact.

use std::collections::{HashMap, HashSet};

use tracer_common::{AccountKey, AccountTotals, Kind, OVERFLOW_TID};

use super::accounts::Accounts;
use super::departures::{Comm, Departures, ThreadKey};
use super::files::top_files;
use super::kills::Kills;
use super::latest::latest;
use super::live::Holdings;
use super::losses::Losses;
use super::names::{Names, Pods, Seen, is_alive};
use super::sink::EventSink;
use super::stacks::Stacks;
use super::targets::{KillFiles, Scope, Targets};
use crate::node::Node;
use crate::node::kmsg::{KernelLog, last_oom_report};
use crate::probe::{ProbeError, Record, StackSample, Tracer, boot_ns};
use crate::recording::event::{Body, Event, Footer, Header, Mark, Reclaim};
use crate::symbols::Symbols;

/// Reading the map may take this share of the time between two readings: 1%.
const WALK_SHARE: u64 = 100;
/// Accounts are read at least this far apart: what has not filled a record shows after that.
const WALK_NS: u64 = 100_000_000;
/// Kinds whose charges are charges only. On the tracepoint backend page cache and kernel memory also count as charged
/// what moves out of their named parts when those are given back.
const PURE_KINDS: [u8; 2] = [Kind::Anon as u8, Kind::Shmem as u8];
/// How often the kernel's own figures are sampled.
const SAMPLE_NS: u64 = 1_000_000_000;
/// Kills whose files are kept until somebody takes them.
const MAX_KILL_FILES: usize = 16;

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
        Ok(Some(self.footer(accounts.iter(), ended)))
    }

    fn footer<'a>(&self, accounts: impl Iterator<Item = &'a (AccountKey, AccountTotals)>, ended: &str) -> Footer {
        let in_map = accounts.map(|(key, totals)| (*key, totals.charged, totals.uncharged));
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
        let accounts = self.tracer.accounts()?;
        let footer = self.footer(accounts.iter(), ended);
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

    /// Takes what is in the ring buffer.
    fn drain(&mut self) -> Result<(), CollectError> {
        let mut records = Vec::new();
        self.tracer.drain(|record| records.push(record));
        latest(&mut records);
        records.into_iter().try_for_each(|record| self.take(record))?;
        self.drain_stacks()
    }

    /// Takes what is in the ring buffer of stacks. Where none are sampled it is empty.
    fn drain_stacks(&mut self) -> Result<(), CollectError> {
        if self.stacks.is_none() {
            return Ok(());
        }
        let mut samples = Vec::new();
        self.tracer.drain_stacks(|sample| samples.push(sample));
        samples.into_iter().try_for_each(|sample| self.take_stack(sample))
    }

    fn take_stack(&mut self, sample: StackSample) -> Result<(), CollectError> {
        let (t, key) = (sample.t, sample.account);
        let seen = Seen {
            tid: key.tid,
            tgid: sample.tgid,
            start_ns: key.start_ns,
            memcg: key.memcg,
            comm: sample.comm,
        };
        let taken = self.stacks.as_mut().is_some_and(|stacks| stacks.take(sample));
        if taken && key.tid != OVERFLOW_TID {
            self.name(t, &seen)?;
        }
        Ok(())
    }

    /// Emits what there is of stacks.
    fn emit_stacks(&mut self, events: impl FnOnce(&mut Stacks) -> Vec<Event>) -> Result<(), CollectError> {
        let events = self.stacks.as_mut().map_or_else(Vec::new, events);
        events.into_iter().try_for_each(|event| self.emit(event.t, event.body))
    }

    /// What was charged up to now is not added to what is charged later.
    fn bound_stacks(&mut self, t: u64) {
        if let Some(stacks) = &mut self.stacks {
            stacks.bound(t);
        }
    }

    /// A process's addresses mean something else from now on.
    fn forget_code(&mut self, tgid: u32) {
        if let Some(stacks) = &mut self.stacks {
            stacks.forget_process(tgid);
        }
    }

    fn take(&mut self, record: Record) -> Result<(), CollectError> {
        match record {
            Record::Charge(charge, ..) => {
                let key = charge.account;
                let seen = Seen {
                    tid: key.tid,
                    tgid: charge.tgid,
                    start_ns: key.start_ns,
                    memcg: key.memcg,
                    comm: charge.comm,
                };
                self.charge(charge.t, &key, &seen, charge.charged, charge.uncharged)
            }
            Record::Reclaim(record) => {
                let seen = Seen {
                    tid: record.tid,
                    tgid: record.tgid,
                    start_ns: record.start_ns,
                    memcg: record.memcg,
                    comm: record.comm,
                };
                self.name(record.t, &seen)?;
                let body = Body::Reclaim(Reclaim {
                    memcg: record.memcg,
                    tid: record.tid,
                    start_ns: record.start_ns,
                    duration_ns: record.duration_ns,
                    pages: record.reclaimed_pages,
                    order: record.order,
                });
                self.emit(record.t, body)
            }
            Record::Oom(record) => {
                self.bound_stacks(record.t);
                self.kills.control(record);
                Ok(())
            }
            Record::Victim(record) => {
                self.bound_stacks(record.t);
                let pods = Pods(self.targets.by_memcg());
                if let Some(oom_memcg) = self.kills.victim(&self.names, &pods, &record) {
                    // At once: the victim's end changes them.
                    let read = self.targets.kill_files(record.t, oom_memcg, record.memcg);
                    self.kill_files.extend(read);
                    self.kill_files.truncate(MAX_KILL_FILES);
                }
                Ok(())
            }
            Record::Exit(record) => {
                if record.tid == record.tgid {
                    self.forget_code(record.tgid);
                }
                self.departures.exits((record.tid, record.start_ns), record.comm);
                Ok(())
            }
            Record::Rename(record) => {
                let seen = Seen {
                    tid: record.tid,
                    tgid: record.tgid,
                    start_ns: record.start_ns,
                    memcg: 0,
                    comm: record.comm,
                };
                self.name(record.t, &seen)
            }
            Record::Exec(record) => {
                self.names.forget_process(record.tgid);
                self.forget_code(record.tgid);
                self.programs_started = true;
                Ok(())
            }
        }
    }

    /// Emits what is new about a thread.
    fn name(&mut self, t: u64, seen: &Seen) -> Result<(), CollectError> {
        for body in self.names.thread(&self.node, &Pods(self.targets.by_memcg()), seen) {
            self.emit(t, body)?;
        }
        Ok(())
    }

    /// Emits what is new in an account.
    fn charge(
        &mut self,
        t: u64,
        key: &AccountKey,
        seen: &Seen,
        charged: u64,
        uncharged: u64,
    ) -> Result<(), CollectError> {
        let Some(charge) = self.accounts.update(key, charged, uncharged) else {
            return Ok(());
        };
        if key.tid != OVERFLOW_TID {
            self.name(t, seen)?;
        }
        self.emit(t, Body::Charge(charge))
    }

    /// Reads every account, and removes those of threads that are gone for good. Returns those that stay, as read.
    fn walk(&mut self) -> Result<Vec<(AccountKey, AccountTotals)>, CollectError> {
        let began = boot_ns();
        // In this order: a thread that is gone now puts no more records into the ring, so once that is drained the
        // map says all there will ever be of its accounts.
        let gone = self.gone_threads();
        let left = self.left_memcgs();
        self.drain()?;
        let mut accounts = self.tracer.accounts()?;
        let now = boot_ns();
        let killed = self.kills.first_waiting().filter(|&t| t > self.last_walk_ns);
        if killed.is_some() {
            // What was held when it was last looked, which is before the kill.
            self.tell_holdings(self.holdings.read_ns())?;
        }
        self.holdings.read(now, &self.tracer, &accounts);
        for (key, totals) in &accounts {
            let seen = Seen {
                tid: key.tid,
                tgid: totals.tgid,
                start_ns: key.start_ns,
                memcg: key.memcg,
                comm: totals.comm,
            };
            if let Some(killed) = killed
                && PURE_KINDS.contains(&key.kind)
                && self.accounts.new_charges(key, totals.charged) < self.granularity
            {
                // What a thread had gathered without filling a record was charged before the kill; what is given back
                // since is the victim's end. More than a record's worth is in the ring by now, with its own time.
                self.charge(killed, key, &seen, totals.charged, 0)?;
            }
            self.charge(now, key, &seen, totals.charged, totals.uncharged)?;
            if gone.contains_key(&(key.tid, key.start_ns)) || left.contains(&key.memcg) {
                self.tracer.remove_account(key);
                self.accounts.retire(key, totals.charged, totals.uncharged);
                if let Some(stacks) = &mut self.stacks {
                    stacks.retire(key);
                }
                self.holdings.retire(key, totals.slot);
            }
        }
        for live in self.holdings.leave(&left, &mut self.tracer) {
            self.emit(now, Body::Live(live))?;
        }
        left.iter().for_each(|memcg| self.tracer.close_overflow(*memcg));
        if self.losses.take_exits_dropped() {
            self.find_silent_exits(&accounts);
        }
        accounts.retain(|(key, _)| !gone.contains_key(&(key.tid, key.start_ns)) && !left.contains(&key.memcg));
        for ((tid, start_ns), comm) in gone {
            if let Some(body) = self.names.exited(tid, start_ns, &comm) {
                self.emit(now, body)?;
            }
        }
        self.emit_stacks(Stacks::events)?;
        self.update_loss()?;
        self.last_walk_ns = now;
        let took = boot_ns().saturating_sub(began);
        self.next_walk_ns = now + WALK_NS.max(took.saturating_mul(WALK_SHARE));
        Ok(accounts)
    }

    /// Emits what accounts hold, where that changed.
    fn tell_holdings(&mut self, t: u64) -> Result<(), CollectError> {
        for live in self.holdings.changed(&mut self.tracer) {
            self.emit(t, Body::Live(live))?;
        }
        Ok(())
    }

    /// Memcgs whose accounts change no more: a program that began before one was left has ended by now.
    fn left_memcgs(&mut self) -> HashSet<u64> {
        let leaving = std::mem::replace(&mut self.leaving, self.targets.take_left());
        let targets = &self.targets;
        leaving.into_iter().filter(|memcg| !targets.watches(*memcg)).collect()
    }

    /// Threads that could not say that they exit, and did: the next walk buries them like the others.
    fn find_silent_exits(&mut self, accounts: &[(AccountKey, AccountTotals)]) {
        for (key, totals) in accounts {
            // Neither the overflow account nor the idle tasks are in /proc.
            let is_thread = key.tid != OVERFLOW_TID && key.tid != 0;
            if is_thread && !is_alive(&self.node, key.tid, key.start_ns) {
                self.departures.exits((key.tid, key.start_ns), totals.comm);
            }
        }
    }

    /// Threads that have come to their very end.
    fn gone_threads(&mut self) -> HashMap<ThreadKey, Comm> {
        let node = &self.node;
        let is_alive = |(tid, start_ns)| is_alive(node, tid, start_ns);
        if self.detached {
            return self.departures.all(is_alive);
        }
        self.departures.gone(boot_ns(), is_alive)
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
    fn sample(&mut self, now: u64) -> Result<Vec<(AccountKey, AccountTotals)>, CollectError> {
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

    /// Emits the losses when there are more than before.
    fn update_loss(&mut self) -> Result<(), CollectError> {
        let now = boot_ns();
        let stacks_unknown = self.stacks.as_ref().map_or(0, Stacks::unknown);
        // What did not fit into the ring was late by at most the time since the accounts were last read.
        let late_ns = now.saturating_sub(self.last_walk_ns);
        match self.losses.news(&self.tracer, stacks_unknown, late_ns)? {
            Some(loss) => self.emit(now, Body::Loss(loss)),
            None => Ok(()),
        }
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
