//! The charge path of the function backend: user folios, kernel pages, slab objects, sockets.
//!
//! Each program runs at the return of a kernel function and counts only when that succeeded. The return value stands
//! behind the last argument, so a prototype with another number of arguments is another program.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use tracer_common::{Kind, Region};

use crate::account::{Direction, account, watched};
use crate::kernel::{Folio, Pointer, cgroup_id_typed, objcg_memcg_id};
use crate::maps::global;

// kernel: int __mem_cgroup_charge(struct folio *, struct mm_struct *, gfp_t) (6.1 to 7.3)
#[fexit]
pub fn charge_folio(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(3) == 0 {
        let mm: Pointer = ctx.arg(1);
        charged_folio(Folio(ctx.arg(0)), !mm.is_null());
    }
    0
}

// kernel: int mem_cgroup_swapin_charge_folio(struct folio *, struct mm_struct *, gfp_t, swp_entry_t) (6.1 to 7.1)
#[fexit]
pub fn charge_swapin_folio(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(4) == 0 {
        charged_folio(Folio(ctx.arg(0)), true);
    }
    0
}

/// Kind of a folio that was just charged, when it is in no mapping yet: page cache is charged without an mm, shmem is
/// already swapbacked, anonymous memory is neither.
#[inline(always)]
fn charged_folio(folio: Folio, has_mm: bool) -> Option<()> {
    let memcg = Folio::memcg_id(folio.memcg_data())?;
    watched(memcg)?;
    let kind = if folio.is_swapbacked() {
        Kind::Shmem
    } else if has_mm {
        Kind::Anon
    } else {
        Kind::File
    };
    account(memcg, kind, Region::Unplaced, Direction::Charge, folio.bytes());
    Some(())
}

// kernel: int __memcg_kmem_charge_page(struct page *, gfp_t, int order) (5.8 to 7.3)
#[fexit]
pub fn charge_kernel_pages(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(3) == 0 {
        charged_kernel_pages(Folio(ctx.arg(0)), ctx.arg(2));
    }
    0
}

#[inline(always)]
fn charged_kernel_pages(page: Folio, order: u32) -> Option<()> {
    let memcg = Folio::memcg_id(page.memcg_data())?;
    watched(memcg)?;
    account(
        memcg,
        Kind::Kmem,
        Region::Overhead,
        Direction::Charge,
        global!(PAGE_SIZE) << (order & 31),
    );
    Some(())
}

// kernel: int obj_cgroup_charge(struct obj_cgroup *, gfp_t, size_t) (5.11 to 7.3)
#[fexit]
pub fn charge_objects(ctx: FExitContext) -> u32 {
    if ctx.arg::<i32>(3) == 0 {
        objects(ctx.arg(0), Direction::Charge, ctx.arg(2));
    }
    0
}

/// Objects are charged in bytes to their obj_cgroup.
#[inline(always)]
pub fn objects(objcg: Pointer, direction: Direction, bytes: u64) -> Option<()> {
    let memcg = objcg_memcg_id(objcg)?;
    watched(memcg)?;
    account(memcg, Kind::Slab, Region::Overhead, direction, bytes);
    Some(())
}

// kernel: bool mem_cgroup_charge_skmem(struct mem_cgroup *, unsigned int, gfp_t) (5.15 to 6.12)
#[fexit]
pub fn charge_socket(ctx: FExitContext) -> u32 {
    if ctx.arg::<u8>(3) != 0 {
        socket(ctx.arg(0), Direction::Charge, ctx.arg(1));
    }
    0
}

/// Socket buffers are charged in pages.
#[inline(always)]
pub fn socket(memcg: Pointer, direction: Direction, pages: u32) -> Option<()> {
    let memcg = cgroup_id_typed(memcg);
    watched(memcg)?;
    account(
        memcg,
        Kind::Sock,
        Region::Overhead,
        direction,
        u64::from(pages) * global!(PAGE_SIZE),
    );
    Some(())
}
