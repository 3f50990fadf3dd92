//! Adds events up: accounts, regions, kinds, reconciliation.
//!
//! Pure and without I/O: a live tracer and a replayed recording feed the same [`Ledger`] and get the same figures.
//!
//! All growth is counted from a pod's first sample to the end of its window, which is the kill, else the last sample.

mod account;
pub mod alert;
mod culprit;
mod excerpt;
pub mod forecast;
mod foresight;
mod held;
mod paths;
mod peaks;
mod pod;
mod predicted;
mod reconcile;
mod resolve;
mod series;

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_common::{Kind, OVERFLOW_TID, Region};

pub use account::{Account, Cells, Flow, ThreadKey};
pub use culprit::{Culprit, Entity, culprit};
pub use excerpt::{Bounds, Excerpt, NoBound};
pub use foresight::{Foresight, Replay};
pub use held::Held;
pub use paths::{CodePaths, Path, PathCharge};
pub use peaks::Peaks;
pub use pod::{PodLedger, Sizes};
pub use predicted::Predicted;
pub use reconcile::{Disagreement, KindCheck, Reconciliation, Worst};
pub use resolve::{Resolved, ThreadGrowth};
pub use series::{Point, Series};

use crate::recording::event::{
    Body, Charge, Event, FileCache, Footer, Header, Live, Loss, Mark, Oom, Process, StackCharge, Thread,
};

/// Threads kept apart; beyond that those that ended are added up by role, so that a recording of hours with short
/// threads stays bounded.
const MAX_THREADS: usize = 16 << 10;

/// Marks that are kept; a backup script sets two.
const MAX_MARKS: usize = 10_000;

/// Everything that events add up to.
#[derive(Debug)]
pub struct Ledger {
    /// Threads kept apart.
    max_threads: usize,
    header: Header,
    pods: BTreeMap<u32, PodLedger>,
    threads: HashMap<ThreadKey, Thread>,
    processes: HashMap<u32, Process>,
    /// Pod of a memcg, and whether what is charged there counts against the pod's limit.
    memcgs: HashMap<u64, (u32, bool)>,
    /// Everything charged anywhere, whenever: what the footer is checked against.
    sums: BTreeMap<(u64, Kind, Region), Flow>,
    loss: Loss,
    /// Lost before the recording begins.
    loss_before: Loss,
    footer: Option<Footer>,
    marks: Vec<(u64, Mark)>,
    paths: CodePaths,
    first_t: Option<u64>,
    last_t: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_threads_apart(MAX_THREADS)
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty ledger that adds ended threads up by role as soon as there are more threads than this.
    #[must_use]
    pub fn with_threads_apart(max_threads: usize) -> Self {
        Self {
            max_threads,
            header: Header::default(),
            pods: BTreeMap::new(),
            threads: HashMap::new(),
            processes: HashMap::new(),
            memcgs: HashMap::new(),
            sums: BTreeMap::new(),
            loss: Loss::default(),
            loss_before: Loss::default(),
            footer: None,
            marks: Vec::new(),
            paths: CodePaths::default(),
            first_t: None,
            last_t: 0,
        }
    }

    /// Adds an event.
    pub fn apply(&mut self, event: &Event) {
        let t = event.t;
        if !matches!(event.body, Body::Header(_)) || t > 0 {
            self.first_t.get_or_insert(t);
        }
        self.last_t = self.last_t.max(t);
        match &event.body {
            Body::Header(header) => self.header = header.clone(),
            Body::Baseline(baseline) => {
                for total in &baseline.totals {
                    let sums = self.sums.entry((total.memcg, total.kind, total.region)).or_default();
                    sums.add(total.charged, total.uncharged);
                }
                self.loss_before = baseline.loss;
                self.loss = baseline.loss;
            }
            Body::Pod(pod) => {
                for memcg in &pod.memcgs {
                    self.memcgs.insert(memcg.id, (pod.pod, memcg.counted));
                }
                self.memcgs.insert(pod.memcg, (pod.pod, true));
                self.pods.entry(pod.pod).or_default().describe(pod);
            }
            Body::Process(process) => self.process(process),
            Body::Thread(thread) => self.thread(thread),
            Body::Charge(charge) => self.charge(t, charge),
            Body::Live(live) => self.live(t, live),
            Body::Sample(sample) => {
                let tolerance = self.tolerance();
                if let Some(pod) = self.pods.get_mut(&sample.pod)
                    && pod.sample(t, sample, tolerance)
                {
                    self.draw(sample.pod, t, sample.usage);
                }
                if self.threads.len() > self.max_threads {
                    self.fold();
                }
            }
            Body::Reclaim(reclaim) => {
                if let Some((pod, _)) = self.memcgs.get(&reclaim.memcg)
                    && let Some(pod) = self.pods.get_mut(pod)
                {
                    pod.reclaim(t, reclaim);
                }
            }
            Body::Oom(oom) => self.oom(t, oom),
            Body::Forecast(forecast) => {
                if let Some(pod) = self.pods.get_mut(&forecast.pod) {
                    pod.forecast(t, forecast);
                }
            }
            Body::Alert(alert) => {
                if let Some(pod) = self.pods.get_mut(&alert.pod) {
                    pod.alert(t, alert);
                }
            }
            Body::Frame(frame) => self.paths.frame(frame),
            Body::Stack(stack) => self.paths.stack(stack),
            Body::StackCharge(charge) => self.stack_charge(t, charge),
            Body::Loss(loss) => self.loss = *loss,
            Body::Footer(footer) => {
                self.loss = footer.loss;
                self.footer = Some(footer.clone());
            }
            Body::Mark(mark) if self.marks.len() < MAX_MARKS => self.marks.push((t, mark.clone())),
            Body::Mark(_) | Body::Unknown => {}
        }
    }

    /// Adds a point to a pod's timeline.
    fn draw(&mut self, number: u32, t: u64, usage: u64) {
        let Some(pod) = self.pods.get_mut(&number) else { return };
        let mut series = std::mem::take(&mut pod.series);
        let pod = &self.pods[&number];
        if let Some((_, sample)) = &pod.last {
            series.push(t, usage, sample, &self.resolve(pod));
        }
        if let Some(pod) = self.pods.get_mut(&number) {
            pod.series = series;
        }
    }

    fn process(&mut self, process: &Process) {
        self.processes.insert(process.pid, process.clone());
    }

    fn thread(&mut self, thread: &Thread) {
        let key = ThreadKey {
            tid: thread.tid,
            start_ns: thread.start_ns,
        };
        self.threads.insert(key, thread.clone());
    }

    fn charge(&mut self, t: u64, charge: &Charge) {
        self.sums
            .entry((charge.memcg, charge.kind, charge.region))
            .or_default()
            .add(charge.charged, charge.uncharged);
        if let Some((pod, counted)) = self.memcgs.get(&charge.memcg)
            && let Some(pod) = self.pods.get_mut(pod)
        {
            pod.charge(t, charge, *counted);
        }
    }

    fn live(&mut self, t: u64, live: &Live) {
        // What is held elsewhere does not count against the limit.
        if let Some((pod, true)) = self.memcgs.get(&live.memcg)
            && let Some(pod) = self.pods.get_mut(pod)
        {
            pod.live(t, live);
        }
    }

    fn stack_charge(&mut self, t: u64, charge: &StackCharge) {
        let Some((number, true)) = self.memcgs.get(&charge.memcg).copied() else {
            return;
        };
        let in_window = self.pods.get(&number).is_some_and(|pod| pod.counts_at(t));
        if charge.region == Region::Overhead && in_window {
            let key = ThreadKey {
                tid: charge.tid,
                start_ns: charge.start_ns,
            };
            let entity = self.entity(key);
            self.paths.charge(number, entity, charge.stack, charge.charged);
        }
    }

    fn oom(&mut self, t: u64, oom: &Oom) {
        let Some(number) = self.pod_of_oom(oom) else { return };
        let Some(pod) = self.pods.get_mut(&number) else { return };
        pod.oom(t, oom);
        if pod.ooms.len() == 1
            && let Some(usage) = pod.usage_at_kill
        {
            // The timeline ends where the window does, not at the sample before.
            self.draw(number, t, usage);
        }
    }

    /// Adds threads that ended to the sums of their role and forgets them.
    fn fold(&mut self) {
        let Self {
            pods,
            threads,
            processes,
            ..
        } = self;
        let mut kept: HashSet<u32> = HashSet::new();
        let in_use: HashSet<ThreadKey> = pods.values().flat_map(PodLedger::in_use).collect();
        threads.retain(|key, thread| {
            if !thread.exited || in_use.contains(key) {
                kept.insert(thread.pid);
                return true;
            }
            let entity = entity_of(Some(thread), processes);
            for pod in pods.values_mut() {
                pod.fold(*key, &entity);
            }
            false
        });
        processes.retain(|pid, process| !process.exited || kept.contains(pid));
    }

    /// Forgets a pod that is gone. A tracer that runs for months sees many.
    pub fn forget(&mut self, pod: u32) {
        self.pods.remove(&pod);
        self.paths.forget(pod);
        let gone: Vec<u64> = self
            .memcgs
            .iter()
            .filter(|(_, (of, _))| *of == pod)
            .map(|(memcg, _)| *memcg)
            .collect();
        for memcg in gone {
            self.memcgs.remove(&memcg);
            self.sums.retain(|(of, _, _), _| *of != memcg);
        }
        self.processes.retain(|_, process| process.pod != Some(pod));
        self.threads.retain(|_, thread| thread.pod != Some(pod));
    }

    /// Counts a pod's growth from its next sample on, as if it were new: a kill has ended what was counted.
    pub fn restart(&mut self, pod: u32) {
        self.paths.forget(pod);
        if let Some(pod) = self.pods.get_mut(&pod) {
            pod.restart();
        }
    }

    /// The recording's header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the tracer follows pages, so that what is held is known.
    #[must_use]
    pub fn follows_pages(&self) -> bool {
        self.header.live.as_ref().is_some_and(|live| live.on)
    }

    /// Number of the pod that a kill belongs to.
    #[must_use]
    pub fn pod_of_oom(&self, oom: &Oom) -> Option<u32> {
        oom.pod
            .or_else(|| self.pod_of_memcg(oom.memcg))
            .or_else(|| self.pod_of_memcg(oom.oom_memcg))
    }

    /// Number of the pod that a watched memcg belongs to.
    #[must_use]
    pub fn pod_of_memcg(&self, memcg: u64) -> Option<u32> {
        self.memcgs.get(&memcg).map(|(pod, _)| *pod)
    }

    /// The pod of this number.
    #[must_use]
    pub fn pod(&self, number: u32) -> Option<&PodLedger> {
        self.pods.get(&number)
    }

    /// The pods, by their number.
    pub fn pods(&self) -> impl Iterator<Item = &PodLedger> {
        self.pods.values()
    }

    /// What was last said about a thread.
    #[must_use]
    pub fn thread_of(&self, key: ThreadKey) -> Option<&Thread> {
        self.threads.get(&key)
    }

    /// What was last said about a process.
    #[must_use]
    pub fn process_of(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// Everything that was last said about processes, in no particular order.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Who a thread belongs to when blame is given: its role within QEMU, or its process as a whole.
    #[must_use]
    pub fn entity(&self, key: ThreadKey) -> Entity {
        entity_by_key(key, self.threads.get(&key), &self.processes)
    }

    /// Everything that is known to be lost within the recording.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss.since(self.loss_before)
    }

    /// The footer, once it came.
    #[must_use]
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// Marks that were put into the recording, with their times.
    #[must_use]
    pub fn marks(&self) -> &[(u64, Mark)] {
        &self.marks
    }

    /// Stacks that overhead was charged from, where they were sampled.
    #[must_use]
    pub const fn paths(&self) -> &CodePaths {
        &self.paths
    }

    /// Files that took page cache of a pod, the largest first.
    #[must_use]
    pub fn files(&self, pod: u32) -> Vec<&FileCache> {
        let of_pod = |file: &&FileCache| self.memcgs.get(&file.memcg).is_some_and(|(number, _)| *number == pod);
        let mut files: Vec<_> = self
            .footer
            .iter()
            .flat_map(|footer| &footer.files)
            .filter(of_pod)
            .collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        files
    }

    /// First and last time of any event, CLOCK_BOOTTIME nanoseconds.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        (self.first_t.unwrap_or(self.last_t), self.last_t)
    }

    /// How far usage may run ahead of what was charged, bytes.
    #[must_use]
    pub fn tolerance(&self) -> u64 {
        tolerance(&self.header)
    }

    /// Where the ledger's own sums differ from the footer's, which were read from the kernel's maps.
    #[must_use]
    pub fn disagreements(&self) -> Vec<Disagreement> {
        self.footer
            .as_ref()
            .map_or_else(Vec::new, |footer| reconcile::against_footer(&self.sums, footer))
    }
}

/// How far usage may run ahead of what was charged, bytes: each CPU may hold a batch of 64 pages.
///
/// kernel: mm/memcontrol.c MEMCG_CHARGE_BATCH and `memcg_stock` (one memcg per CPU up to 6.15).
fn tolerance(header: &Header) -> u64 {
    64_u64
        .saturating_mul(header.page_size.max(4096))
        .saturating_mul(u64::from(header.cpus.max(1)))
}

fn entity_by_key(key: ThreadKey, thread: Option<&Thread>, processes: &HashMap<u32, Process>) -> Entity {
    if key.tid == OVERFLOW_TID {
        return Entity::overflow();
    }
    entity_of(thread, processes)
}

fn entity_of(thread: Option<&Thread>, processes: &HashMap<u32, Process>) -> Entity {
    let Some(thread) = thread else {
        return Entity::unknown();
    };
    match processes.get(&thread.pid) {
        // QEMU is told apart by what its threads do, everything else is blamed as a whole.
        Some(process) if process.name == "qemu" => Entity::new(&thread.role, &process.name),
        Some(process) if is_of_its_own(&thread.role) => Entity::new(&thread.role, &process.name),
        Some(process) => Entity::new(&process.role, &process.name),
        None => Entity::new(&thread.role, &thread.comm),
    }
}

/// Kernel threads, which live in the process of QEMU or of their own, keep their role.
fn is_of_its_own(role: &crate::role::Role) -> bool {
    use crate::role::Role;
    matches!(role, Role::Vhost | Role::IoUring | Role::Kvm | Role::Kernel(_))
}

#[cfg(test)]
mod tests;
