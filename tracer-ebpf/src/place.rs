//! Where a charged page gets its place, which says whether it is guest RAM.

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use tracer_common::{FileKey, Kind, LossCounter, MAX_GUEST_RANGES, Region};

use crate::account::{Direction, account, place, watched};
use crate::kernel::{Folio, Pointer, load, read};
use crate::maps::{FILE_PAGES, GUEST_FILES, GUEST_RANGES, count_loss, global, offset};

/// The region of an anonymous page at a user address of a process.
#[inline(always)]
pub fn address_region(tgid: u32, address: u64) -> Region {
    // SAFETY: user space replaces an entry as a whole; a torn read misplaces one page at the moment of a hotplug.
    let Some(entry) = (unsafe { GUEST_RANGES.get(&tgid) }) else {
        return Region::Overhead;
    };
    for index in 0..MAX_GUEST_RANGES {
        let range = &entry.ranges[index];
        if address >= range.start && address < range.end {
            return Region::Guest;
        }
    }
    Region::Overhead
}

// kernel: void folio_add_new_anon_rmap(struct folio *, struct vm_area_struct *, unsigned long address, rmap_t)
// (6.3 to 7.3). On the way of vCPU faults through KVM, of huge pages and of khugepaged alike, whoever runs.
#[fentry]
pub fn place_anon(ctx: FEntryContext) -> u32 {
    placed_anon(Folio(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn placed_anon(folio: Folio, vma: Pointer, address: u64) -> Option<()> {
    let memcg = Folio::memcg_id(folio.memcg_data())?;
    watched(memcg)?;
    let mm: Pointer = load(vma, offset!(vma_mm));
    let owner: Pointer = load(mm, offset!(mm_owner));
    let tgid: u32 = load(owner, offset!(task_tgid));
    place(memcg, Kind::Anon, address_region(tgid, address), folio.bytes());
    Some(())
}

/// The file behind a mapping.
#[inline(always)]
fn file_of(mapping: Pointer) -> FileKey {
    let inode: Pointer = load(mapping, offset!(mapping_host));
    let superblock: Pointer = load(inode, offset!(inode_sb));
    FileKey {
        inode: load(inode, offset!(inode_number)),
        device: load(superblock, offset!(sb_device)),
        padding: 0,
    }
}

#[inline(always)]
fn file_region(file: &FileKey) -> Region {
    // SAFETY: one byte, never changed once there.
    if unsafe { GUEST_FILES.get(file) }.is_some() {
        Region::Guest
    } else {
        Region::Overhead
    }
}

// kernel: int shmem_add_to_page_cache(struct folio *, struct address_space *, unsigned long, void *, gfp_t)
// (6.6 to 7.3)
#[fexit]
pub fn place_shmem(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(5) == 0 {
        placed_shmem(Folio(ctx.arg(0)), ctx.arg(1));
    }
    0
}

#[inline(always)]
fn placed_shmem(folio: Folio, mapping: Pointer) -> Option<()> {
    let memcg = Folio::memcg_id(folio.memcg_data())?;
    watched(memcg)?;
    place(memcg, Kind::Shmem, file_region(&file_of(mapping)), folio.bytes());
    Some(())
}

// kernel: void filemap_remove_folio(struct folio *) (5.17 to 7.3): shmem that is truncated, punched or dropped with
// its last user still knows its file here, and no longer when it is uncharged.
#[fentry]
pub fn unplace_shmem(ctx: FEntryContext) -> u32 {
    unplaced_shmem(Folio(ctx.arg(0)));
    0
}

#[inline(always)]
fn unplaced_shmem(folio: Folio) -> Option<()> {
    if !folio.is_swapbacked() {
        return None;
    }
    let memcg = Folio::memcg_id(folio.memcg_data())?;
    watched(memcg)?;
    let mapping: Pointer = read(folio.0, offset!(folio_mapping))?;
    let inode: Pointer = read(mapping, offset!(mapping_host))?;
    let superblock: Pointer = read(inode, offset!(inode_sb))?;
    let file = FileKey {
        inode: read(inode, offset!(inode_number))?,
        device: read(superblock, offset!(sb_device))?,
        padding: 0,
    };
    if file_region(&file) == Region::Guest {
        account(memcg, Kind::Shmem, Region::Guest, Direction::Uncharge, folio.bytes());
        account(memcg, Kind::Shmem, Region::Overhead, Direction::Charge, folio.bytes());
    }
    Some(())
}

// kernel: int __filemap_add_folio(struct address_space *, struct folio *, unsigned long, gfp_t, void **) (5.17 to 7.3)
#[fexit]
pub fn place_file(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(5) == 0 {
        placed_file(Folio(ctx.arg(1)), ctx.arg(0));
    }
    0
}

#[inline(always)]
fn placed_file(folio: Folio, mapping: Pointer) -> Option<()> {
    let memcg = Folio::memcg_id(folio.memcg_data())?;
    watched(memcg)?;
    let bytes = folio.bytes();
    let file = file_of(mapping);
    place(memcg, Kind::File, file_region(&file), bytes);
    count_file(memcg, &file, bytes);
    Some(())
}

#[inline(always)]
fn count_file(memcg: u64, file: &FileKey, bytes: u64) {
    let key = [memcg, file.inode, u64::from(file.device)];
    let pages = bytes >> (global!(PAGE_SHIFT) & 31);
    if let Some(count) = FILE_PAGES.get_ptr_mut(&key) {
        // SAFETY: a live map value; two CPUs adding at once may lose an addition to this top list, not to an account.
        unsafe { *count += pages };
    } else if FILE_PAGES.insert(&key, &pages, 0).is_err() {
        count_loss(LossCounter::FilesFull, pages);
    }
}
