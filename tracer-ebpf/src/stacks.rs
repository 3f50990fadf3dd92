//! Where charges come from: the stack of the charge that takes an account across the end of a step.
//!
//! Only overhead is sampled. What waits for its place comes here again when it is placed, and guest RAM is nobody's
//! leak.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_F_USER_STACK, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_get_task_stack, bpf_ktime_get_boot_ns};
use tracer_common::{
    Account, AccountKey, KERNEL_FRAMES, LossCounter, RecordKind, Region, StackRecord, USER_FRAMES, crosses_step,
};

use crate::account::Direction;
use crate::constants::constant;
use crate::kernel::current_comm;
use crate::maps::{STACK_RECORDS, count_loss};

/// Bytes of an address.
const ADDRESS: usize = size_of::<u64>();

/// Adds to what an account samples, and samples when that passes the end of a step. `direction`: a [`Direction`].
#[inline(always)]
pub fn sample(totals: *mut Account, direction: u32, bytes: u64) {
    if constant!(stacks) == 0 {
        return;
    }
    // SAFETY: a live map value.
    let key = unsafe { (*totals).key };
    if key.region != Region::Overhead as u8 {
        return;
    }
    let is_charge = direction == Direction::Charge as u32;
    let change = if is_charge {
        bytes
    } else if direction == Direction::MoveOut as u32 {
        // Sampled there instead.
        bytes.wrapping_neg()
    } else {
        return;
    };
    // SAFETY: a live map value; atomic since an interrupt may charge on the same account in the middle of this.
    let sampled = unsafe {
        let sampled = &raw mut (*totals).sampled;
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(sampled, change);
        core::ptr::read_volatile(sampled)
    };
    if is_charge && crosses_step(&key, constant!(granularity), sampled, bytes) {
        take(&key, totals, sampled);
    }
}

/// Puts the current thread's stacks into their ring buffer.
#[inline(never)]
fn take(key: &AccountKey, totals: *mut Account, sampled: u64) {
    let Some(mut entry) = STACK_RECORDS.reserve::<StackRecord>(0) else {
        return count_loss(LossCounter::StacksDropped, 1);
    };
    let record = entry.as_mut_ptr();
    let comm = current_comm();
    // SAFETY: the record is reserved memory of its size, of which each field is written; the totals are a live map
    // value; the helpers write no more than the given size, and are given the running task, which lives.
    // kernel: bpf_get_task_stack(task, buf, size, flags) (5.9; with a typed current task 5.11 and later)
    unsafe {
        (*record).record = RecordKind::Stack as u32;
        (*record).tgid = (*totals).tgid;
        (*record).t = bpf_ktime_get_boot_ns();
        (*record).account = *key;
        (*record).sampled = sampled;
        (*record).comm = comm;
        let task = bpf_get_current_task_btf();
        let kernel = (&raw mut (*record).kernel).cast::<c_void>();
        let user = (&raw mut (*record).user).cast::<c_void>();
        let kernel_bytes = bpf_get_task_stack(task.cast(), kernel, (KERNEL_FRAMES * ADDRESS) as u32, 0);
        let task = bpf_get_current_task_btf();
        let user_bytes = bpf_get_task_stack(
            task.cast(),
            user,
            (USER_FRAMES * ADDRESS) as u32,
            u64::from(BPF_F_USER_STACK),
        );
        (*record).kernel_bytes = kernel_bytes as i32;
        (*record).user_bytes = user_bytes as i32;
    }
    entry.submit(BPF_RB_NO_WAKEUP.into());
}
