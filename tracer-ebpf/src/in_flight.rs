//! Pages between their charge and their place, which is a matter of microseconds: they are remembered, and counted where
//! they get their place, once. One that never gets a place, since another thread was faster, is given back as what it is:
//! counted nowhere.
//!
//! A page has one slot, by its address. While another page has it, the page is counted as unplaced, as it would be without
//! all this. Whoever places it or gives it back finds it there, whichever thread that is.

use tracer_common::Placed;

use crate::alone::alone;
use crate::kernel::Folio;
use crate::maps::{IN_FLIGHT, PLACES};

/// Slots: far more than there are threads between a charge and a place at a time.
pub const IN_FLIGHT_LEN: usize = 1 << 12;

/// Room for one page in flight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// Its address, zero where there is none.
    page: u64,
    /// How many want to put a page there right now: see [`alone`].
    busy: u32,
    padding: u32,
}

impl InFlight {
    /// No page.
    pub const NONE: Self = Self {
        page: 0,
        busy: 0,
        padding: 0,
    };
}

/// Whether these pages are counted where they get their place. Small ones of private memory are, in any case.
#[inline(always)]
pub fn is_placed(which: Placed) -> bool {
    let first = (&raw const PLACES).cast::<u32>();
    // SAFETY: within the live map value.
    unsafe { first.add(which as usize).read_volatile() != 0 }
}

/// The slot of a page.
#[inline(always)]
fn slot(folio: Folio) -> *mut InFlight {
    IN_FLIGHT.place(folio.0 as u64)
}

/// Remembers a page. False where there is another: this one is then to be counted as unplaced.
#[inline(always)]
pub fn take_off(folio: Folio) -> bool {
    let slot = slot(folio);
    // SAFETY: a live map value. An empty slot is written to by who is alone, and one that has a page by who has this page.
    unsafe {
        let page = &raw mut (*slot).page;
        alone(&raw mut (*slot).busy, || match page.read_volatile() {
            0 => {
                page.write_volatile(folio.0 as u64);
                Some(())
            }
            // A page that is being charged is in flight from now on, whatever had become of it before.
            other => (other == folio.0 as u64).then_some(()),
        })
        .is_some()
    }
}

/// Whether a page was in flight; it no longer is.
#[inline(always)]
pub fn land(folio: Folio) -> bool {
    let slot = slot(folio);
    // SAFETY: as in `take_off`.
    unsafe {
        let page = &raw mut (*slot).page;
        if page.read_volatile() != folio.0 as u64 {
            return false;
        }
        page.write_volatile(0);
    }
    true
}
