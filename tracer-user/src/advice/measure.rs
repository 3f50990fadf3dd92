//! What one recording shows of a VM: the figures that advice rests on.

use std::collections::BTreeMap;

use tracer_common::{Kind, Region};

use super::growth::{Growth, curve, growth};
use crate::ledger::{Entity, Ledger, PodLedger, ThreadGrowth};
use crate::recording::State;
use crate::recording::event::VmShape;
use crate::role::Role;
use crate::sizing::breakdown::{Consumer, Taken};

/// A window shorter than this says nothing about a load, nanoseconds.
const LEAST_NS: u64 = 3_000_000_000;
/// Nor do fewer samples.
const LEAST_SAMPLES: u64 = 4;
/// Guest RAM per byte of page tables that come with it: an entry of 8 bytes for each page of 4 KiB in QEMU's page
/// tables and another in KVM's.
pub const GUEST_RAM_PER_PAGE_TABLE: u64 = 4096 / (8 + 8);

/// What an entity held of the overhead, page cache aside. Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub entity: Entity,
    /// Anonymous and shared memory when the tracer attached; absent where that is not known.
    pub at_attach: Option<u64>,
    /// How it grew since.
    pub growth: Growth,
    /// The largest growth of memory that is not the kernel's.
    pub user_peak: u64,
    /// It may hold this much less, where bytes may be guest RAM as well.
    pub less: u64,
    /// It may hold this much more, where bytes were taken for guest RAM by estimate.
    pub more: u64,
}

impl Held {
    /// What it held at most.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.at_attach.unwrap_or(0).saturating_add(self.growth.peak)
    }
}

/// What grew because of I/O, and what besides. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Page cache that was charged, given back or not.
    pub page_cache: u64,
    /// Growth of block workers, iothreads and `io_uring` workers.
    pub io_threads: u64,
    /// Growth of everybody else.
    pub others: u64,
}

/// What a recording shows of a VM. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// Kubernetes namespace.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Path of the limiting memcg.
    pub cgroup: String,
    /// Start and end of the window, nanoseconds of CLOCK_BOOTTIME.
    pub window: (u64, u64),
    /// The VM was killed.
    pub killed: bool,
    /// The recording has its end.
    pub complete: bool,
    /// Guest RAM that the pod is charged for.
    pub guest_ram: u64,
    /// Guest RAM in hugetlb pages.
    pub guest_hugetlb: u64,
    /// The limit.
    pub limit: Option<u64>,
    /// What QEMU's command line says.
    pub shape: Option<VmShape>,
    /// Firm overhead at the start.
    pub start: u64,
    /// Its peak.
    pub peak: u64,
    /// The most guest RAM that was resident.
    pub guest_peak: u64,
    /// Growth of guest RAM.
    pub guest_growth: u64,
    /// How far the kernel's count of usage may be from what was charged.
    pub tolerance: u64,
    /// Growth of usage that no account explains, at its worst.
    pub unexplained: u64,
    /// How overhead grew, page cache aside.
    pub growth: Growth,
    /// Overhead grew by more than batches and the page tables of guest RAM explain.
    pub grew: bool,
    /// Who held what, the largest first.
    pub held: Vec<Held>,
    /// Kernel memory at its peak.
    pub kernel: u64,
    /// The same by kind, each at its own peak.
    pub kernel_kinds: BTreeMap<Kind, u64>,
    /// What grew because of I/O.
    pub work: Work,
    /// Why it is not enough to advise on.
    pub missing: Vec<&'static str>,
}

impl Observation {
    /// What consumers took, for a comparison with the budget.
    #[must_use]
    pub fn taken(&self) -> Taken {
        let mut taken = Taken {
            threads: true,
            total: Some(self.peak),
            ..Taken::default()
        };
        for consumer in [Consumer::Vcpus, Consumer::Iothreads, Consumer::Qemu] {
            taken.add(consumer, 0);
        }
        taken.add(Consumer::Kernel, self.kernel);
        for held in &self.held {
            let bytes = held.at_attach.unwrap_or(0).saturating_add(held.user_peak);
            taken.add(consumer(&held.entity), bytes);
        }
        taken
    }
}

/// Whose budget an entity draws on.
fn consumer(entity: &Entity) -> Consumer {
    if entity.process != "qemu" {
        return Consumer::Process(entity.process.clone());
    }
    match &entity.role {
        Role::Vcpu(_) => Consumer::Vcpus,
        Role::BlockWorker | Role::IoUring => Consumer::Iothreads,
        Role::IoThread(name) if is_disk(name) => Consumer::Iothreads,
        _ => Consumer::Qemu,
    }
}

/// QEMU's monitor has an iothread too.
fn is_disk(iothread: &str) -> bool {
    iothread != "mon_iothread"
}

/// Measures a pod of a recording that was read to its end and found in this state.
#[must_use]
pub fn observe(ledger: &Ledger, pod: &PodLedger, state: State) -> Observation {
    let resolved = ledger.resolve(pod);
    let described = &pod.pod;
    let tolerance = ledger.tolerance();
    let limit = pod.last.as_ref().and_then(|(_, sample)| sample.limit);
    let guest_growth = positive(resolved.guest_growth);
    let total = growth(&curve(&pod.series, None));
    let held = held(ledger, pod, &resolved.threads);
    let mut seen = Observation {
        namespace: described.namespace.clone(),
        vm: described.vm.clone(),
        cgroup: described.cgroup.clone(),
        window: pod.window().unwrap_or_default(),
        killed: pod.kill_t().is_some(),
        complete: state == State::Complete,
        guest_ram: described.guest_ram,
        guest_hugetlb: described.guest_hugetlb,
        limit: limit.or(described.limit),
        shape: described.shape,
        start: pod.peaks.firm_first.unwrap_or(0),
        peak: pod.peaks.firm.unwrap_or(0),
        guest_peak: pod.peaks.guest_resident.unwrap_or(0),
        guest_growth,
        tolerance,
        unexplained: positive(pod.worst.unexplained),
        growth: total,
        grew: total.peak > tolerance.saturating_add(guest_growth / GUEST_RAM_PER_PAGE_TABLE),
        kernel: pod.peaks.kernel.unwrap_or_else(|| kernel_growth(pod)),
        kernel_kinds: kernel_kinds(pod),
        work: work(pod, &held),
        held,
        missing: Vec::new(),
    };
    seen.missing = missing(&seen, pod, state);
    seen
}

fn missing(seen: &Observation, pod: &PodLedger, state: State) -> Vec<&'static str> {
    let (start, end) = seen.window;
    [
        (
            seen.guest_ram == 0 && seen.guest_hugetlb == 0,
            "no QEMU with guest RAM was found in it",
        ),
        (
            pod.peaks.samples < LEAST_SAMPLES || end.saturating_sub(start) < LEAST_NS,
            "it is too short to show a load",
        ),
        (
            pod.peaks.samples > 0 && pod.peaks.firm.is_none(),
            "resident guest RAM is not known (smaps was not readable), so overhead is not either",
        ),
        (
            state == State::Damaged,
            "it is damaged: growth is missing from its sums",
        ),
        (
            state == State::Incomplete && seen.grew && !seen.growth.plateau && !seen.killed,
            "it has no end, and growth had not ended when it breaks off",
        ),
        (
            !seen.grew && !seen.killed && seen.guest_growth <= seen.tolerance,
            "nothing grew: it shows no load that a reserve could be sized for",
        ),
    ]
    .into_iter()
    .filter_map(|(missing, why)| missing.then_some(why))
    .collect()
}

fn positive(bytes: i128) -> u64 {
    u64::try_from(bytes.max(0)).unwrap_or(u64::MAX)
}

fn kernel_kinds(pod: &PodLedger) -> BTreeMap<Kind, u64> {
    let kinds = pod.peaks.stat.iter();
    kinds
        .filter(|(kind, bytes)| kind.is_kernel() && **bytes > 0)
        .map(|(kind, bytes)| (*kind, *bytes))
        .collect()
}

/// Kernel memory by the accounts, where memory.stat does not show it.
fn kernel_growth(pod: &PodLedger) -> u64 {
    let peak = |point: &crate::ledger::Point| {
        let cells = point.growth.iter();
        cells
            .filter(|(_, kind, _)| kind.is_kernel())
            .map(|(_, _, bytes)| i128::from(*bytes))
            .sum::<i128>()
    };
    positive(pod.series.points().iter().map(peak).max().unwrap_or(0))
}

/// The largest growth of an entity's memory that is neither page cache nor the kernel's.
fn user_peak(pod: &PodLedger, index: u16) -> u64 {
    let user = |point: &crate::ledger::Point| {
        let cells = point.growth.iter();
        cells
            .filter(|(entity, kind, _)| *entity == index && *kind != Kind::File && !kind.is_kernel())
            .map(|(_, _, bytes)| i128::from(*bytes))
            .sum::<i128>()
    };
    positive(pod.series.points().iter().map(user).max().unwrap_or(0))
}

fn held(ledger: &Ledger, pod: &PodLedger, threads: &[ThreadGrowth<'_>]) -> Vec<Held> {
    let mut at_attach = at_attach(ledger, pod);
    let estimates = estimates(threads);
    let mut all: Vec<Held> = Vec::new();
    for (index, entity) in pod.series.entities().iter().enumerate() {
        let Ok(index) = u16::try_from(index) else { continue };
        let (less, more) = estimates.get(entity).copied().unwrap_or_default();
        all.push(Held {
            entity: entity.clone(),
            // A process that came later held nothing then.
            at_attach: at_attach.remove(entity).unwrap_or(Some(0)),
            growth: growth(&curve(&pod.series, Some(index))),
            user_peak: user_peak(pod, index),
            less,
            more,
        });
    }
    all.extend(at_attach.into_iter().map(|(entity, bytes)| Held {
        entity,
        at_attach: bytes,
        growth: Growth::default(),
        user_peak: 0,
        less: 0,
        more: 0,
    }));
    all.retain(|held| held.peak() > 0 || held.at_attach.is_none());
    all.sort_by(|a, b| b.peak().cmp(&a.peak()).then_with(|| a.entity.cmp(&b.entity)));
    all
}

/// What the processes of the pod held when the tracer attached; `None` for a process that maps guest RAM, which its
/// figures do not tell from its own.
fn at_attach(ledger: &Ledger, pod: &PodLedger) -> BTreeMap<Entity, Option<u64>> {
    let firm = pod.peaks.firm_first.unwrap_or(0);
    let counts = |memcg: u64| {
        let listed = pod.pod.memcgs.iter().find(|listed| listed.id == memcg);
        memcg == pod.pod.memcg || listed.is_some_and(|listed| listed.counted)
    };
    let mut held: BTreeMap<Entity, Option<u64>> = BTreeMap::new();
    for process in ledger.processes() {
        if process.pod != Some(pod.pod.pod) || !process.before_attach || !counts(process.memcg) {
            continue;
        }
        let guest = if process.pid == pod.pod.qemu_pid || process.name == "qemu" {
            pod.guest_first.unwrap_or(0)
        } else {
            0
        };
        let own = process.rss_anon.map(|bytes| bytes.saturating_sub(guest));
        let own = own.filter(|bytes| *bytes <= firm.saturating_add(ledger.tolerance()));
        let entity = Entity {
            role: process.role.clone(),
            process: process.name.clone(),
        };
        let sum = held.entry(entity).or_insert(Some(0));
        *sum = sum.zip(own).map(|(sum, own)| sum.saturating_add(own));
    }
    held
}

/// By entity: bytes that may be guest RAM as well, and bytes that were taken for guest RAM by estimate.
fn estimates(threads: &[ThreadGrowth<'_>]) -> BTreeMap<Entity, (u64, u64)> {
    let mut sums: BTreeMap<Entity, (i128, i128)> = BTreeMap::new();
    for thread in threads {
        let cells = &thread.account.cells;
        let all = cells.net_where(|_, region| region != Region::Guest);
        let taken = all - thread.overhead_growth();
        let unplaced = cells.net_where(|kind, region| region == Region::Unplaced && !kind.is_kernel());
        let sum = sums.entry(thread.entity.clone()).or_default();
        sum.0 += (unplaced - taken).max(0);
        sum.1 += taken.max(0);
    }
    sums.into_iter()
        .map(|(entity, (less, more))| (entity, (positive(less), positive(more))))
        .collect()
}

fn work(pod: &PodLedger, held: &[Held]) -> Work {
    let accounts = pod
        .accounts()
        .map(|(_, account)| account)
        .chain(pod.ended().map(|(_, account)| account));
    let page_cache = accounts
        .flat_map(|account| account.cells.iter())
        .filter(|(kind, region, _)| *kind == Kind::File && *region != Region::Guest)
        .fold(0, |sum: u64, (_, _, flow)| sum.saturating_add(flow.charged));
    let mut work = Work {
        page_cache,
        ..Work::default()
    };
    for held in held {
        let sum = match consumer(&held.entity) {
            Consumer::Iothreads => &mut work.io_threads,
            _ => &mut work.others,
        };
        *sum = sum.saturating_add(held.growth.peak);
    }
    work
}
