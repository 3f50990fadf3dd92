//! What a pod is made of: cgroups, processes, threads, roles.

use std::collections::BTreeMap;

use tracer_common::{Kind, Region};

use super::history::{History, Track};
use super::snapshot::class;
use crate::ledger::{Entity, ThreadGrowth, ThreadKey};

/// What a row stands for, the same from frame to frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Key {
    Pod(u32),
    Cgroup(String),
    /// Process id.
    Process(u32),
    Thread(ThreadKey),
    Role(Entity),
    /// Ended threads of a process that are still told apart.
    Ended(u32),
    /// Ended threads of an entity, added up.
    EndedRole(Entity),
    /// Processes outside the pod that are charged on its behalf.
    Outside,
    /// Threads that are not told apart.
    Rest,
}

/// What kind of thing an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum What {
    /// Above the pod.
    Above,
    Cgroup,
    Process,
    Thread,
    Role,
    Group,
}

/// A cgroup, process, thread or role, with what it and everything in it took.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is, from frame to frame.
    pub key: Key,
    /// What kind of thing.
    pub what: What,
    /// Its name, as it calls itself: hostile.
    pub name: String,
    /// Its role, where it has one.
    pub role: Option<String>,
    /// What the kernel counts as used, bytes, for cgroups.
    pub usage: Option<u64>,
    /// Its limit, bytes, for cgroups that have one.
    pub limit: Option<u64>,
    /// Growth of overhead within the window, bytes.
    pub growth: i128,
    /// The same by kind.
    pub kinds: BTreeMap<Kind, i128>,
    /// Guest RAM charged within the window, net, bytes.
    pub guest: i128,
    /// Time spent reclaiming, nanoseconds.
    pub reclaim_ns: u64,
    /// Growth at the last samples.
    pub track: Track,
    /// Bytes per second.
    pub rate: f64,
    /// How many threads it stands for.
    pub threads: u64,
    /// What is in it.
    pub children: Vec<Self>,
}

impl Item {
    /// Something that took nothing yet.
    #[must_use]
    pub fn new(key: Key, what: What, name: impl Into<String>) -> Self {
        Self {
            key,
            what,
            name: name.into(),
            role: None,
            usage: None,
            limit: None,
            growth: 0,
            kinds: BTreeMap::new(),
            guest: 0,
            reclaim_ns: 0,
            track: Track::default(),
            rate: 0.0,
            threads: 0,
            children: Vec::new(),
        }
    }

    /// One thread, or a group of ended ones.
    #[must_use]
    pub fn of(growth: &ThreadGrowth<'_>, name: impl Into<String>, history: Option<&History>) -> Self {
        let (key, what) = match growth.key {
            Some(key) => (Key::Thread(key), What::Thread),
            None => (Key::EndedRole(growth.entity.clone()), What::Group),
        };
        let mut item = Self::new(key, what, name);
        item.role = Some(class(&growth.entity.role));
        item.growth = growth.overhead_growth();
        item.kinds.clone_from(&growth.kinds);
        item.guest = growth.account.cells.net(Region::Guest);
        item.reclaim_ns = growth.account.reclaim_ns;
        item.threads = growth.threads();
        let track = history.and_then(|history| match growth.key {
            Some(key) => history.thread(key),
            None => history.ended(&growth.entity),
        });
        item.track = track.cloned().unwrap_or_default();
        item.rate = history.map_or(0.0, |history| history.rate(&item.track));
        item
    }

    /// Adds what another one took to this one.
    pub fn take(&mut self, other: &Self) {
        self.growth += other.growth;
        for (kind, bytes) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += bytes;
        }
        self.guest += other.guest;
        self.reclaim_ns = self.reclaim_ns.saturating_add(other.reclaim_ns);
        self.track.add(&other.track);
        self.rate += other.rate;
        self.threads += other.threads;
    }

    /// Puts another one into this one.
    pub fn adopt(&mut self, child: Self) {
        self.take(&child);
        self.children.push(child);
    }

    /// The first item that `wanted` picks, of this and all in it.
    #[must_use]
    pub fn find(&self, wanted: &impl Fn(&Self) -> bool) -> Option<&Self> {
        if wanted(self) {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(wanted))
    }
}
