//! The kill.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use tracer_common::{COMM_LEN, LossCounter, OomRecord, RecordKind, VictimRecord};

use crate::constants::{constant, field, offset};
use crate::hooks::{Access, Anyone, Typed, at_entry};
use crate::kernel::{Pointer, cgroup_id, current_comm, current_ids, current_task, read, task_memcg};
use crate::maps::{RECORDS, count_loss};

/// How many levels of memcgs are searched for the one that is full.
const MAX_LEVELS: usize = 16;

/// Usage, limit (bytes) and cgroup id of a memcg.
#[derive(Clone, Copy)]
struct Fill {
    memcg: u64,
    usage: u64,
    limit: u64,
}

#[inline(always)]
fn fill(memcg: Pointer) -> Option<Fill> {
    let page_size = constant!(page_size);
    let usage: u64 = read(memcg, offset!(memcg_usage))?;
    let limit: u64 = read(memcg, offset!(memcg_max))?;
    Some(Fill {
        memcg: cgroup_id(memcg)?,
        usage: usage.wrapping_mul(page_size),
        // kernel: PAGE_COUNTER_MAX is LONG_MAX / PAGE_SIZE, so this does not overflow.
        limit: limit.wrapping_mul(page_size),
    })
}

/// The first memcg, from this one upwards, that cannot take another page; this one if none is seen to be full.
#[inline(always)]
fn full_level(memcg: Pointer) -> Option<Fill> {
    let own = fill(memcg)?;
    let mut level = memcg;
    for _ in 0..MAX_LEVELS {
        let usage: u64 = read(level, offset!(memcg_usage))?;
        let limit: u64 = read(level, offset!(memcg_max))?;
        if usage >= limit {
            return fill(level);
        }
        let parent: Pointer = read(level, offset!(memcg_counter_parent))?;
        if parent.is_null() {
            break;
        }
        level = parent.wrapping_sub(offset!(memcg_counter) as usize);
    }
    Some(own)
}

// kernel: void oom_kill_process(struct oom_control *, const char *) (5.3 to 7.3)
at_entry!(oom_kill, oom_kill_again, oom_kill_kprobe, Anyone(0) => oom_kill_begins(0));

/// A kill that cannot be told is counted: `doctor` and the recording show that something is missing.
#[inline(always)]
fn oom_kill_begins<A: Access>(_: Anyone, control: Pointer) -> Option<()> {
    let told = oom_killed(control);
    if told.is_none() {
        count_loss(LossCounter::EventsDropped, 1);
    }
    told
}

#[inline(always)]
fn oom_killed(control: Pointer) -> Option<()> {
    let memcg: Pointer = read(control, offset!(oom_memcg))?;
    let victim: Pointer = read(control, offset!(oom_chosen))?;
    let state = if memcg.is_null() {
        Fill {
            memcg: 0,
            usage: 0,
            limit: 0,
        }
    } else {
        fill(memcg)?
    };
    let (invoker_tid, invoker_tgid) = current_ids();
    let mut entry = RECORDS.reserve::<OomRecord>(0)?;
    entry.write(OomRecord {
        record: RecordKind::Oom as u32,
        invoker_tid,
        // SAFETY: the helper has no preconditions.
        t: unsafe { bpf_ktime_get_boot_ns() },
        oom_memcg: state.memcg,
        usage: state.usage,
        limit: state.limit,
        invoker_tgid,
        victim_tgid: read(victim, offset!(task_tgid)).unwrap_or(0),
        gfp_mask: read(control, offset!(oom_gfp_mask)).unwrap_or(0),
        order: read(control, offset!(oom_order)).unwrap_or(0),
        constraint: read(control, offset!(oom_constraint)).unwrap_or(u32::MAX),
        padding: 0,
        invoker_comm: current_comm(),
        victim_comm: read(victim, offset!(task_comm)).unwrap_or([0; COMM_LEN]),
    });
    entry.submit(BPF_RB_FORCE_WAKEUP.into());
    Some(())
}

// kernel: oom:mark_victim, tp_btf (struct task_struct *, uid_t) (6.10, and stable backports)
#[btf_tracepoint]
pub fn oom_victim(ctx: BtfTracePointContext) -> i32 {
    if marked_victim::<Typed>(ctx.arg(0)).is_none() {
        count_loss(LossCounter::EventsDropped, 1);
        warn!(
            &ctx,
            "a kill went unrecorded: the ring buffer is full or the victim unreadable"
        );
    }
    0
}

// kernel: static void mark_oom_victim(struct task_struct *) (5.3 to 7.3), where the tracepoint has only a thread id
at_entry!(oom_victim_function, oom_victim_function_again, oom_victim_function_kprobe, Anyone(0) => victim_is_marked(0));

#[inline(always)]
fn victim_is_marked<A: Access>(_: Anyone, victim: Pointer) -> Option<()> {
    let told = marked_victim::<A>(victim);
    if told.is_none() {
        count_loss(LossCounter::EventsDropped, 1);
    }
    told
}

// kernel: oom:mark_victim, tp_btf (int pid) (5.3 to 6.9)
#[btf_tracepoint]
pub fn oom_victim_id(ctx: BtfTracePointContext) -> i32 {
    if marked_victim_id(ctx.arg(0)).is_none() {
        count_loss(LossCounter::EventsDropped, 1);
    }
    0
}

/// Only the victim's thread id is known. Its memcg is taken to be the invoker's, which is where the charge failed.
#[inline(always)]
fn marked_victim_id(pid: u32) -> Option<()> {
    record_victim(task_memcg(current_task())?, pid, [0; COMM_LEN])
}

#[inline(always)]
fn marked_victim<A: Access>(victim: Pointer) -> Option<()> {
    let victim_tgid: u32 = A::get(victim, field!(task_tgid));
    let comm = read(victim, offset!(task_comm)).unwrap_or([0; COMM_LEN]);
    record_victim(task_memcg(victim)?, victim_tgid, comm)
}

#[inline(always)]
fn record_victim(memcg: Pointer, victim_tgid: u32, victim_comm: [u8; COMM_LEN]) -> Option<()> {
    let state = full_level(memcg)?;
    let (invoker_tid, invoker_tgid) = current_ids();
    let mut entry = RECORDS.reserve::<VictimRecord>(0)?;
    entry.write(VictimRecord {
        record: RecordKind::Victim as u32,
        invoker_tid,
        // SAFETY: the helper has no preconditions.
        t: unsafe { bpf_ktime_get_boot_ns() },
        memcg: cgroup_id(memcg).unwrap_or(0),
        usage: state.usage,
        limit: state.limit,
        oom_memcg: state.memcg,
        invoker_tgid,
        victim_tgid,
        invoker_comm: current_comm(),
        victim_comm,
    });
    entry.submit(BPF_RB_FORCE_WAKEUP.into());
    Some(())
}
