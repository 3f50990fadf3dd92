//! The uncharge path of the function backend.

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use tracer_common::{Kind, Region};

use crate::account::{Direction, account, watched};
use crate::charge::{objects, socket};
use crate::kernel::Folio;
use crate::maps::global;
use crate::place::address_region;

// kernel: void uncharge_folio(struct folio *, struct uncharge_gather *) (5.19 to 7.3)
#[fentry]
pub fn uncharge_folio(ctx: FEntryContext) -> u32 {
    uncharged_folio(Folio(ctx.arg(0)));
    0
}

#[inline(always)]
fn uncharged_folio(folio: Folio) -> Option<()> {
    let memcg_data = folio.memcg_data();
    let memcg = Folio::memcg_id(memcg_data)?;
    let entry = watched(memcg)?;
    let (kind, region) = if Folio::is_kmem(memcg_data) {
        (Kind::Kmem, Region::Overhead)
    } else if folio.is_anon() {
        (Kind::Anon, address_region(entry.qemu_tgid, folio.address()))
    } else if folio.is_swapbacked() {
        // Guest RAM in a file left its region when it left the page cache: see `unplace_shmem`.
        (Kind::Shmem, Region::Overhead)
    } else {
        (Kind::File, Region::Overhead)
    };
    account(memcg, kind, region, Direction::Uncharge, folio.bytes());
    Some(())
}

// kernel: void __memcg_kmem_uncharge_page(struct page *, int order) (5.8 to 7.3)
#[fentry]
pub fn uncharge_kernel_pages(ctx: FEntryContext) -> u32 {
    uncharged_kernel_pages(Folio(ctx.arg(0)), ctx.arg(1));
    0
}

#[inline(always)]
fn uncharged_kernel_pages(page: Folio, order: u32) -> Option<()> {
    let memcg_data = page.memcg_data();
    if !Folio::is_kmem(memcg_data) {
        return None;
    }
    let memcg = Folio::memcg_id(memcg_data)?;
    watched(memcg)?;
    account(
        memcg,
        Kind::Kmem,
        Region::Overhead,
        Direction::Uncharge,
        global!(PAGE_SIZE) << (order & 31),
    );
    Some(())
}

// kernel: void refill_obj_stock(struct obj_cgroup *, unsigned int nr_bytes, bool allow_uncharge) (5.15 to 6.12)
//
// Every byte that objects give back passes here. It is also called, with allow_uncharge false, to keep the rest of a
// page that obj_cgroup_charge took: those bytes were never an object's.
#[fentry]
pub fn uncharge_objects(ctx: FEntryContext) -> u32 {
    if ctx.arg::<u8>(2) != 0 {
        objects(ctx.arg(0), Direction::Uncharge, u64::from(ctx.arg::<u32>(1)));
    }
    0
}

// kernel: void mem_cgroup_uncharge_skmem(struct mem_cgroup *, unsigned int) (5.3 to 6.12)
#[fentry]
pub fn uncharge_socket(ctx: FEntryContext) -> u32 {
    socket(ctx.arg(0), Direction::Uncharge, ctx.arg(1));
    0
}
