//! Being the only one to do something, on all CPUs, without a compare and swap, which the kernels before 5.12 do not have.

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Does something if nobody else wants to do the same right now: `busy` says how many do. Who comes in between, be it on
/// another CPU, from an interrupt or after preemption, sees that it is not alone; so of several at most one does it, and none
/// waits.
///
/// # Safety
/// `busy` is in a live map value that nothing else writes to.
#[inline(always)]
pub unsafe fn alone<T>(busy: *mut u32, what: impl FnOnce() -> Option<T>) -> Option<T> {
    // SAFETY: as said. The CPU keeps accesses to memory on their side of a locked addition, and the compiler on theirs of
    // what may touch memory.
    unsafe {
        atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(busy, 1);
        asm!("");
        let done = if busy.read_volatile() == 1 { what() } else { None };
        asm!("");
        atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(busy, 1_u32.wrapping_neg());
        done
    }
}
