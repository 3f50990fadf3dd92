//! Small pages in the page ledger: most have an entry of their own in an array, by their address, which takes a tenth of the
//! instructions of a hash table. Where another page has the entry, they are in the hash table, as larger ones are.
//!
//! A page is in the ledger from its charge to its end, and its address means no other meanwhile: nobody else writes to an
//! entry that has this page.

use tracer_common::SinglePage;

use crate::alone::alone;
use crate::constants::constant;
use crate::hash;
use crate::maps::SINGLES;

/// What became of a page that was to be put into the array.
pub enum Put {
    /// It is there.
    New,
    /// It is there, and was before, held by this account.
    InsteadOf(u32),
    /// Another one is.
    NoRoom,
}

#[inline(always)]
fn entry(page: u64) -> Option<*mut SinglePage> {
    SINGLES.get_ptr_mut(hash::place(page as u32, constant!(singles_shift) as u32))
}

/// Puts a page into the array.
#[inline(always)]
pub fn put(page: u64, owner: u32) -> Put {
    let Some(entry) = entry(page) else {
        return Put::NoRoom;
    };
    // SAFETY: a live map value. User space takes its turn as well, when it forgets what it watches no more.
    unsafe {
        let there = (&raw const (*entry).page).read_volatile();
        if there != 0 && there != page {
            return Put::NoRoom;
        }
        alone(&raw mut (*entry).busy, || {
            let there = (&raw const (*entry).page).read_volatile();
            let before = (&raw const (*entry).owner).read_volatile();
            if there != 0 && there != page {
                return None;
            }
            (&raw mut (*entry).owner).write_volatile(owner);
            (&raw mut (*entry).page).write_volatile(page);
            Some(if there == 0 { Put::New } else { Put::InsteadOf(before) })
        })
        .unwrap_or(Put::NoRoom)
    }
}

/// The number of the account that holds a page, as a place that may be written to; `None` where the page is not in the array.
#[inline(always)]
pub fn find(page: u64) -> Option<*mut u32> {
    let entry = entry(page)?;
    // SAFETY: as in `put`.
    unsafe {
        let found = (&raw const (*entry).page).read_volatile() == page;
        found.then_some(&raw mut (*entry).owner)
    }
}

/// Takes a page out, and says which account held it.
#[inline(always)]
pub fn remove(page: u64) -> Option<u32> {
    let entry = entry(page)?;
    // SAFETY: as in `put`.
    unsafe {
        if (&raw const (*entry).page).read_volatile() != page {
            return None;
        }
        let owner = (&raw const (*entry).owner).read_volatile();
        (&raw mut (*entry).page).write_volatile(0);
        Some(owner)
    }
}
