//! The one place that adds to an account and decides when to emit.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use tracer_common::{Account, AccountKey, ChargeRecord, Kind, LossCounter, NOT_FOLLOWED, RecordKind, Region};

use crate::constants::constant;
use crate::kernel::{current_comm, current_thread};
use crate::live::follows;
use crate::maps::{RECORDS, count_loss};
use crate::numbers::{self, Key};
use crate::watch::Memcg;

/// Which way bytes go.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum Direction {
    Charge = 0,
    Uncharge = GIVEN_BACK,
    /// Charged before, and now found to be of another kind: given back here, charged there.
    MoveOut = 2 | GIVEN_BACK,
    /// On its way back from that kind to be given up: charged here, given back there.
    MoveBack = 2,
}

/// The bit of a direction in which bytes are given back.
const GIVEN_BACK: u32 = 1;

/// Adds bytes to the current thread's account in a watched memcg. Returns the number of the account that its pages are
/// followed for.
#[inline(always)]
pub fn account(memcg: Memcg, kind: Kind, region: Region, direction: Direction, bytes: u64) -> u32 {
    if bytes == 0 {
        return NOT_FOLLOWED;
    }
    let number = add(memcg.memcg, AccountKey::sort(kind, region), direction as u32, bytes);
    if follows(kind, region) { number } else { NOT_FOLLOWED }
}

/// As [`account`], of some bytes and without a call: for what nearly every page fault does.
#[inline(always)]
pub fn account_at_once(memcg: Memcg, kind: Kind, region: Region, direction: Direction, bytes: u64) -> u32 {
    let number = add_to(memcg.memcg, AccountKey::sort(kind, region), direction as u32, bytes);
    if follows(kind, region) { number } else { NOT_FOLLOWED }
}

/// Adds or takes back a signed number of pages.
#[inline(always)]
pub fn account_pages(memcg: Memcg, kind: Kind, region: Region, pages: i64) {
    account_bytes(memcg, kind, region, pages * constant!(page_size) as i64);
}

/// Adds or takes back a signed number of bytes. Returns what [`account`] does.
#[inline(always)]
pub fn account_bytes(memcg: Memcg, kind: Kind, region: Region, bytes: i64) -> u32 {
    let direction = if bytes < 0 {
        Direction::Uncharge
    } else {
        Direction::Charge
    };
    account(memcg, kind, region, direction, bytes.unsigned_abs())
}

/// Moves bytes that are charged already to the kind that they turn out to be of, or back (negative). Returns what
/// [`account`] does of the account of that kind.
#[inline(always)]
pub fn reclassify(memcg: Memcg, from: Kind, to: Kind, bytes: i64) -> u32 {
    let (leave, enter) = if bytes < 0 {
        (Direction::MoveBack, Direction::Uncharge)
    } else {
        (Direction::MoveOut, Direction::Charge)
    };
    account(memcg, from, Region::Overhead, leave, bytes.unsigned_abs());
    account(memcg, to, Region::Overhead, enter, bytes.unsigned_abs())
}

/// A charged page got its place. Returns what [`account`] does of the account of its region.
#[inline(always)]
pub fn place(memcg: Memcg, kind: Kind, region: Region, bytes: u64) -> u32 {
    account(memcg, kind, Region::Unplaced, Direction::Uncharge, bytes);
    account(memcg, kind, region, Direction::Charge, bytes)
}

/// [`add_to`], as a function with a name of its own: the verifier looks at it once, and not for each way that leads to it.
/// kernel: "global functions", kernel/bpf/verifier.c do_check_subprogs() (5.6 to 7.3)
#[unsafe(no_mangle)]
extern "C" fn add(memcg: u64, sort: u64, direction: u32, bytes: u64) -> u32 {
    add_to(memcg, sort, direction, bytes)
}

/// Adds to the current thread's account, and returns its number. Where there is no room for one it is that of the memcg's
/// overflow account: what is told of totals is told under the account that has them.
#[inline(always)]
fn add_to(memcg: u64, sort: u64, direction: u32, bytes: u64) -> u32 {
    let (tid, start_ns) = current_thread();
    let key = Key {
        memcg,
        start_ns,
        thread: sort | tid,
    };
    let Some((number, account)) = numbers::find(key).or_else(|| numbers::open(key)) else {
        count_loss(LossCounter::LostBytes, bytes);
        return NOT_FOLLOWED;
    };
    // SAFETY: a live map value, where the two sides are side by side. Atomic, since an interrupt may charge or free on the same
    // thread's account in the middle of this.
    unsafe {
        let side = (&raw mut (*account).charged).add((direction & GIVEN_BACK) as usize);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(side, bytes);
    }
    crate::stacks::sample(account, direction, bytes);
    emit_when_due(account);
    number
}

/// Puts the account's totals into the ring buffer once enough has gathered. A full ring leaves everything as it is:
/// the next charge, or user space reading the map, tries again.
#[inline(always)]
fn emit_when_due(totals: *mut Account) {
    // SAFETY: as in `add`; the counters are read once each, and only ever grow.
    let (charged, uncharged, emitted) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*totals).charged),
            core::ptr::read_volatile(&raw const (*totals).uncharged),
            core::ptr::read_volatile(&raw const (*totals).emitted),
        )
    };
    let moved = charged.wrapping_add(uncharged);
    if moved.wrapping_sub(emitted) < constant!(granularity) {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<ChargeRecord>(0) else {
        return count_loss(LossCounter::RingFull, 1);
    };
    let comm = current_comm();
    // SAFETY: the helper has no preconditions; the totals are a live map value.
    let (t, tgid, account) = unsafe { (bpf_ktime_get_boot_ns(), (*totals).tgid, (*totals).key) };
    entry.write(ChargeRecord {
        record: RecordKind::Charge as u32,
        tgid,
        t,
        account,
        charged,
        uncharged,
        comm,
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    // SAFETY: as above.
    unsafe {
        (*totals).emitted = moved;
        (*totals).comm = comm;
    }
}
