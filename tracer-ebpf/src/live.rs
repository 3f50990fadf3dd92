//! The page ledger: follows each page of overhead from its place to the end of its charge, so that what an account still
//! holds is known exactly, whoever gives it back, and also when its thread is gone.
//!
//! Counted up before a page is in the ledger, and down after it has left it: an account that holds nothing has no page.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_common::{Account, Kind, LivePages, LossCounter, MAX_ORDER, NOT_FOLLOWED, Region};

use crate::account::{Direction, account, place};
use crate::constants::constant;
use crate::hooks::{Access, at_entry};
use crate::kernel::{Folio, Pointer, as_number};
use crate::maps::{ACCOUNTS, ORDERS, PAGES, count_loss};
use crate::singles::{self, Put, put, remove};
use crate::watch::{Memcg, OfFolio};

/// Bytes of a `struct page`. User space sees to it that it is so here.
const STRUCT_PAGE: u64 = 64;

/// A page whose kind is not asked for.
const ANY_KIND: u32 = u32::MAX;

/// Whether pages are followed at all.
#[inline(always)]
fn is_on() -> bool {
    constant!(follow) != 0
}

/// Whether pages of this kind and region are followed.
#[inline(always)]
pub fn follows(kind: Kind, region: Region) -> bool {
    is_on() && region == Region::Overhead && kind.is_followed()
}

/// A folio that was counted as unplaced gets its place in this region.
#[inline(always)]
pub fn placed(folio: Folio, memcg: Memcg, kind: Kind, region: Region, bytes: u64) {
    let owner = place(memcg, kind, region, bytes);
    follow(folio.0, owner, bytes);
}

/// Pages were charged where they belong: adds them to the account, and follows them.
#[inline(always)]
pub fn charged(page: Pointer, memcg: Memcg, kind: Kind, region: Region, bytes: u64) {
    let owner = account(memcg, kind, region, Direction::Charge, bytes);
    follow(page, owner, bytes);
}

/// Pages are given back.
#[inline(always)]
pub fn uncharged(page: Pointer, memcg: Memcg, kind: Kind, region: Region, bytes: u64) {
    account(memcg, kind, region, Direction::Uncharge, bytes);
    // Guest RAM that was touched before its place was known is followed.
    if is_on() && region != Region::Unplaced {
        release(as_number(page), pages(bytes), kind as u32);
    }
}

/// The kernel says what kind of kernel memory a page is: `owner` is the account of this kind.
#[inline(always)]
pub fn told_apart(page: Pointer, owner: u32, bytes: u64) {
    if is_on() && owner != NOT_FOLLOWED {
        move_to(as_number(page), pages(bytes), owner);
    }
}

/// A new folio takes the place of an old one, which is still charged: it is held by whoever holds the old.
#[inline(always)]
pub fn replaced(old: Folio, new: Folio) {
    if is_on() {
        copy(as_number(old.0), as_number(new.0), pages(new.bytes()));
    }
}

// kernel: void mem_cgroup_migrate(struct folio *old, struct folio *new) (6.7 to 7.3): the charge goes over to the new
// folio. Before that the new one is charged, and `charge_replacement` sees it.
at_entry!(move_charge, move_charge_again, move_charge_kprobe, OfFolio(0) => moved(0, 1));

#[inline(always)]
fn moved<A: Access>(owner: OfFolio, old: Pointer, new: Pointer) -> Option<()> {
    if !is_on() {
        return None;
    }
    let (old, new) = (Folio(old), Folio(new));
    owner.memcg()?;
    let pages = pages(new.bytes());
    copy(as_number(old.0), as_number(new.0), pages);
    release(as_number(old.0), pages, ANY_KIND);
    Some(())
}

/// Follows pages that are held by this account.
#[inline(always)]
pub fn follow(page: Pointer, owner: u32, bytes: u64) {
    if is_on() && owner != NOT_FOLLOWED {
        insert(as_number(page), pages(bytes), owner);
    }
}

#[inline(always)]
fn pages(bytes: u64) -> u64 {
    bytes >> (constant!(page_shift) & 31)
}

#[inline(always)]
fn bytes(pages: u64) -> u64 {
    pages << (constant!(page_shift) & 31)
}

/// log2 of a number of pages that is a power of two.
#[inline(always)]
fn order_of(pages: u64) -> u64 {
    if pages <= 1 {
        return 0;
    }
    u64::from(pages.trailing_zeros()) & (STRUCT_PAGE - 1)
}

/// Adds to what an account holds, or takes from it.
#[inline(always)]
fn change(account: *mut Account, bytes: u64) {
    // SAFETY: a live map value; pages come and go on every CPU.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*account).live, bytes) };
}

#[inline(always)]
fn take_from(owner: u32, pages: u64) {
    if let Some(account) = ACCOUNTS.get_ptr_mut(owner) {
        change(account, bytes(pages).wrapping_neg());
    }
}

/// Whether pages of this order were ever followed, so that pieces of them may come back.
#[inline(always)]
fn seen(order: u64) -> Option<*mut u8> {
    let orders = ORDERS.get_ptr_mut(0)?;
    // Read back, so that the bound is not left out as being known: the verifier does not know it.
    // SAFETY: a variable of this function.
    let order = unsafe { (&raw const order).read_volatile() };
    // SAFETY: within the live map value, whatever the order.
    Some(unsafe {
        (&raw mut *orders)
            .cast::<u8>()
            .add((order & (STRUCT_PAGE - 1)) as usize)
    })
}

/// [`put_in`], as a function that the verifier looks at once: see `add` in `account.rs`. Such functions return a number.
#[unsafe(no_mangle)]
extern "C" fn insert(page: u64, pages: u64, owner: u32) -> u32 {
    put_in(page, pages, owner);
    0
}

/// Puts pages into the ledger.
#[inline(always)]
fn put_in(page: u64, pages: u64, owner: u32) {
    let order = order_of(pages);
    let key = page | order;
    let entry = LivePages {
        owner,
        pages: pages as u32,
    };
    let Some(account) = ACCOUNTS.get_ptr_mut(owner) else {
        return count_loss(LossCounter::LiveFull, bytes(pages));
    };
    if order != 0
        && let Some(seen) = seen(order)
    {
        // SAFETY: as in `seen`; it is only ever set.
        unsafe { seen.write_volatile(1) };
    }
    change(account, bytes(pages));
    if pages == 1 {
        match put(page, owner) {
            Put::New => return,
            // The end of what was there before was missed.
            Put::InsteadOf(before) => return take_from(before, pages),
            Put::NoRoom => (),
        }
    }
    if PAGES.insert(&key, &entry, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    if let Some(stale) = PAGES.get_ptr_mut(&key) {
        // The end of what was there before was missed.
        // SAFETY: a live map value of pages that are charged right now, so nobody else changes it.
        let before = unsafe { core::ptr::replace(stale, entry) };
        return take_from(before.owner, before.pages.into());
    }
    change(account, bytes(pages).wrapping_neg());
    // SAFETY: as in `change`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*account).not_followed, bytes(pages)) };
    count_loss(LossCounter::LiveFull, bytes(pages));
}

/// Finds pages in the ledger: as they were put there, or as pieces of a larger one, where a kind must be the same.
#[inline(always)]
fn find(page: u64, pages: u64, kind: u32) -> Option<(u64, *mut LivePages)> {
    let order = order_of(pages);
    let key = page | order;
    if let Some(entry) = PAGES.get_ptr_mut(&key) {
        return Some((key, entry));
    }
    for larger in 1..=u64::from(MAX_ORDER) {
        if larger <= order {
            continue;
        }
        // SAFETY: as in `seen`.
        if !seen(larger).is_some_and(|seen| unsafe { seen.read_volatile() } != 0) {
            continue;
        }
        // Pages are aligned to their order, and so are their `struct page`s.
        let key = (page & !((STRUCT_PAGE << larger) - 1)) | larger;
        if let Some(entry) = PAGES.get_ptr_mut(&key)
            && is_piece(entry, pages, kind)
        {
            return Some((key, entry));
        }
    }
    None
}

#[inline(always)]
fn is_piece(entry: *const LivePages, pages: u64, kind: u32) -> bool {
    // SAFETY: a live map value.
    let entry = unsafe { core::ptr::read_volatile(entry) };
    if u64::from(entry.pages) < pages {
        return false;
    }
    let Some(account) = ACCOUNTS.get(entry.owner) else {
        return false;
    };
    let of = u32::from(account.key.kind);
    kind == ANY_KIND || kind == of || is_kernel(kind) && is_kernel(of)
}

/// Kernel pages are given back as kernel memory, whatever they were.
#[inline(always)]
fn is_kernel(kind: u32) -> bool {
    [Kind::Kmem, Kind::Pagetable, Kind::SecondaryPagetable, Kind::KernelStack]
        .into_iter()
        .any(|known| known as u32 == kind)
}

/// [`take_out`]: see [`insert`].
#[unsafe(no_mangle)]
extern "C" fn release(page: u64, pages: u64, kind: u32) -> u32 {
    take_out(page, pages, kind);
    0
}

/// Takes pages out of the ledger, if they are in it.
#[inline(always)]
fn take_out(page: u64, pages: u64, kind: u32) {
    if pages == 1
        && let Some(owner) = remove(page)
    {
        return take_from(owner, pages);
    }
    let Some((key, entry)) = find(page, pages, kind) else {
        return;
    };
    // SAFETY: a live map value; pieces may be given back on several CPUs at once.
    let LivePages { owner, pages: left } = unsafe { core::ptr::read_volatile(entry) };
    let gone = if u64::from(left) > pages {
        // SAFETY: as above.
        unsafe {
            let count = &raw mut (*entry).pages;
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(count, (pages as u32).wrapping_neg());
            core::ptr::read_volatile(count) == 0
        }
    } else {
        // SAFETY: as above. What cannot be removed is worth nothing when it is found again.
        unsafe { core::ptr::write_volatile(&raw mut (*entry).pages, 0) };
        true
    };
    if gone {
        let _ = PAGES.remove(&key);
    }
    take_from(owner, pages);
}

/// Follows new pages for whoever holds the old ones.
#[inline(never)]
fn copy(old: u64, new: u64, pages: u64) {
    if pages == 1
        && let Some(owner) = singles::find(old)
    {
        // SAFETY: a live map value of a page that is charged.
        insert(new, pages, unsafe { owner.read_volatile() });
        return;
    }
    if let Some((_, entry)) = find(old, pages, ANY_KIND) {
        // SAFETY: a live map value.
        let owner = unsafe { core::ptr::read_volatile(&raw const (*entry).owner) };
        insert(new, pages, owner);
    }
}

/// Counts pages for another account.
#[inline(never)]
fn move_to(page: u64, pages: u64, owner: u32) {
    let single = if pages == 1 { singles::find(page) } else { None };
    let held_by = match single {
        Some(held_by) => held_by,
        None => {
            let Some(entry) = PAGES.get_ptr_mut(&(page | order_of(pages))) else {
                return;
            };
            // SAFETY: a live map value.
            unsafe { &raw mut (*entry).owner }
        }
    };
    let Some(account) = ACCOUNTS.get_ptr_mut(owner) else {
        return;
    };
    // SAFETY: in a live map value of pages that are being made ready, so nobody else changes it.
    unsafe {
        let before = held_by.read_volatile();
        change(account, bytes(pages));
        held_by.write_volatile(owner);
        take_from(before, pages);
    }
}
