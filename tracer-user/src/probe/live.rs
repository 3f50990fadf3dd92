//! The page ledger's maps: how large they are, what they need of a kernel, and what accounts hold by them.

use std::collections::{BTreeMap, HashSet};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, Queue};
use tracer_common::{AccountKey, LivePages, NO_SLOT, NOT_FOLLOWED, OwnerTotals};

use super::attach::{Outcome, ProbeState};
use super::btf::KernelTypes;
use super::plan::{Group, Probe};
use super::singles::{Singles, split};
use super::table::PROBES;
use super::tracer::{ProbeError, take};

/// Accounts that may hold pages at a time, those of threads that are gone included. Beyond that a memcg's overflow account
/// holds them.
pub const SLOTS: u32 = 16_384;

/// Pages that there is room for at least: 256 MiB of overhead, 3 MiB of memory.
const MIN_PAGES: u32 = 1 << 16;
/// Pages that there is room for where nobody knows how many will come: 1 GiB of overhead, 13 MiB of memory.
const MANY_PAGES: u32 = 1 << 18;
/// Pages that there is room for at most: 2 GiB of overhead, 25 MiB of memory.
const MAX_PAGES: u32 = 1 << 19;

/// Bytes of a `struct page` that the kernel side reckons with.
/// kernel: 64 with CONFIG_MEMCG on x86-64 (5.10 to 7.3)
const STRUCT_PAGE: u32 = 64;

/// Probes without which pages would stay in the ledger that are given back.
const NEEDED: [&str; 1] = ["uncharge_swapped_out"];

/// Whether pages are to be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveChoice {
    /// Where that is possible.
    #[default]
    Auto,
    /// Or not at all.
    Required,
    /// No.
    Off,
}

/// Whether pages are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveState {
    /// They are; there is room for this many.
    On {
        /// Pages, or larger units that were charged at once.
        pages: u32,
    },
    /// They are not, because of this.
    Off(String),
}

/// How many pages there is to be room for: as many as these budgets hold twice, within bounds. Overhead goes beyond its budget
/// as long as the guest has not touched all its RAM, and that is when it has to be known who holds it. `open` when more
/// pods may come, or one has no budget.
#[must_use]
pub fn room(budgets: u64, page_size: u64, open: bool) -> u32 {
    let least = if open { MANY_PAGES } else { MIN_PAGES };
    let pages = budgets.saturating_mul(2) / page_size.max(1);
    u32::try_from(pages).unwrap_or(u32::MAX).clamp(least, MAX_PAGES)
}

/// Why pages cannot be followed where this group counts, if so.
pub(super) fn impossible(types: &KernelTypes, group: Group) -> Option<String> {
    if group == Group::Tracepoints {
        return Some("memcg tracepoints do not say which page is charged".to_owned());
    }
    if types.struct_size("page") != Some(STRUCT_PAGE) {
        return Some(format!(
            "a struct page of this kernel does not have {STRUCT_PAGE} bytes"
        ));
    }
    let of_ledger = |probe: &&Probe| probe.group == Group::Live;
    PROBES.iter().filter(of_ledger).find_map(|probe| {
        probe
            .choose(types)
            .err()
            .map(|reason| format!("{}: {reason}", probe.name))
    })
}

/// Why what was attached is not enough to follow pages, if so.
pub(super) fn lacking(states: &[ProbeState]) -> Option<String> {
    let needed = states.iter().filter(|state| NEEDED.contains(&state.probe.name));
    needed.into_iter().find_map(|state| match &state.outcome {
        Outcome::Missing(reason) => Some(format!("{}: {reason}", state.probe.name)),
        _ => None,
    })
}

/// The ledger's maps.
pub(super) struct PageLedger {
    singles: Singles,
    pages: HashMap<MapData, u64, LivePages>,
    owners: Array<MapData, OwnerTotals>,
    free: Queue<MapData, u32>,
    /// Slots of overflow accounts, by memcg.
    overflow: BTreeMap<u64, Vec<u32>>,
}

impl PageLedger {
    /// Takes the maps, and makes every slot free.
    pub(super) fn take(ebpf: &mut Ebpf, room: u32) -> Result<Self, ProbeError> {
        let (singles, _) = split(room);
        let mut this = Self {
            singles: Singles::take(ebpf, singles)?,
            pages: take(ebpf, "PAGES")?,
            owners: take(ebpf, "OWNERS")?,
            free: take(ebpf, "FREE_SLOTS")?,
            overflow: BTreeMap::new(),
        };
        for slot in 1..=SLOTS {
            this.free.push(slot, 0).map_err(|source| ProbeError::Map {
                map: "FREE_SLOTS",
                source,
            })?;
        }
        Ok(this)
    }

    /// A slot for an overflow account: user space opens these.
    pub(super) fn open_overflow(&mut self, key: AccountKey) -> u32 {
        let Ok(slot) = self.free.pop(0) else {
            return NO_SLOT;
        };
        let empty = OwnerTotals {
            account: key,
            live: 0,
            not_followed: 0,
        };
        if self.owners.set(slot, empty, 0).is_err() {
            return NO_SLOT;
        }
        self.overflow.entry(key.memcg).or_default().push(slot);
        slot
    }

    /// The overflow accounts of a memcg were removed, and no page shows them.
    pub(super) fn close_overflow(&mut self, memcg: u64) {
        for slot in self.overflow.remove(&memcg).unwrap_or_default() {
            self.close(slot);
        }
    }

    /// What is held by the account that has a slot; `None` where there is no such slot.
    pub(super) fn owner(&self, slot: u32) -> Option<OwnerTotals> {
        if slot == NOT_FOLLOWED || slot == NO_SLOT {
            return None;
        }
        self.owners.get(&slot, 0).ok()
    }

    /// Makes a slot free that no account has and no page shows.
    pub(super) fn close(&mut self, slot: u32) {
        let _ = self.free.push(slot, 0);
    }

    /// Removes the pages of these slots: their ends will not be seen. False where some are left.
    pub(super) fn forget(&mut self, slots: &HashSet<u32>) -> bool {
        if let Err(error) = self.singles.forget(slots) {
            log::warn!("cannot forget pages: {error}");
            return false;
        }
        let theirs: Vec<u64> = self
            .pages
            .iter()
            .flatten()
            .filter(|(_, entry)| slots.contains(&entry.slot))
            .map(|(key, _)| key)
            .collect();
        for key in theirs {
            let _ = self.pages.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_the_budget_within_bounds() {
        assert_eq!(room(0, 4096, false), MIN_PAGES);
        assert_eq!(room(400 << 20, 4096, false), 204_800);
        assert_eq!(room(400 << 20, 4096, true), MANY_PAGES);
        assert_eq!(room(u64::MAX, 4096, false), MAX_PAGES);
        assert_eq!(room(1 << 30, 0, false), MAX_PAGES);
    }
}
