//! The tracepoint backend: signed changes of a memcg's counters, in the thread that caused them.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::{Kind, Region, Watched};

use crate::account::{Direction, account, account_pages, reclassify};
use crate::constants::{constant, offset};
use crate::fault::{charge_region, uncharge_region};
use crate::kernel::{Pointer, cgroup_id_typed};
use crate::watch::{Memcg, known, of_id};

// kernel: memcg:mod_memcg_lruvec_state, tp_btf (struct mem_cgroup *, int item, int | long val) (6.15 to 7.3). The value
// is in pages, whatever the item's unit.
#[btf_tracepoint]
pub fn lruvec_stat(ctx: BtfTracePointContext) -> i32 {
    lruvec_changed(ctx.arg(0), ctx.arg(1), i64::from(ctx.arg::<i32>(2)));
    0
}

#[inline(always)]
fn lruvec_changed(memcg: Pointer, item: u32, pages: i64) -> Option<()> {
    if memcg.is_null() {
        return None;
    }
    let kind = if item == offset!(stat_anon) {
        Kind::Anon
    } else if item == offset!(stat_file) {
        Kind::File
    } else if item == offset!(stat_shmem) {
        Kind::Shmem
    } else if item == offset!(stat_pagetable) {
        Kind::Pagetable
    } else if item == offset!(stat_secondary_pagetable) {
        Kind::SecondaryPagetable
    } else if item == offset!(stat_kernel_stack) {
        Kind::KernelStack
    } else if item == offset!(stat_node_vmalloc) {
        Kind::Vmalloc
    } else if item == offset!(stat_hugetlb) {
        Kind::Hugetlb
    } else {
        return None;
    };
    let memcg = known(of_id(cgroup_id_typed(memcg))?);
    match kind {
        Kind::Anon => account_pages(memcg, kind, user_region(memcg.watched, pages), pages),
        Kind::File | Kind::Hugetlb => account_pages(memcg, kind, Region::Overhead, pages),
        Kind::Shmem => {
            // NR_FILE_PAGES counted it already, as file.
            let out = if pages < 0 {
                Direction::MoveBack
            } else {
                Direction::MoveOut
            };
            let bytes = pages.unsigned_abs() * constant!(page_size);
            account(memcg, Kind::File, Region::Overhead, out, bytes);
            account_pages(memcg, kind, user_region(memcg.watched, pages), pages);
        }
        _ => kernel_part(memcg, kind, pages),
    }
    Some(())
}

#[inline(always)]
fn user_region(entry: Watched, pages: i64) -> Region {
    if entry.qemu_tgid == 0 {
        Region::Overhead
    } else if pages > 0 {
        charge_region(entry.qemu_tgid)
    } else {
        uncharge_region(entry.qemu_tgid)
    }
}

/// A part of kernel memory that has a name: MEMCG_KMEM counted it already, as kmem.
#[inline(always)]
fn kernel_part(memcg: Memcg, kind: Kind, pages: i64) {
    reclassify(memcg, Kind::Kmem, kind, pages * constant!(page_size) as i64);
}

// kernel: memcg:mod_memcg_state, tp_btf (struct mem_cgroup *, int item, int | long val) (6.15 to 7.3)
#[btf_tracepoint]
pub fn memcg_stat(ctx: BtfTracePointContext) -> i32 {
    memcg_changed(ctx.arg(0), ctx.arg(1), i64::from(ctx.arg::<i32>(2)));
    0
}

#[inline(always)]
fn memcg_changed(memcg: Pointer, item: u32, pages: i64) -> Option<()> {
    if memcg.is_null() {
        return None;
    }
    let kind = if item == offset!(stat_kmem) {
        Kind::Kmem
    } else if item == offset!(stat_sock) {
        Kind::Sock
    } else if item == offset!(stat_vmalloc) {
        Kind::Vmalloc
    } else {
        return None;
    };
    let memcg = known(of_id(cgroup_id_typed(memcg))?);
    if kind == Kind::Vmalloc {
        kernel_part(memcg, kind, pages);
    } else {
        account_pages(memcg, kind, Region::Overhead, pages);
    }
    Some(())
}
