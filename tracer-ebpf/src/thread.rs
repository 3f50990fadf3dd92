//! Threads that end, change their name or start a program.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::{COMM_LEN, ExecRecord, LossCounter, RecordKind, ThreadRecord};

use crate::kernel::{Pointer, current_comm, current_ids, current_memcg_id, current_thread, read};
use crate::maps::{FAULTS, RECLAIMS, RECORDS, THREADS, count_loss};
use crate::watch::of_id;

// kernel: sched:sched_process_exit, tp_btf (struct task_struct *, ...), in the exiting thread (all)
#[btf_tracepoint]
pub fn thread_exit(_ctx: BtfTracePointContext) -> i32 {
    exited();
    0
}

#[inline(always)]
fn exited() -> Option<()> {
    let (tid, tgid) = current_ids();
    // SAFETY: only this thread writes its own entry.
    let start_ns = *unsafe { THREADS.get(&tid) }?;
    let _ = THREADS.remove(&tid);
    let _ = FAULTS.remove(&tid);
    let _ = RECLAIMS.remove(&tid);
    emit(RecordKind::Exit, tid, tgid, start_ns, current_comm())
}

#[inline(always)]
fn emit(kind: RecordKind, tid: u32, tgid: u32, start_ns: u64, comm: [u8; COMM_LEN]) -> Option<()> {
    let Some(mut entry) = RECORDS.reserve::<ThreadRecord>(0) else {
        count_loss(LossCounter::EventsDropped, 1);
        return None;
    };
    // SAFETY: the helper has no preconditions.
    let t = unsafe { bpf_ktime_get_boot_ns() };
    entry.write(ThreadRecord {
        record: kind as u32,
        tid,
        t,
        start_ns,
        tgid,
        padding: 0,
        comm,
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    Some(())
}

// kernel: task:task_rename, tp_btf (struct task_struct *, const char *comm), before the name changes (all)
#[btf_tracepoint]
pub fn thread_rename(ctx: BtfTracePointContext) -> i32 {
    renamed(ctx.arg(1));
    0
}

#[inline(always)]
fn renamed(comm: Pointer) -> Option<()> {
    // A thread may be renamed by another of its process; the name of the current one is in every charge record, so
    // only threads that have no account yet could be missed, and those are read from /proc.
    let (tid, tgid) = current_ids();
    of_id(current_memcg_id()?)?;
    emit(
        RecordKind::Rename,
        tid,
        tgid,
        current_thread().1,
        read(comm, 0).unwrap_or([0; COMM_LEN]),
    )
}

// kernel: sched:sched_process_exec, tp_btf (struct task_struct *, pid_t, struct linux_binprm *) (all)
#[btf_tracepoint]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    executed();
    0
}

#[inline(always)]
fn executed() -> Option<()> {
    let memcg = current_memcg_id()?;
    of_id(memcg)?;
    let (_, tgid) = current_ids();
    let Some(mut entry) = RECORDS.reserve::<ExecRecord>(0) else {
        count_loss(LossCounter::EventsDropped, 1);
        return None;
    };
    entry.write(ExecRecord {
        record: RecordKind::Exec as u32,
        tgid,
        // SAFETY: the helper has no preconditions.
        t: unsafe { bpf_ktime_get_boot_ns() },
        memcg,
        comm: current_comm(),
    });
    entry.submit(BPF_RB_FORCE_WAKEUP.into());
    Some(())
}
