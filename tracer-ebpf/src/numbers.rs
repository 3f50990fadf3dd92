//! Accounts by their numbers: found by a look at who had a place last, or by the hash of numbers; opened where there is none.
//!
//! The place saves some 120 instructions of the hash. It is right or it is not, whoever wrote to it: an account says itself
//! whose it is.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_get_current_comm;
use tracer_common::{Account, AccountKey, COMM_LEN, LossCounter, OVERFLOW_TID};

use crate::kernel::current_ids;
use crate::maps::{ACCOUNTS, FREE_NUMBERS, NUMBERS, RECENT, THREADS, count_loss};

/// A number with its account.
type Numbered = (u32, *mut Account);

/// The account of this key, if it is open.
#[inline(always)]
pub fn find(key: &AccountKey) -> Option<Numbered> {
    let recent = RECENT.place(key.tid ^ (u32::from(key.kind) << 24) ^ (u32::from(key.region) << 29));
    // SAFETY: a live map value.
    let number = unsafe { recent.read_volatile() };
    let account = ACCOUNTS.get_ptr_mut(number)?;
    if is_of(account, key) {
        return Some((number, account));
    }
    let (number, account) = look_up(key)?;
    // SAFETY: as above.
    unsafe { recent.write_volatile(number) };
    Some((number, account))
}

#[inline(always)]
fn is_of(account: *const Account, key: &AccountKey) -> bool {
    let (theirs, ours) = (account.cast::<[u64; 3]>(), (&raw const *key).cast::<[u64; 3]>());
    // SAFETY: a live map value, which begins with its key, and a key: three words each. User space may change what is there.
    unsafe {
        let theirs = theirs.read_volatile();
        let ours = ours.read();
        theirs[0] == ours[0] && theirs[1] == ours[1] && theirs[2] == ours[2]
    }
}

#[inline(always)]
fn look_up(key: &AccountKey) -> Option<Numbered> {
    // SAFETY: one word, never changed while it is there.
    let number = *unsafe { NUMBERS.get(key) }?;
    Some((number, ACCOUNTS.get_ptr_mut(number)?))
}

/// Opens an account for a thread that has none, or falls back on its memcg's overflow account, whose key this becomes then.
#[inline(always)]
pub fn open(key: &mut AccountKey) -> Option<Numbered> {
    if let Some(number) = FREE_NUMBERS.pop().ok().flatten()
        && let Some(account) = ACCOUNTS.get_ptr_mut(number)
    {
        // SAFETY: a live map value that nobody else has, all of whose figures are zero. User space reads whose it is once
        // there are some.
        unsafe {
            (*account).tgid = current_ids().1;
            (*account).used = 1;
            (*account).comm = bpf_get_current_comm().unwrap_or([0; COMM_LEN]);
            (*account).key = *key;
        }
        // An interrupt may just have opened the same account: the look-up finds that one.
        if NUMBERS.insert(&*key, &number, BPF_NOEXIST.into()).is_err() {
            // SAFETY: as above.
            unsafe { (*account).key.memcg = 0 };
            let _ = FREE_NUMBERS.push(number, 0);
        }
    }
    if let Some(found) = look_up(key) {
        let _ = THREADS.insert(&key.tid, &key.start_ns, 0);
        return Some(found);
    }
    count_loss(LossCounter::AccountsFull, 1);
    *key = AccountKey {
        start_ns: 0,
        tid: OVERFLOW_TID,
        ..*key
    };
    look_up(key)
}
