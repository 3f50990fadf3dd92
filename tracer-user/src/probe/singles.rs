//! The array in front of the page ledger's hash table, shared with the kernel side as memory.

use std::collections::HashSet;
use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::Ebpf;
use tracer_common::SinglePage;

use super::mapped::{Mapped, Shared};
use super::tracer::ProbeError;

/// Splits the room for pages: entries of the array, a power of two, and of the hash table, which takes what is larger than
/// a page and what finds its entry taken.
pub(super) fn split(pages: u32) -> (u32, u32) {
    let singles = 1 << (pages / 2).max(1).ilog2();
    (singles, pages.saturating_sub(singles).max(1))
}

/// How far to shift a hash for an index into as many entries.
pub(super) const fn shift(singles: u32) -> u32 {
    u32::BITS - singles.ilog2()
}

/// A [`SinglePage`] that the kernel side writes to as well.
#[repr(C)]
struct Entry {
    page: AtomicU64,
    owner: AtomicU32,
    busy: AtomicU32,
}

const _: () = assert!(size_of::<Entry>() == size_of::<SinglePage>());

// SAFETY: integers that are only accessed atomically.
unsafe impl Shared for Entry {}

/// The array.
pub(super) struct Singles(Mapped<Entry>);

impl Singles {
    /// Takes the map, which has this many entries.
    pub(super) fn take(ebpf: &mut Ebpf, len: u32) -> Result<Self, ProbeError> {
        Mapped::take(ebpf, "SINGLES", len).map(Self)
    }

    /// Removes the pages of these accounts.
    pub(super) fn forget(&self, owners: &HashSet<u32>) {
        for entry in self.0.all() {
            let theirs =
                || entry.page.load(Ordering::SeqCst) != 0 && owners.contains(&entry.owner.load(Ordering::SeqCst));
            while theirs() {
                // The kernel side puts nothing there meanwhile: see `alone` in tracer-ebpf.
                if entry.busy.fetch_add(1, Ordering::SeqCst) == 0 && theirs() {
                    entry.page.store(0, Ordering::SeqCst);
                }
                entry.busy.fetch_sub(1, Ordering::SeqCst);
                hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_split_and_none_of_it_lost() {
        assert_eq!(split(1 << 18), (1 << 17, 1 << 17));
        assert_eq!(split(102_400), (32_768, 69_632));
        assert_eq!(split(2048), (1024, 1024));
        assert_eq!(split(3), (1, 2));
        assert_eq!(split(1), (1, 1));
        assert_eq!(shift(1024), 22);
        assert_eq!(shift(1 << 18), 14);
    }
}
