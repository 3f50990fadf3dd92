//! A memcg's own figures, read independently of headroom, and the sums of a recording that they are held against.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result};
use headroom::recording::event::{Body, Event, Live};
use tracer_common::{Kind, Region};

use super::apart;
use crate::memcg::Memcg;

/// What the kernel says is there, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All that is charged, with what is charged in advance.
    pub usage: u64,
    /// By kind: `anon`, `file` (without shmem and swap cache), `shmem`, `sock`, the kinds of
    /// kernel memory that it shows, and, where the kernel adds it up, `kernel`.
    pub kinds: BTreeMap<&'static str, u64>,
}

impl Figures {
    /// Reads the figures of a group. On v1, where a group's own figures are exact and the totals need not be, those of
    /// the groups `below` are added.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn read(group: &Memcg, below: &[&Memcg]) -> Result<Self> {
        let mut figures = Self::own(group)?;
        if !group.is_v2() {
            for child in below {
                for (kind, bytes) in Self::own(child)?.kinds {
                    *figures.kinds.entry(kind).or_default() += bytes;
                }
            }
        }
        Ok(figures)
    }

    fn own(group: &Memcg) -> Result<Self> {
        let text = group.read("memory.stat")?;
        let stat: HashMap<&str, u64> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let get = |name: &str| {
            stat.get(name)
                .copied()
                .with_context(|| format!("no {name} in memory.stat"))
        };
        let (anon, cache, kernel) = if group.is_v2() {
            (get("anon")?, get("file")?, stat.get("kernel").copied())
        } else {
            let kernel = group.read("memory.kmem.usage_in_bytes").ok();
            let kernel = kernel.and_then(|text| text.trim().parse().ok());
            (get("rss")?, get("cache")?, kernel)
        };
        let shmem = get("shmem")?;
        // Pages of the swap cache are in `file`/`cache` too. kernel: mm/swap_state.c add_to_swap_cache,
        // NR_SWAPCACHE (5.12). Before that the memcg's figures leave them out, and only the whole system's tell of them.
        let of_group = stat.get("swapcached").copied();
        let swap_cache = of_group.map_or_else(system_swap_cache, Ok)?;
        let mut kinds = BTreeMap::from([
            ("anon", anon),
            ("file", cache.saturating_sub(shmem + of_group.unwrap_or(0))),
            ("shmem", shmem),
            ("swap_cache", swap_cache),
        ]);
        for kind in ["sock", "hugetlb"] {
            kinds.extend(stat.get(kind).map(|bytes| (kind, *bytes)));
        }
        // v1 shows none of them.
        for (name, kind) in apart::NAMES {
            kinds.extend(stat.get(name).map(|bytes| (kind.as_str(), *bytes)));
        }
        kinds.extend(kernel.map(|bytes| ("kernel", bytes)));
        Ok(Self {
            usage: group.usage()?,
            kinds,
        })
    }
}

/// Bytes in the system's swap cache.
fn system_swap_cache() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SwapCached:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: u64 = kib.context("no SwapCached in /proc/meminfo")?.parse()?;
    Ok(kib * 1024)
}

/// Charged less given back, by what a recording says.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Bytes by kind, all regions together.
    pub net: BTreeMap<Kind, i64>,
    /// Bytes that never got a place.
    pub unplaced: BTreeMap<Kind, i64>,
    /// Bytes charged to accounts of threads, by thread and kind, placements not counted twice.
    pub charged: HashMap<(u32, Kind), u64>,
    /// By memcg and kind.
    pub by_memcg: HashMap<(u64, Kind), i64>,
    /// What accounts hold, bytes by kind, as last told.
    pub live: BTreeMap<Kind, i64>,
    /// Bytes that there was no room to follow.
    pub not_followed: u64,
}

impl Sums {
    /// Adds the charge events up.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut sums = Self::default();
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for event in events {
            let Body::Charge(charge) = &event.body else {
                continue;
            };
            let net = signed(charge.charged) - signed(charge.uncharged);
            *sums.net.entry(charge.kind).or_default() += net;
            *sums.by_memcg.entry((charge.memcg, charge.kind)).or_default() += net;
            if charge.region == Region::Unplaced {
                *sums.unplaced.entry(charge.kind).or_default() += net;
            } else {
                *sums.charged.entry((charge.tid, charge.kind)).or_default() += charge.charged;
            }
        }
        for live in held(events).values() {
            *sums.live.entry(live.kind).or_default() += signed(live.bytes);
            sums.not_followed += live.not_followed;
        }
        sums
    }

    /// Bytes of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> i64 {
        self.net.get(&kind).copied().unwrap_or(0)
    }

    /// Bytes of all kernel memory.
    #[must_use]
    pub fn kernel(&self) -> i64 {
        self.net
            .iter()
            .filter(|(kind, _)| kind.is_kernel())
            .map(|(_, net)| net)
            .sum()
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn all(&self) -> i64 {
        self.net.values().sum()
    }

    /// Bytes of a kind that these threads were charged.
    #[must_use]
    pub fn charged_by(&self, threads: &HashSet<u32>, kind: Kind) -> u64 {
        let charged = self.charged.iter();
        charged
            .filter(|((tid, of), _)| *of == kind && threads.contains(tid))
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

/// What was last told of each account that holds something.
fn held(events: &[Event]) -> HashMap<(u64, u32, u64, Kind), &Live> {
    let mut held = HashMap::new();
    for event in events {
        if let Body::Live(live) = &event.body {
            held.insert((live.memcg, live.tid, live.start_ns, live.kind), live);
        }
    }
    held
}

/// Bytes of a kind that these threads hold.
#[must_use]
pub fn held_by(events: &[Event], threads: &HashSet<u32>, kind: Kind) -> u64 {
    let held = held(events);
    let theirs = held
        .values()
        .filter(|live| live.kind == kind && threads.contains(&live.tid));
    theirs.map(|live| live.bytes).sum()
}

/// Threads whose name begins with `prefix`, by their ids.
#[must_use]
pub fn threads_named(events: &[Event], prefix: &str) -> HashSet<u32> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Thread(thread) if thread.comm.starts_with(prefix) => Some(thread.tid),
            _ => None,
        })
        .collect()
}
