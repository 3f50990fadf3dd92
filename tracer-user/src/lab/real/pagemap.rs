//! Which parts of guest RAM a QEMU has resident before the payload touches them: firmware writes some, and where the
//! kernel gives huge pages, each such write brings 2 MiB.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::smaps;

const PAGE: u64 = 4096;
/// Bytes of an entry. kernel: Documentation/admin-guide/mm/pagemap.rst
const ENTRY: usize = 8;
/// Entry of a page that is in memory (bit 63) or swapped out (bit 62).
const CHARGED: u64 = 0b11 << 62;

/// Resident parts of guest RAM, as offsets into it, in ascending order.
///
/// # Errors
/// When the process is gone, or has no mapping of that size.
pub fn resident(pid: u32, guest_ram: u64) -> io::Result<Vec<Range<u64>>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = smaps::guest_mapping(&text, guest_ram)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "QEMU has no mapping of guest RAM's size"))?;
    let pages = usize::try_from(guest_ram / PAGE).map_err(io::Error::other)?;
    let mut entries = vec![0; pages * ENTRY];
    File::open(format!("/proc/{pid}/pagemap"))?.read_exact_at(&mut entries, start / PAGE * ENTRY as u64)?;
    Ok(runs(&entries))
}

fn runs(entries: &[u8]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (entry, offset) in entries.as_chunks::<ENTRY>().0.iter().zip((0..).step_by(PAGE as usize)) {
        if u64::from_le_bytes(*entry) & CHARGED == 0 {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == offset => last.end += PAGE,
            _ => runs.push(offset..offset + PAGE),
        }
    }
    runs
}

/// Bytes of these runs that lie within `range`.
#[must_use]
pub fn within(runs: &[Range<u64>], range: &Range<u64>) -> u64 {
    runs.iter()
        .map(|run| run.end.min(range.end).saturating_sub(run.start.max(range.start)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::num::NonZeroUsize;

    #[test]
    fn neighbours_become_one_run() {
        let entries: Vec<u8> = [0, 1 << 63, 1 << 62, 5, 1 << 63]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect();
        let runs = runs(&entries);
        assert_eq!(runs, [4096..12288, 16384..20480]);
        assert_eq!(within(&runs, &(0..u64::MAX)), 3 * 4096);
        assert_eq!(within(&runs, &(8192..16384)), 4096);
        assert_eq!(within(&runs, &(100_000..200_000)), 0);
    }

    #[test]
    fn what_this_process_touched_is_resident() {
        // No other mapping has this size.
        const SIZE: u64 = 37 * PAGE;
        let size = NonZeroUsize::new(SIZE as usize).unwrap();
        let fenced = NonZeroUsize::new(size.get() + 2 * PAGE as usize).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let fence = unsafe { mmap_anonymous(None, fenced, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) }.unwrap();
        // SAFETY: within the mapping above.
        let start = unsafe { fence.cast::<u8>().add(PAGE as usize) };
        // SAFETY: the pages are ours, and nothing points to them.
        let result = unsafe { libc::mprotect(start.as_ptr().cast(), size.get(), libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(result, 0);
        // SAFETY: within the mapping above.
        let touched = unsafe { start.add(3 * PAGE as usize) };
        // SAFETY: mapped and writable.
        unsafe { touched.write_volatile(1) };
        let runs = resident(std::process::id(), SIZE).unwrap();
        assert_eq!(runs.as_slice(), std::slice::from_ref(&(3 * PAGE..4 * PAGE)));
        assert!(resident(std::process::id(), SIZE + 1).is_err());
        // SAFETY: ours, and nothing points to it any more.
        unsafe { munmap(fence, fenced.get()) }.unwrap();
    }
}
