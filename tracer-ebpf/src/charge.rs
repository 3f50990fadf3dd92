//! The charge path of the function backend: user folios, kernel pages, slab objects, sockets.
//!
//! Most programs run at the return of a kernel function and count only when that succeeded. A prototype with another
//! number of arguments, or others in other places, is another program.

use tracer_common::{Kind, Placed, Region};

use crate::account::{Direction, account, account_bytes};
use crate::constants::constant;
use crate::hooks::{Access, at_entry, at_return};
use crate::in_flight::{is_placed, land, take_off};
use crate::kernel::{Folio, Pointer};
use crate::live;
use crate::unplaced::remember;
use crate::watch::{Memcg, OfFolio, OfMemcg, OfObjcg, OfSocket, known};

// kernel: int __mem_cgroup_charge(struct folio *, struct mm_struct *, gfp_t) (5.16 to 7.3), with struct page * on 5.15;
// int mem_cgroup_charge(struct page *, struct mm_struct *, gfp_t) (5.8 to 5.14)
at_return!(
    charge_folio,
    charge_folio_again,
    charge_folio_kprobe,
    charge_folio_kretprobe,
    takes 3, OfFolio(0 from 0) => charged_folio(0 from 0, 1 from 1)
);

/// A folio was just charged: page cache is charged without an mm or has its mapping already, shmem is swapbacked,
/// anonymous memory is neither.
#[inline(always)]
fn charged_folio<A: Access>(owner: OfFolio, folio: Pointer, mm: Pointer, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let number = owner.number()?;
    let flags = folio.flags_in::<A>();
    let waits = flags.is_swapbacked_or_huge();
    // Private memory or page cache: either is counted where it gets its place.
    if !waits && is_placed(Placed::Files) && take_off(folio) {
        return Some(());
    }
    let (kind, placed) = if waits && folio.in_swap_cache() {
        (Kind::Anon, false)
    } else if flags.is_swapbacked() {
        (Kind::Shmem, is_placed(Placed::Shmem))
    } else if mm.is_null() || folio.is_mapped_file_in::<A>() {
        (Kind::File, is_placed(Placed::Files))
    } else {
        (Kind::Anon, !waits)
    };
    if placed && take_off(folio) {
        return Some(());
    }
    // Left there by who charged it before and was watched no more when it was given back.
    land(folio);
    if kind == Kind::Anon && waits {
        remember(folio);
    }
    account(known(number), kind, Region::Unplaced, Direction::Charge, folio.bytes());
    Some(())
}

// kernel: int mem_cgroup_swapin_charge_folio(struct folio *, struct mm_struct *, gfp_t, swp_entry_t) (6.1 to 7.1), the
// same with another second argument (7.2 to 7.3), and mem_cgroup_swapin_charge_page(struct page *, ...) (5.13 to 5.19)
at_return!(
    charge_swapin,
    charge_swapin_again,
    charge_swapin_kprobe,
    charge_swapin_kretprobe,
    takes 4, OfFolio(0 from 0) => swapped_in(0 from 0)
);

/// Nobody knows yet whether this was anonymous memory or shmem: `place_shmem` moves it where it was the latter.
#[inline(always)]
fn swapped_in<A: Access>(owner: OfFolio, folio: Pointer, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    remember(folio);
    account(memcg, Kind::Anon, Region::Unplaced, Direction::Charge, folio.bytes());
    Some(())
}

// kernel: int mem_cgroup_charge_hugetlb(struct folio *, gfp_t) (6.13 to 7.2)
at_return!(
    charge_hugetlb,
    charge_hugetlb_again,
    charge_hugetlb_kprobe,
    charge_hugetlb_kretprobe,
    takes 2, OfFolio(0 from 0) => charged_hugetlb(0 from 0)
);

// kernel: int mem_cgroup_charge_hugetlb(struct folio *, struct mm_struct *, gfp_t) (7.3)
at_return!(
    charge_hugetlb_mm,
    charge_hugetlb_mm_again,
    charge_hugetlb_mm_kprobe,
    charge_hugetlb_mm_kretprobe,
    takes 3, OfFolio(0 from 0) => charged_hugetlb(0 from 0)
);

#[inline(always)]
fn charged_hugetlb<A: Access>(owner: OfFolio, folio: Pointer, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    account(memcg, Kind::Hugetlb, Region::Unplaced, Direction::Charge, folio.bytes());
    Some(())
}

// kernel: void mem_cgroup_commit_charge(struct folio *, struct mem_cgroup *) (6.7 to 6.12): of huge pages only, when
// the charge has gone through
at_entry!(commit_hugetlb, commit_hugetlb_again, commit_hugetlb_kprobe, OfMemcg(1) => committed_hugetlb(0));

#[inline(always)]
fn committed_hugetlb<A: Access>(charged: OfMemcg, folio: Pointer) -> Option<()> {
    let memcg = charged.memcg()?;
    account(
        memcg,
        Kind::Hugetlb,
        Region::Unplaced,
        Direction::Charge,
        Folio(folio).bytes(),
    );
    Some(())
}

// kernel: int __memcg_kmem_charge_page(struct page *, gfp_t, int order) (5.8 to 7.3)
at_return!(
    charge_kernel_pages,
    charge_kernel_pages_again,
    charge_kernel_pages_kprobe,
    charge_kernel_pages_kretprobe,
    takes 3, OfFolio(0 from 0) => charged_kernel_pages(0 from 0, 2 from 1)
);

#[inline(always)]
fn charged_kernel_pages<A: Access>(owner: OfFolio, page: Pointer, order: u32, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    let memcg = owner.memcg()?;
    live::charged(
        page,
        memcg,
        Kind::Kmem,
        Region::Overhead,
        constant!(page_size) << (order & 31),
    );
    Some(())
}

// kernel: int obj_cgroup_charge(struct obj_cgroup *, gfp_t, size_t) (5.9 to 7.3)
at_return!(
    charge_objects,
    charge_objects_again,
    charge_objects_kprobe,
    charge_objects_kretprobe,
    takes 3, OfObjcg(0 from 0) => charged_objects(2 from 1)
);

#[inline(always)]
fn charged_objects<A: Access>(charged: OfObjcg, bytes: u64, status: i32) -> Option<()> {
    if status != 0 {
        return None;
    }
    objects(charged, Direction::Charge, bytes)
}

// kernel: the same prototype, where only what is no slab object goes through it: see `account_objects` (6.15 to 7.3)
at_return!(
    charge_other_objects,
    charge_other_objects_again,
    charge_other_objects_kprobe,
    charge_other_objects_kretprobe,
    takes 3, OfObjcg(0 from 0) => charged_objects(2 from 1)
);

/// Objects are charged in bytes to their obj_cgroup.
#[inline(always)]
pub fn objects(charged: OfObjcg, direction: Direction, bytes: u64) -> Option<()> {
    let memcg = charged.memcg()?;
    account(memcg, Kind::Slab, Region::Overhead, direction, bytes);
    Some(())
}

// kernel: void __account_obj_stock(struct obj_cgroup *, struct obj_stock_pcp *, int nr, struct pglist_data *, enum
// node_stat_item) (6.15 to 7.3): every slab object, with its bytes, negative when it is freed
at_entry!(account_objects, account_objects_again, account_objects_kprobe, OfObjcg(0) => accounted_objects(2));

#[inline(always)]
fn accounted_objects<A: Access>(charged: OfObjcg, bytes: i32) -> Option<()> {
    let memcg = charged.memcg()?;
    account_bytes(memcg, Kind::Slab, Region::Overhead, i64::from(bytes));
    Some(())
}

// kernel: bool mem_cgroup_charge_skmem(struct mem_cgroup *, unsigned int, gfp_t) (5.15 to 6.12)
at_return!(
    in interrupts,
    charge_socket,
    charge_socket_always,
    charge_socket_kprobe,
    charge_socket_kretprobe,
    takes 3, OfMemcg(0 from 0) => charged_socket(1 from 1)
);

// kernel: bool mem_cgroup_charge_skmem(struct mem_cgroup *, unsigned int) (5.3 to 5.14)
at_return!(
    in interrupts,
    charge_socket_two,
    charge_socket_two_always,
    charge_socket_two_kprobe,
    charge_socket_two_kretprobe,
    takes 2, OfMemcg(0 from 0) => charged_socket(1 from 1)
);

#[inline(always)]
fn charged_socket<A: Access>(whom: OfMemcg, pages: u32, charged: u8) -> Option<()> {
    if charged == 0 {
        return None;
    }
    socket(whom.memcg()?, Direction::Charge, pages)
}

// kernel: bool mem_cgroup_sk_charge(const struct sock *, unsigned int, gfp_t) (6.16 to 7.3)
at_return!(
    in interrupts,
    charge_socket_of,
    charge_socket_of_always,
    charge_socket_of_kprobe,
    charge_socket_of_kretprobe,
    takes 3, OfSocket(0 from 0) => charged_socket_of(1 from 1)
);

#[inline(always)]
fn charged_socket_of<A: Access>(whom: OfSocket, pages: u32, charged: u8) -> Option<()> {
    if charged == 0 {
        return None;
    }
    socket(whom.memcg()?, Direction::Charge, pages)
}

/// Socket buffers are charged in pages.
#[inline(always)]
pub fn socket(memcg: Memcg, direction: Direction, pages: u32) -> Option<()> {
    account(
        memcg,
        Kind::Sock,
        Region::Overhead,
        direction,
        u64::from(pages) * constant!(page_size),
    );
    Some(())
}

// kernel: void mem_cgroup_replace_folio(struct folio *old, struct folio *new) (6.7 to 7.3); before it
// mem_cgroup_migrate(struct folio *, struct folio *) (5.16 to 6.6), with struct page * (5.3 to 5.15). From 6.7 on
// mem_cgroup_migrate hands the charge over and charges nothing.
at_entry!(charge_replacement, charge_replacement_again, charge_replacement_kprobe, OfFolio(0) => replaced(0, 1));

/// The new page is charged without asking, the old one gives its charge back when it is freed.
#[inline(always)]
fn replaced<A: Access>(owner: OfFolio, old: Pointer, new: Pointer) -> Option<()> {
    let (old, new) = (Folio(old), Folio(new));
    if new.is_charged() {
        return None;
    }
    let memcg = owner.memcg()?;
    // The same kind and region as the old page will leave with.
    let (kind, region) = crate::uncharge::user_kind::<A>(new, new.flags_in::<A>(), memcg.watched.qemu_tgid)?;
    account(memcg, kind, region, Direction::Charge, new.bytes());
    live::replaced(old, new);
    Some(())
}
