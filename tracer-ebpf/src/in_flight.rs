//! Pages between their charge and their place, which is a matter of microseconds: they are remembered, and counted where
//! they get their place, once. One that never gets a place, since another thread was faster, is given back as what it is:
//! counted nowhere.
//!
//! A page has one slot, by its address. While another page has it, the page is counted as unplaced, as it would be without
//! all this. Whoever places it or gives it back finds it there, whichever thread that is.

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::kernel::{Folio, low_half};
use crate::maps::IN_FLIGHT;

/// log2 of the slots: far more than there are threads between a charge and a place at a time.
pub const IN_FLIGHT_BITS: u32 = 12;

/// Room for one page in flight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// Its address, zero where there is none.
    page: u64,
    /// How many want to put a page there right now. Who finds itself to be the only one may do so: none comes in between,
    /// be it on another CPU, from an interrupt or after preemption. The kernels before 5.12 have no compare and swap.
    busy: u64,
}

/// The slot of a page.
#[inline(always)]
fn slot(folio: Folio) -> Option<*mut InFlight> {
    // Fibonacci hashing: pages that are charged one after the other often lie side by side.
    let hash = low_half(folio.0).wrapping_mul(0x9e37_79b1) >> (u32::BITS - IN_FLIGHT_BITS);
    IN_FLIGHT.get_ptr_mut(hash)
}

/// Remembers a page. False where there is another: this one is then to be counted as unplaced.
#[inline(always)]
pub fn take_off(folio: Folio) -> bool {
    let Some(slot) = slot(folio) else {
        return false;
    };
    let page = folio.0 as u64;
    // SAFETY: a live map value. The additions and accesses come in this order: the CPU keeps it around locked additions,
    // the compiler around what may touch memory. Nobody but who is alone writes to an empty slot, and none but this page's
    // thread to one that has this page.
    unsafe {
        let before = (&raw const (*slot).page).read_volatile();
        if before != 0 {
            // A page that is being charged is in flight from now on, whatever had become of it before.
            return before == page;
        }
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*slot).busy, 1);
        asm!("");
        let alone = (&raw const (*slot).busy).read_volatile() == 1 && (&raw const (*slot).page).read_volatile() == 0;
        if alone {
            (&raw mut (*slot).page).write_volatile(page);
        }
        asm!("");
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*slot).busy, 1_u64.wrapping_neg());
        alone
    }
}

/// Whether a page was in flight; it no longer is.
#[inline(always)]
pub fn land(folio: Folio) -> bool {
    let Some(slot) = slot(folio) else {
        return false;
    };
    // SAFETY: a live map value; see `take_off`.
    unsafe {
        let page = &raw mut (*slot).page;
        if page.read_volatile() != folio.0 as u64 {
            return false;
        }
        page.write_volatile(0);
    }
    true
}
