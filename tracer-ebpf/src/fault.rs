//! Which address a QEMU thread is faulting on: on the tracepoint backend the memcg counters change somewhere inside
//! that fault, and this is what tells guest RAM from the rest.

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tracer_common::Region;

use crate::kernel::current_ids;
use crate::maps::{FAULTS, GUEST_RANGES};
use crate::place::address_region;

/// What a QEMU thread is faulting on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FaultState {
    /// Region of the last fault's address.
    region: u32,
    /// The next charge belongs to that fault.
    armed: u16,
    /// Between `kvm_page_fault` and `kvm_entry`: the thread works on the guest's behalf.
    in_guest_fault: u16,
}

// kernel: exceptions:page_fault_user, page_fault_kernel, tp_btf (unsigned long address, ...) (all)
#[btf_tracepoint]
pub fn fault_user(ctx: BtfTracePointContext) -> i32 {
    faulted(ctx.arg(0));
    0
}

#[btf_tracepoint]
pub fn fault_kernel(ctx: BtfTracePointContext) -> i32 {
    faulted(ctx.arg(0));
    0
}

/// Only processes with guest RAM are of interest: everyone else pays one failed look-up.
#[inline(always)]
fn is_qemu(tgid: u32) -> bool {
    GUEST_RANGES.get_ptr(&tgid).is_some()
}

#[inline(always)]
fn faulted(address: u64) {
    let (tid, tgid) = current_ids();
    if !is_qemu(tgid) {
        return;
    }
    let region = address_region(tgid, address) as u32;
    if let Some(state) = FAULTS.get_ptr_mut(&tid) {
        // SAFETY: a live map value that only this thread writes.
        unsafe {
            (*state).region = region;
            (*state).armed = 1;
        }
        return;
    }
    let _ = FAULTS.insert(
        &tid,
        &FaultState {
            region,
            armed: 1,
            in_guest_fault: 0,
        },
        0,
    );
}

// kernel: kvm:kvm_page_fault (all; in the kvm module on most kernels, hence raw)
#[raw_tracepoint]
pub fn guest_fault_begin(_ctx: RawTracePointContext) -> i32 {
    set_in_guest_fault(1);
    0
}

// kernel: kvm:kvm_entry (all)
#[raw_tracepoint]
pub fn guest_fault_end(_ctx: RawTracePointContext) -> i32 {
    set_in_guest_fault(0);
    0
}

#[inline(always)]
fn set_in_guest_fault(in_guest_fault: u16) {
    let (tid, tgid) = current_ids();
    if let Some(state) = FAULTS.get_ptr_mut(&tid) {
        // SAFETY: a live map value that only this thread writes.
        unsafe { (*state).in_guest_fault = in_guest_fault };
    } else if in_guest_fault != 0 && is_qemu(tgid) {
        let _ = FAULTS.insert(
            &tid,
            &FaultState {
                region: Region::Unplaced as u32,
                armed: 0,
                in_guest_fault,
            },
            0,
        );
    }
}

/// The region of user memory that the current thread charges now, as far as its fault tells. One fault explains one
/// charge: what is charged without a fault (get_user_pages, fallocate, khugepaged) stays unplaced.
#[inline(always)]
pub fn charge_region(qemu_tgid: u32) -> Region {
    let (tid, tgid) = current_ids();
    if tgid != qemu_tgid && !is_kernel_thread() {
        return Region::Overhead;
    }
    let Some(state) = FAULTS.get_ptr_mut(&tid) else {
        return Region::Unplaced;
    };
    // SAFETY: a live map value that only this thread writes.
    let current = unsafe { *state };
    let FaultState {
        region,
        armed,
        in_guest_fault,
    } = current;
    if in_guest_fault != 0 {
        return Region::Guest;
    }
    if armed == 0 {
        return Region::Unplaced;
    }
    // SAFETY: as above.
    unsafe { (*state).armed = 0 };
    if region == Region::Guest as u32 {
        Region::Guest
    } else {
        Region::Overhead
    }
}

/// The region of user memory that the current thread gives back: only what other processes free is known.
#[inline(always)]
pub fn uncharge_region(qemu_tgid: u32) -> Region {
    let (_, tgid) = current_ids();
    if tgid != qemu_tgid && !is_kernel_thread() {
        Region::Overhead
    } else {
        Region::Unplaced
    }
}

#[inline(always)]
fn is_kernel_thread() -> bool {
    let mm: Option<u64> = crate::kernel::read(crate::kernel::current_task(), crate::constants::offset!(task_mm));
    mm == Some(0)
}
