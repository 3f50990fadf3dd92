//! Time that threads of watched memcgs spend reclaiming before their charge goes through.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::{LossCounter, ReclaimRecord, RecordKind};

use crate::kernel::{current_comm, current_ids, current_memcg_id, current_thread};
use crate::maps::{RECLAIMS, RECORDS, count_loss};
use crate::watch::of_id;

/// A reclaim under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ReclaimStart {
    t: u64,
    memcg: u64,
    order: u64,
}

// kernel: vmscan:mm_vmscan_memcg_reclaim_begin, tp_btf (int order, gfp_t) (to 6.18)
#[btf_tracepoint]
pub fn reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.arg(0));
    0
}

// kernel: vmscan:mm_vmscan_memcg_reclaim_begin, tp_btf (gfp_t, int order, struct mem_cgroup *) (7.1)
#[btf_tracepoint]
pub fn reclaim_begin_gfp_first(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.arg(1));
    0
}

#[inline(always)]
fn begin(order: u32) -> Option<()> {
    let memcg = current_memcg_id()?;
    of_id(memcg)?;
    let (tid, _) = current_ids();
    // SAFETY: the helper has no preconditions.
    let t = unsafe { bpf_ktime_get_boot_ns() };
    if RECLAIMS
        .insert(
            &tid,
            &ReclaimStart {
                t,
                memcg,
                order: u64::from(order),
            },
            0,
        )
        .is_err()
    {
        count_loss(LossCounter::EventsDropped, 1);
    }
    Some(())
}

// kernel: vmscan:mm_vmscan_memcg_reclaim_end, tp_btf (unsigned long nr_reclaimed, ...) (all)
#[btf_tracepoint]
pub fn reclaim_end(ctx: BtfTracePointContext) -> i32 {
    end(ctx.arg(0));
    0
}

#[inline(always)]
fn end(reclaimed_pages: u64) -> Option<()> {
    let (tid, tgid) = current_ids();
    let (_, start_ns) = current_thread();
    // SAFETY: only this thread writes its own entry.
    let start = *unsafe { RECLAIMS.get(&tid) }?;
    let _ = RECLAIMS.remove(&tid);
    // SAFETY: the helper has no preconditions.
    let t = unsafe { bpf_ktime_get_boot_ns() };
    let Some(mut entry) = RECORDS.reserve::<ReclaimRecord>(0) else {
        count_loss(LossCounter::EventsDropped, 1);
        return None;
    };
    entry.write(ReclaimRecord {
        record: RecordKind::Reclaim as u32,
        tid,
        t,
        memcg: start.memcg,
        start_ns,
        duration_ns: t.saturating_sub(start.t),
        reclaimed_pages,
        tgid,
        order: start.order as u32,
        comm: current_comm(),
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    Some(())
}
