//! The uncharge path of the function backend.

use tracer_common::{Kind, Region};

use crate::account::Direction;
use crate::charge::{objects, socket};
use crate::constants::constant;
use crate::hooks::{Access, at_entry};
use crate::in_flight::land;
use crate::kernel::{Flags, Folio, Pointer};
use crate::live::uncharged;
use crate::place::address_region;
use crate::unplaced::forget;
use crate::watch::{OfFolio, OfMemcg, OfObjcg, OfSocket};

// kernel: void uncharge_folio(struct folio *, struct uncharge_gather *) (5.19 to 7.3), before it
// uncharge_page(struct page *, struct uncharge_gather *) (5.3 to 5.15)
at_entry!(uncharge_folio, uncharge_folio_again, uncharge_folio_kprobe, OfFolio(0) => uncharged_folio(0));

#[inline(always)]
fn uncharged_folio<A: Access>(owner: OfFolio, folio: Pointer) -> Option<()> {
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let flags = folio.flags_in::<A>();
    let (kind, region) = if owner.is_kmem(folio) {
        (Kind::Kmem, Region::Overhead)
    } else {
        user_kind::<A>(folio, flags, memcg.watched.qemu_tgid)?
    };
    uncharged(folio.0, memcg, kind, region, folio.bytes_with(flags));
    Some(())
}

// kernel: void mem_cgroup_swapout(struct folio *, swp_entry_t) (5.18 to 6.11), with struct page * before; memcg1_swapout
// from 6.12 on. With cgroup v1 and its accounting of swap, what is swapped out gives its charge back here, and is charged to
// nobody when it is freed.
at_entry!(swapped_out, swapped_out_again, swapped_out_kprobe, OfFolio(0) => swapped_out_folio(0));

#[inline(always)]
fn swapped_out_folio<A: Access>(owner: OfFolio, folio: Pointer) -> Option<()> {
    let folio = Folio(folio);
    let memcg = owner.memcg()?;
    let flags = folio.flags_in::<A>();
    let (kind, region) = user_kind::<A>(folio, flags, memcg.watched.qemu_tgid)?;
    uncharged(folio.0, memcg, kind, region, folio.bytes_with(flags));
    Some(())
}

/// Kind and region of user memory that had its place; `None` for a page that was counted nowhere, since it never got one.
#[inline(always)]
pub fn user_kind<A: Access>(folio: Folio, flags: Flags, qemu_tgid: u32) -> Option<(Kind, Region)> {
    Some(if folio.is_hugetlb_with(flags) {
        (Kind::Hugetlb, Region::Overhead)
    } else if folio.is_anon_in::<A>() {
        (Kind::Anon, address_region(qemu_tgid, folio.address_in::<A>()))
    } else if land(folio) {
        return None;
    } else if flags.is_swapbacked_or_huge() && forget(folio) {
        // Read ahead from swap and not needed, or a collapse that was given up.
        (Kind::Anon, Region::Unplaced)
    } else if flags.is_swapbacked() {
        // Guest RAM in a file left its region when it left the page cache: see `unplace_shmem`.
        (Kind::Shmem, Region::Overhead)
    } else {
        (Kind::File, Region::Overhead)
    })
}

// kernel: void __memcg_kmem_uncharge_page(struct page *, int order) (5.8 to 7.3)
at_entry!(in interrupts, uncharge_kernel_pages, uncharge_kernel_pages_always, uncharge_kernel_pages_kprobe, OfFolio(0) => uncharged_kernel_pages(0, 1));

#[inline(always)]
fn uncharged_kernel_pages<A: Access>(owner: OfFolio, page: Pointer, order: u32) -> Option<()> {
    if !owner.is_kmem(Folio(page)) {
        return None;
    }
    uncharged(
        page,
        owner.memcg()?,
        Kind::Kmem,
        Region::Overhead,
        constant!(page_size) << (order & 31),
    );
    Some(())
}

// kernel: void refill_obj_stock(struct obj_cgroup *, unsigned int nr_bytes, bool allow_uncharge) (5.14 to 6.12)
//
// Every byte that objects give back passes here. It is also called, with allow_uncharge false, to keep the rest of a
// page that obj_cgroup_charge took: those bytes were never an object's.
at_entry!(refill_objects, refill_objects_again, refill_objects_kprobe, OfObjcg(0) => refilled_objects(1, 2));

#[inline(always)]
fn refilled_objects<A: Access>(charged: OfObjcg, bytes: u32, allow_uncharge: u8) -> Option<()> {
    if allow_uncharge == 0 {
        return None;
    }
    objects(charged, Direction::Uncharge, u64::from(bytes))
}

// kernel: void obj_cgroup_uncharge(struct obj_cgroup *, size_t) (5.9 to 7.3; all objects pass here up to 5.15)
at_entry!(uncharge_objects, uncharge_objects_again, uncharge_objects_kprobe, OfObjcg(0) => uncharged_objects(1));

// kernel: the same, where only what is no slab object goes through it: see `account_objects` (6.15 to 7.3)
at_entry!(uncharge_other_objects, uncharge_other_objects_again, uncharge_other_objects_kprobe, OfObjcg(0) => uncharged_objects(1));

#[inline(always)]
fn uncharged_objects<A: Access>(charged: OfObjcg, bytes: u64) -> Option<()> {
    objects(charged, Direction::Uncharge, bytes)
}

// kernel: void mem_cgroup_uncharge_skmem(struct mem_cgroup *, unsigned int) (5.3 to 6.12)
at_entry!(in interrupts, uncharge_socket, uncharge_socket_always, uncharge_socket_kprobe, OfMemcg(0) => uncharged_socket(1));

#[inline(always)]
fn uncharged_socket<A: Access>(charged: OfMemcg, pages: u32) -> Option<()> {
    socket(charged.memcg()?, Direction::Uncharge, pages)
}

// kernel: void mem_cgroup_sk_uncharge(const struct sock *, unsigned int) (6.16 to 7.3)
at_entry!(in interrupts, uncharge_socket_of, uncharge_socket_of_always, uncharge_socket_of_kprobe, OfSocket(0) => uncharged_socket_of(1));

#[inline(always)]
fn uncharged_socket_of<A: Access>(charged: OfSocket, pages: u32) -> Option<()> {
    socket(charged.memcg()?, Direction::Uncharge, pages)
}
