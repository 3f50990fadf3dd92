//! Mappings of a workload, and what it does with their pages.

use std::ffi::c_void;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::uio::pwrite;

/// Bytes of a MiB.
pub const MIB: usize = 1 << 20;
/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a huge page.
pub const HUGE: usize = 2 * MIB;

/// Advice to make a huge page of small ones. kernel: include/uapi/asm-generic/mman-common.h (6.1 to 7.3)
pub const MADV_COLLAPSE: i32 = 25;

/// A thread with a stack too small for a huge page: glibc gives most of a stack back when its thread has ended, and of a
/// huge page that is given back in part memory.stat shows the rest alone, while all of it stays charged.
pub fn thread() -> thread::Builder {
    thread::Builder::new().stack_size(128 * 1024)
}

/// A mapping, unmapped when dropped.
pub struct Pages {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, whichever thread made it.
unsafe impl Send for Pages {}

impl Pages {
    /// Private anonymous memory in 4 KiB pages, whatever the system prefers.
    pub fn small(length: usize) -> Result<Self> {
        let pages = Self::anonymous(length, MapFlags::MAP_PRIVATE)?;
        pages.advise(0..length, libc::MADV_NOHUGEPAGE)?;
        Ok(pages)
    }

    /// Private anonymous memory that begins at a huge page's address and asks for huge pages.
    pub fn huge(length: usize) -> Result<Self> {
        let pages = Self::aligned(length)?;
        pages.advise(0..length, libc::MADV_HUGEPAGE)?;
        Ok(pages)
    }

    /// Private anonymous memory that begins at a huge page's address and has small pages until told otherwise.
    pub fn aligned(length: usize) -> Result<Self> {
        let wide = Self::anonymous(length + HUGE, MapFlags::MAP_PRIVATE)?;
        let start = wide.start.as_ptr().addr();
        let before = start.next_multiple_of(HUGE) - start;
        // SAFETY: `before` is less than a huge page, by which the mapping is longer.
        let begin = unsafe { wide.start.cast::<u8>().add(before) }.cast::<c_void>();
        if before > 0 {
            // SAFETY: the pages in front of `begin` are ours and nothing points to them.
            unsafe { munmap(wide.start, before) }?;
        }
        // SAFETY: `before` and `length` together stay within the mapping.
        let end = unsafe { begin.cast::<u8>().add(length) }.cast::<c_void>();
        // SAFETY: the pages from `end` on are ours and nothing points to them.
        unsafe { munmap(end, HUGE - before) }?;
        std::mem::forget(wide);
        let pages = Self { start: begin, length };
        pages.advise(0..length, libc::MADV_NOHUGEPAGE)?;
        Ok(pages)
    }

    /// Anonymous memory with these flags.
    pub fn anonymous(length: usize, flags: MapFlags) -> Result<Self> {
        let size = NonZeroUsize::new(length).context("nothing to map")?;
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { mmap_anonymous(None, size, writable, flags) }.context("cannot map memory")?;
        Ok(Self { start, length })
    }

    /// A file, shared.
    pub fn shared(file: impl AsFd, length: usize) -> Result<Self> {
        let size = NonZeroUsize::new(length).context("nothing to map")?;
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as above.
        let start =
            unsafe { mmap(None, size, writable, MapFlags::MAP_SHARED, file, 0) }.context("cannot map a file")?;
        Ok(Self { start, length })
    }

    /// Writes to each page of a range.
    pub fn touch(&self, range: Range<usize>) {
        for offset in self.pages(range) {
            // SAFETY: `pages` stays within the mapping.
            let byte = unsafe { self.start.cast::<u8>().add(offset) };
            // SAFETY: the byte is mapped and writable, and nobody holds a reference to it.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// Writes these bytes to one place.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.length);
        end.context("that is outside of the mapping")?;
        // SAFETY: the place lies within the mapping, as was just looked at.
        let place = unsafe { self.start.cast::<u8>().add(offset) };
        // SAFETY: as many bytes are mapped and writable there, and nobody holds a reference to them.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }

    /// Writes all of it to a file, from its own place: direct I/O wants whole pages.
    pub fn write_out(&self, file: impl AsFd, offset: u64) -> Result<()> {
        // SAFETY: the mapping is that long, can be read, and is not written to while it is borrowed here.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.cast::<u8>().as_ptr(), self.length) };
        let written = pwrite(file, bytes, i64::try_from(offset)?).context("cannot write")?;
        ensure!(written == self.length, "only {written} bytes were written");
        Ok(())
    }

    fn pages(&self, range: Range<usize>) -> impl Iterator<Item = usize> + use<> {
        (range.start..range.end.min(self.length)).step_by(PAGE)
    }

    /// Advises the kernel on a range.
    pub fn advise(&self, range: Range<usize>, advice: i32) -> Result<(), Errno> {
        let end = range.end.min(self.length);
        // SAFETY: the range lies within the mapping.
        let begin = unsafe { self.start.cast::<u8>().add(range.start.min(end)) };
        // SAFETY: the memory is ours, and nobody holds a reference into it.
        let result = unsafe { libc::madvise(begin.cast().as_ptr(), end - range.start.min(end), advice) };
        Errno::result(result).map(drop)
    }

    /// Gives a range back.
    pub fn give_back(&self, range: Range<usize>) -> Result<()> {
        self.advise(range, libc::MADV_DONTNEED)
            .context("cannot give memory back")
    }

    /// Its address.
    pub fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// Bytes of the mapping that are in huge pages.
    pub fn in_huge_pages(&self) -> Result<u64> {
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        let mut inside = false;
        let mut bytes = 0;
        for line in smaps.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if let Some((start, end)) = range_of(first) {
                inside = start < self.address() + self.length && end > self.address();
            } else if inside && matches!(first, "AnonHugePages:" | "ShmemPmdMapped:" | "FilePmdMapped:") {
                let number = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
                bytes += number.context("smaps has numbers")? * 1024;
            }
        }
        Ok(bytes)
    }
}

/// The addresses that a mapping's line in smaps begins with.
fn range_of(word: &str) -> Option<(usize, usize)> {
    let (start, end) = word.split_once('-')?;
    Some((
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    ))
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and goes with its only owner.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
