//! The page ledger's maps: how large they are, what they need of a kernel, and what accounts hold by them.

use std::collections::HashSet;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use tracer_common::LivePages;

use super::attach::{Outcome, ProbeState};
use super::btf::KernelTypes;
use super::plan::{Group, Probe};
use super::singles::{Singles, split};
use super::table::PROBES;
use super::tracer::{ProbeError, take};

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
}

impl PageLedger {
    /// Takes the maps.
    pub(super) fn take(ebpf: &mut Ebpf, room: u32) -> Result<Self, ProbeError> {
        let (singles, _) = split(room);
        Ok(Self {
            singles: Singles::take(ebpf, singles)?,
            pages: take(ebpf, "PAGES")?,
        })
    }

    /// Removes the pages of these accounts: their ends will not be seen.
    pub(super) fn forget(&mut self, owners: &HashSet<u32>) {
        self.singles.forget(owners);
        let theirs: Vec<u64> = self
            .pages
            .iter()
            .flatten()
            .filter(|(_, entry)| owners.contains(&entry.owner))
            .map(|(key, _)| key)
            .collect();
        for key in theirs {
            let _ = self.pages.remove(&key);
        }
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
