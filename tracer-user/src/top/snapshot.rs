//! What there is to see at one moment, as data.

use super::feed::Feed;
use super::history::History;
use super::items::{Item, Key, What};
use super::tree::{thread_item, tree};
use crate::ledger::{Culprit, Entity, PodLedger, Resolved, culprit};
use crate::recording::event::Loss;
use crate::role::Role;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Host name.
    pub host: String,
    /// UTC of boot, nanoseconds since the Unix epoch.
    pub boot_unix_ns: u64,
    /// The moment, CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// The pods that are there.
    pub pods: Vec<PodRow>,
    /// Those that are looked into.
    pub details: Vec<Detail>,
    /// What was lost.
    pub loss: Loss,
}

/// A pod.
#[derive(Clone, Debug, Default)]
pub struct PodRow {
    /// Its number.
    pub number: u32,
    /// Namespace and VM: hostile.
    pub name: String,
    /// What the kernel counts as used, bytes; absent before the first sample.
    pub usage: Option<u64>,
    /// Its limit, bytes, where it has one.
    pub limit: Option<u64>,
    /// Size of guest RAM, bytes.
    pub guest_ram: u64,
    /// Resident guest RAM, bytes, where known.
    pub guest_resident: Option<u64>,
    /// Bytes per second by which overhead grows.
    pub rate: f64,
    /// Changes of overhead at the last samples.
    pub changes: Vec<i64>,
    /// Who grew most: hostile.
    pub culprit: Option<String>,
    /// When the kernel killed in it, CLOCK_BOOTTIME nanoseconds.
    pub killed: Option<u64>,
    /// When it is expected to.
    pub expected: Option<Expected>,
}

impl PodRow {
    /// Limit less usage.
    #[must_use]
    pub fn headroom(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.usage?))
    }

    /// Usage less resident guest RAM.
    #[must_use]
    pub fn overhead(&self) -> Option<u64> {
        Some(self.usage?.saturating_sub(self.guest_resident.unwrap_or(0)))
    }

    /// What the limit leaves for overhead.
    #[must_use]
    pub fn budget(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.guest_ram))
    }
}

/// A kill that is forecast, times of CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Most likely then.
    pub at: u64,
    /// Hardly before.
    pub low: Option<u64>,
    /// Hardly after.
    pub high: Option<u64>,
    /// Who drives it: hostile.
    pub driver: Option<String>,
}

/// A pod looked into.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The pod.
    pub pod: PodRow,
    /// Start of the window in which growth is counted.
    pub since: Option<u64>,
    /// Growth of overhead, bytes.
    pub overhead_growth: i128,
    /// Growth of guest RAM, bytes.
    pub guest_growth: i128,
    /// Growth of usage that no account explains, bytes.
    pub unexplained: i128,
    /// How much of that is normal, bytes.
    pub tolerance: u64,
    /// Who grew most.
    pub culprit: Option<Culprit>,
    /// Slices, scopes, processes, threads.
    pub tree: Vec<Item>,
    /// Roles and processes.
    pub roles: Vec<Item>,
    /// Threads.
    pub threads: Vec<Item>,
}

/// Which pods are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// None, or this one.
    One(Option<u32>),
    /// All of them, for a snapshot that stays.
    All,
}

impl Snapshot {
    /// What `feed` says at the time `t`.
    #[must_use]
    pub fn of(feed: &Feed, t: u64, open: Open) -> Self {
        let ledger = feed.ledger();
        let mut snapshot = Self {
            host: ledger.header().host.clone(),
            boot_unix_ns: ledger.header().boot_unix_ns,
            t,
            loss: ledger.loss(),
            ..Self::default()
        };
        for pod in ledger.pods().filter(|pod| !pod.pod.gone) {
            let resolved = ledger.resolve(pod);
            let culprit = pod
                .window()
                .and_then(|window| culprit(&resolved, ledger.tolerance(), window));
            let row = row(feed, pod, culprit.as_ref());
            if open == Open::All || open == Open::One(Some(pod.pod.pod)) {
                snapshot
                    .details
                    .push(detail(feed, pod, &resolved, row.clone(), culprit));
            }
            snapshot.pods.push(row);
        }
        snapshot
    }

    /// A pod that is looked into.
    #[must_use]
    pub fn detail(&self, open: Option<u32>) -> Option<&Detail> {
        self.details.iter().find(|detail| Some(detail.pod.number) == open)
    }
}

fn row(feed: &Feed, pod: &PodLedger, culprit: Option<&Culprit>) -> PodRow {
    let now = feed.sample(pod.pod.memcg);
    let history = feed.history(pod.pod.pod);
    PodRow {
        number: pod.pod.pod,
        name: pod.pod.label(),
        usage: now.map(|sample| sample.usage),
        limit: now.map_or(pod.pod.limit, |sample| sample.limit),
        guest_ram: pod.pod.guest_ram,
        // After the kill what was known of guest RAM says nothing.
        guest_resident: now
            .and_then(|sample| sample.guest_resident)
            .or(pod.guest_last.filter(|_| pod.kill_t().is_none())),
        rate: history.map_or(0.0, |history| history.rate(&history.overhead)),
        changes: history.map_or_else(Vec::new, |history| history.overhead.changes(usize::MAX)),
        culprit: culprit.map(|culprit| short(&culprit.entity)),
        killed: pod.kill_t(),
        expected: expected(pod),
    }
}

/// The forecast that stands.
fn expected(pod: &PodLedger) -> Option<Expected> {
    let (_, forecast) = pod.predicted.forecasts().last()?;
    let driver = forecast.driver.as_ref();
    Some(Expected {
        at: forecast.kill_at?,
        low: forecast.low,
        high: forecast.high,
        driver: driver.map(|driver| in_short(&driver.role)),
    })
}

/// An entity in one or two words.
#[must_use]
pub fn short(entity: &Entity) -> String {
    in_short(&entity.role)
}

fn in_short(role: &Role) -> String {
    match role {
        Role::Helper(name) | Role::Other(name) | Role::Kernel(name) => name.clone(),
        role => role.to_string(),
    }
}

/// A role beside a name that tells the rest.
#[must_use]
pub fn class(role: &Role) -> String {
    match role {
        Role::Helper(_) => "helper".to_owned(),
        Role::Other(_) => "other".to_owned(),
        Role::Kernel(_) => "kernel".to_owned(),
        role => role.to_string(),
    }
}

fn detail(feed: &Feed, pod: &PodLedger, resolved: &Resolved<'_>, row: PodRow, culprit: Option<Culprit>) -> Detail {
    let history = feed.history(pod.pod.pod);
    Detail {
        pod: row,
        since: pod.window().map(|(start, _)| start),
        overhead_growth: resolved
            .threads
            .iter()
            .map(crate::ledger::ThreadGrowth::overhead_growth)
            .sum(),
        guest_growth: resolved.guest_growth,
        unexplained: pod.unexplained(),
        tolerance: feed.ledger().tolerance(),
        culprit,
        tree: tree(feed, pod, resolved),
        roles: roles(feed, resolved, history),
        threads: resolved
            .threads
            .iter()
            .map(|growth| thread_item(feed, growth, history))
            .collect(),
    }
}

fn roles(feed: &Feed, resolved: &Resolved<'_>, history: Option<&History>) -> Vec<Item> {
    let mut roles: std::collections::BTreeMap<&Entity, Item> = std::collections::BTreeMap::new();
    for growth in &resolved.threads {
        let item = thread_item(feed, growth, history);
        roles
            .entry(&growth.entity)
            .or_insert_with(|| {
                let entity = &growth.entity;
                let mut role = Item::new(Key::Role(entity.clone()), What::Role, short(entity));
                role.role = Some(format!("{} of {}", class(&entity.role), entity.process));
                role
            })
            .take(&item);
    }
    roles.into_values().collect()
}
