//! Where a charged page gets its place, which says whether it is guest RAM.

use tracer_common::{FileKey, Kind, LossCounter, MAX_GUEST_RANGES, Region};

use crate::account::{Direction, account, account_at_once};
use crate::constants::{constant, field};
use crate::hooks::{Access, Probed, at_entry, at_return};
use crate::in_flight::land;
use crate::kernel::{Folio, Pointer};
use crate::live::{charged, follow, placed};
use crate::maps::{FILE_PAGES, GUEST_FILES, GUEST_RANGES, count_loss};
use crate::unplaced::forget;
use crate::watch::{Memcg, OfFolio};

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

// kernel: void folio_add_new_anon_rmap(struct folio *, struct vm_area_struct *, unsigned long address, rmap_t) (6.11 to
// 7.3), without the last (6.3 to 6.10), page_add_new_anon_rmap(struct page *, ...) (5.18 to 6.2), with bool compound
// (5.3 to 5.17). On the way of vCPU faults through KVM, of huge pages and of khugepaged alike, whoever runs.
at_entry!(place_anon, place_anon_again, place_anon_kprobe, OfFolio(0) => placed_anon(0, 1, 2));

#[inline(always)]
fn placed_anon<A: Access>(owner: OfFolio, folio: Pointer, vma: Pointer, address: u64) -> Option<()> {
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let region = mapped_region::<A>(memcg, vma, address)?;
    if land(folio) {
        // Huge ones of private memory are never in flight.
        let bytes = constant!(page_size);
        let owner = account_at_once(memcg, Kind::Anon, region, Direction::Charge, bytes);
        follow(folio.0, owner, bytes);
        return Some(());
    }
    let flags = folio.flags_in::<A>();
    if flags.is_swapbacked_or_huge() {
        forget(folio);
    }
    placed(folio, memcg, Kind::Anon, region, folio.bytes_with(flags));
    Some(())
}

// kernel: void hugetlb_add_new_anon_rmap(struct folio *, struct vm_area_struct *, unsigned long address) (6.8 to 7.3)
at_entry!(place_hugetlb_anon, place_hugetlb_anon_again, place_hugetlb_anon_kprobe, OfFolio(0) => placed_hugetlb_anon(0, 1, 2));

#[inline(always)]
fn placed_hugetlb_anon<A: Access>(owner: OfFolio, folio: Pointer, vma: Pointer, address: u64) -> Option<()> {
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let region = mapped_region::<A>(memcg, vma, address)?;
    placed(folio, memcg, Kind::Hugetlb, region, folio.bytes());
    Some(())
}

/// The region of an address in a mapping, of a page that is charged to this memcg.
#[inline(always)]
pub fn mapped_region<A: Access>(memcg: Memcg, vma: Pointer, address: u64) -> Option<Region> {
    let qemu_tgid = memcg.watched.qemu_tgid;
    if qemu_tgid == 0 {
        return Some(Region::Overhead);
    }
    let mm: Pointer = A::get(vma, field!(vma_mm));
    let owner: Pointer = A::get(mm, field!(mm_owner));
    let tgid: u32 = A::get(owner, field!(task_tgid));
    Some(if tgid == qemu_tgid {
        address_region(tgid, address)
    } else {
        Region::Overhead
    })
}

/// A charged page got its place: one that was counted nowhere until now, or as unplaced.
#[inline(always)]
fn put(folio: Folio, memcg: Memcg, kind: Kind, region: Region, bytes: u64) {
    if land(folio) {
        charged(folio.0, memcg, kind, region, bytes);
    } else {
        placed(folio, memcg, kind, region, bytes);
    }
}

/// The file behind a mapping.
#[inline(always)]
pub fn file_of<A: Access>(mapping: Pointer) -> FileKey {
    let inode: Pointer = A::get(mapping, field!(mapping_host));
    let superblock: Pointer = A::get(inode, field!(inode_sb));
    FileKey {
        inode: A::get(inode, field!(inode_number)),
        device: A::get(superblock, field!(sb_device)),
        padding: 0,
    }
}

#[inline(always)]
pub fn file_region(file: &FileKey) -> Region {
    // SAFETY: one byte, never changed once there.
    if unsafe { GUEST_FILES.get(file) }.is_some() {
        Region::Guest
    } else {
        Region::Overhead
    }
}

// kernel: int shmem_add_to_page_cache(struct folio *, struct address_space *, unsigned long, void *expected, gfp_t)
// (6.6 to 7.3)
at_return!(
    place_shmem,
    place_shmem_again,
    place_shmem_kprobe,
    place_shmem_kretprobe,
    takes 5, OfFolio(0 from 0) => placed_shmem(0 from 0, 1 from 1, 3 from 2)
);

// kernel: int shmem_add_to_page_cache(struct page * | struct folio *, struct address_space *, unsigned long, void
// *expected, gfp_t, struct mm_struct *) (5.10 to 6.5): it charges the page itself
at_return!(
    place_shmem_charging,
    place_shmem_charging_again,
    place_shmem_charging_kprobe,
    place_shmem_charging_kretprobe,
    takes 6, OfFolio(0 from 0) => placed_shmem(0 from 0, 1 from 1, 3 from 2)
);

#[inline(always)]
fn placed_shmem<A: Access>(owner: OfFolio, folio: Pointer, mapping: Pointer, expected: u64, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let region = file_region(&file_of::<A>(mapping));
    if expected != 0 {
        // It takes the place of a swap entry. Read from there: see `swapped_in`. One that has not left memory yet is still
        // charged as what it is.
        if forget(folio) {
            account(memcg, Kind::Anon, Region::Unplaced, Direction::Uncharge, folio.bytes());
            charged(folio.0, memcg, Kind::Shmem, region, folio.bytes());
        }
    } else {
        let flags = folio.flags_in::<A>();
        put(folio, memcg, Kind::Shmem, region, folio.bytes_with(flags));
    }
    Some(())
}

// kernel: int hugetlb_add_to_page_cache(struct folio *, struct address_space *, unsigned long) (6.4 to 7.3)
at_return!(
    place_hugetlb,
    place_hugetlb_again,
    place_hugetlb_kprobe,
    place_hugetlb_kretprobe,
    takes 3, OfFolio(0 from 0) => placed_hugetlb(0 from 0, 1 from 1)
);

#[inline(always)]
fn placed_hugetlb<A: Access>(owner: OfFolio, folio: Pointer, mapping: Pointer, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let region = file_region(&file_of::<A>(mapping));
    placed(folio, memcg, Kind::Hugetlb, region, folio.bytes());
    Some(())
}

// kernel: void filemap_remove_folio(struct folio *) (5.17 to 7.3), before it delete_from_page_cache(struct page *):
// shmem that is truncated, punched or dropped with its last user still knows its file here, and no longer when it is
// uncharged. Huge pages too.
at_entry!(unplace_shmem, unplace_shmem_again, unplace_shmem_kprobe, OfFolio(0) => unplaced_shmem(0));

#[inline(always)]
fn unplaced_shmem<A: Access>(owner: OfFolio, folio: Pointer) -> Option<()> {
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let flags = folio.flags_in::<A>();
    let kind = if folio.is_hugetlb_with(flags) {
        Kind::Hugetlb
    } else if flags.is_swapbacked() {
        Kind::Shmem
    } else {
        return None;
    };
    // The mapping is no argument, so its type is not known whoever runs this.
    if file_region(&file_of::<Probed>(folio.mapping() as Pointer)) == Region::Guest {
        account(memcg, kind, Region::Guest, Direction::Uncharge, folio.bytes());
        account(memcg, kind, Region::Overhead, Direction::MoveBack, folio.bytes());
    }
    Some(())
}

// kernel: int __filemap_add_folio(struct address_space *, struct folio *, unsigned long, gfp_t, void **) (5.16 to 7.3)
at_return!(
    place_file,
    place_file_again,
    place_file_kprobe,
    place_file_kretprobe,
    takes 5, OfFolio(1 from 0) => placed_file(1 from 0, 0 from 1)
);

// kernel: int __add_to_page_cache_locked(struct page *, struct address_space *, unsigned long, gfp_t, void **) (5.3 to
// 5.15)
at_return!(
    place_file_page,
    place_file_page_again,
    place_file_page_kprobe,
    place_file_page_kretprobe,
    takes 5, OfFolio(0 from 0) => placed_file(0 from 0, 1 from 1)
);

#[inline(always)]
fn placed_file<A: Access>(owner: OfFolio, folio: Pointer, mapping: Pointer, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let flags = folio.flags_in::<A>();
    if folio.is_hugetlb_with(flags) {
        // `place_hugetlb` sees it.
        return None;
    }
    let bytes = folio.bytes_with(flags);
    let file = file_of::<A>(mapping);
    put(folio, memcg, Kind::File, file_region(&file), bytes);
    count_file(memcg, &file, bytes);
    Some(())
}

#[inline(always)]
fn count_file(memcg: Memcg, file: &FileKey, bytes: u64) {
    let key = [memcg.memcg, file.inode, u64::from(file.device)];
    let pages = bytes >> (constant!(page_shift) & 31);
    if let Some(count) = FILE_PAGES.get_ptr_mut(&key) {
        // SAFETY: a live map value; two CPUs adding at once may lose an addition to this top list, not to an account.
        unsafe { *count += pages };
    } else if FILE_PAGES.insert(&key, &pages, 0).is_err() {
        count_loss(LossCounter::FilesFull, pages);
    }
}
