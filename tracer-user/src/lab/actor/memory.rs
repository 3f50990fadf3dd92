//! Mappings that are touched page by page.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};

use super::spec::{Backend, GuestRam};

/// Bytes of a page: all that x86-64 has, and what the lab's sizes are multiples of elsewhere.
pub const PAGE: usize = 4096;
/// Memory that one page table maps.
const TABLE_SPAN: usize = 2 << 20;

/// A mapping that stays until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is never unmapped, and its bytes are only ever written as whole volatile bytes whose value
// nobody depends on.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private anonymous memory in small pages, as a heap is.
    ///
    /// # Errors
    /// What mmap says.
    pub fn heap(bytes: usize) -> io::Result<Self> {
        let mapping = anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        mapping.advise(MmapAdvise::MADV_NOHUGEPAGE);
        Ok(mapping)
    }

    /// Guest RAM, as QEMU lays it out: inaccessible memory on both sides, aligned to huge pages, not inherited by
    /// children, left out of core dumps.
    ///
    /// qemu: util/mmap-alloc.c qemu_ram_mmap, softmmu/physmem.c ram_block_add (10.1).
    ///
    /// # Errors
    /// What mmap says, or memfd_create.
    pub fn guest(ram: GuestRam) -> io::Result<Self> {
        let bytes = usize::try_from(ram.bytes).map_err(io::Error::other)?;
        let reserve = anonymous(bytes + 2 * TABLE_SPAN, ProtFlags::PROT_NONE)?;
        let base = reserve.start.as_ptr() as usize;
        // At least one inaccessible page stays in front.
        let start = (base + PAGE).next_multiple_of(TABLE_SPAN);
        let mapping = Self::fixed(start, bytes, ram.backend)?;
        for advice in [
            MmapAdvise::MADV_DONTFORK,
            MmapAdvise::MADV_MERGEABLE,
            MmapAdvise::MADV_DONTDUMP,
        ] {
            mapping.advise(advice);
        }
        Ok(mapping)
    }

    fn fixed(start: usize, bytes: usize, backend: Backend) -> io::Result<Self> {
        let address = NonZeroUsize::new(start);
        let length = length(bytes)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let fixed = MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        let flags = match backend {
            Backend::Ram => None,
            Backend::Memfd => Some(MFdFlags::MFD_CLOEXEC),
            Backend::Hugepages => Some(MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB),
        };
        let start = if let Some(flags) = flags {
            let file = memfd_create(c"memory-backend-memfd", flags)?;
            nix::unistd::ftruncate(&file, i64::try_from(bytes).map_err(io::Error::other)?)?;
            // SAFETY: the range lies inside a reservation that this process just made and gave to nobody.
            unsafe { mmap(address, length, access, MapFlags::MAP_SHARED | fixed, &file, 0) }?
        } else {
            // SAFETY: as above.
            unsafe { mmap_anonymous(address, length, access, MapFlags::MAP_PRIVATE | fixed) }?
        };
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    /// Best effort: a kernel without KSM or huge pages refuses advice that would not matter to it.
    fn advise(&self, advice: MmapAdvise) {
        // SAFETY: the range is this mapping's, and none of the advice used here changes its contents.
        let _ = unsafe { madvise(self.start.cast::<c_void>(), self.bytes, advice) };
    }

    /// The first byte of each page of a range (cut to the mapping).
    pub fn pages(self, offset: usize, bytes: usize) -> impl Iterator<Item = *mut u8> {
        let pages = (offset..(offset + bytes).min(self.bytes)).step_by(PAGE);
        // SAFETY: `at` is below the mapping's size.
        pages.map(move |at| unsafe { self.start.as_ptr().add(at) })
    }

    /// Writes a byte to each page of a range (cut to the mapping).
    pub fn touch(&self, offset: usize, bytes: usize) {
        for page in self.pages(offset, bytes) {
            // SAFETY: the mapping is writable and stays; nobody depends on the value.
            unsafe { page.write_volatile(1) };
        }
    }

    /// The mapping's bytes, all written once, for as long as the process lives.
    #[must_use]
    pub fn filled(&self) -> &'static [u8] {
        self.touch(0, self.bytes);
        // SAFETY: the mapping is readable, initialized (the kernel hands out zeroes) and never unmapped; heap mappings
        // are private to the step that made them, which does not write to them again.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Reads a byte of each 2 MiB: the kernel needs a page table for each, and maps its zero page, which is charged
    /// to nobody.
    pub fn build_tables(&self, offset: usize, tables: usize) {
        for table in 0..tables {
            let at = offset + table * TABLE_SPAN;
            if at < self.bytes {
                // SAFETY: `at` is below the mapping's size.
                let byte = unsafe { self.start.add(at) };
                // SAFETY: the mapping is readable and stays.
                let _ = unsafe { byte.read_volatile() };
            }
        }
    }

    /// Address space that takes this many page tables to map.
    ///
    /// # Errors
    /// What mmap says.
    pub fn for_tables(tables: usize) -> io::Result<Self> {
        Self::heap(tables * TABLE_SPAN)
    }

    /// Offset of a table's memory.
    #[must_use]
    pub const fn table_offset(table: usize) -> usize {
        table * TABLE_SPAN
    }
}

fn length(bytes: usize) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn anonymous(bytes: usize, access: ProtFlags) -> io::Result<Mapping> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping where the kernel likes it overlaps nothing.
    let start = unsafe { mmap_anonymous(None, length(bytes)?, access, flags) }?;
    Ok(Mapping {
        start: start.cast(),
        bytes,
    })
}
