//! The array in front of the page ledger's hash table, shared with the kernel side as memory.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{hint, io};

use aya::Ebpf;
use aya::maps::{Map, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use tracer_common::SinglePage;

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
    slot: AtomicU32,
    busy: AtomicU32,
}

const _: () = assert!(size_of::<Entry>() == size_of::<SinglePage>());

/// The array.
pub(super) struct Singles {
    map: OwnedFd,
    len: usize,
}

impl Singles {
    /// Takes the map, which has this many entries.
    pub(super) fn take(ebpf: &mut Ebpf, len: u32) -> Result<Self, ProbeError> {
        let Some(Map::Array(map)) = ebpf.take_map("SINGLES") else {
            return Err(ProbeError::Load {
                reason: "the object has no map SINGLES".to_owned(),
            });
        };
        let map = map.fd().as_fd().try_clone_to_owned().map_err(failed)?;
        let len = usize::try_from(len).map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self { map, len })
    }

    /// Removes the pages of these slots.
    pub(super) fn forget(&self, slots: &HashSet<u32>) -> io::Result<()> {
        let entries = Mapping::new(self)?;
        for entry in entries.all() {
            let theirs =
                || entry.page.load(Ordering::SeqCst) != 0 && slots.contains(&entry.slot.load(Ordering::SeqCst));
            while theirs() {
                // The kernel side puts nothing there meanwhile: see `alone` in tracer-ebpf.
                if entry.busy.fetch_add(1, Ordering::SeqCst) == 0 && theirs() {
                    entry.page.store(0, Ordering::SeqCst);
                }
                entry.busy.fetch_sub(1, Ordering::SeqCst);
                hint::spin_loop();
            }
        }
        Ok(())
    }
}

/// The array in this process's memory.
struct Mapping {
    start: NonNull<Entry>,
    bytes: NonZeroUsize,
    len: usize,
}

impl Mapping {
    fn new(singles: &Singles) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(singles.len * size_of::<Entry>()).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, of no more than the map has: kernel/bpf/arraymap.c array_map_mmap() (5.5 to 7.3)
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &singles.map, 0) }?;
        Ok(Self {
            start: start.cast(),
            bytes,
            len: singles.len,
        })
    }

    fn all(&self) -> &[Entry] {
        // SAFETY: the mapping has as many entries, lives as long as this, is aligned to a page, and all that is in it are
        // integers that are only accessed atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `new` has mapped, and nobody holds a reference to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

fn failed(source: io::Error) -> ProbeError {
    ProbeError::Map {
        map: "SINGLES",
        source: MapError::IoError(source),
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
