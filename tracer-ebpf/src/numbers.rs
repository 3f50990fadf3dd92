//! Accounts by their numbers: found by a look at who had a place last, or by the hash of numbers; opened where there is none.
//!
//! The place saves some 120 instructions of the hash. It is right or it is not, whoever wrote to it: an account says itself
//! whose it is.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_common::{Account, AccountKey, LossCounter, OVERFLOW_TID};

use crate::kernel::{current_comm, current_ids};
use crate::maps::{ACCOUNTS, FREE_NUMBERS, NUMBERS, RECENT, THREADS, count_loss};

/// A number with its account.
type Numbered = (u32, *mut Account);

/// The three words of a key. By themselves, so that they stay in registers where the hash is not asked.
#[derive(Clone, Copy)]
pub struct Key {
    pub memcg: u64,
    pub start_ns: u64,
    /// The thread, kind and region: see [`AccountKey::sort`].
    pub thread: u64,
}

impl Key {
    #[inline(always)]
    fn words(self) -> Words {
        [self.memcg, self.start_ns, self.thread]
    }
}

/// A key in memory.
pub type Words = [u64; size_of::<AccountKey>() / size_of::<u64>()];

/// The account of this key, if it is open.
#[inline(always)]
pub fn find(key: Key) -> Option<Numbered> {
    // Kind and region beside the thread.
    let recent = RECENT.place(key.thread ^ (key.thread >> 13));
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
fn is_of(account: *const Account, key: Key) -> bool {
    // SAFETY: a live map value, which begins with its key. User space may change what is there.
    let theirs = unsafe { account.cast::<Words>().read_volatile() };
    // Word by word: compared as a whole, they would be stored for a function to compare.
    theirs[0] == key.memcg && theirs[1] == key.start_ns && theirs[2] == key.thread
}

#[inline(always)]
fn look_up(key: Key) -> Option<Numbered> {
    // SAFETY: one word, never changed while it is there.
    let number = *unsafe { NUMBERS.get(&key.words()) }?;
    Some((number, ACCOUNTS.get_ptr_mut(number)?))
}

/// Opens an account for a thread that has none, or falls back on its memcg's overflow account.
#[inline(always)]
pub fn open(key: Key) -> Option<Numbered> {
    let tid = key.thread as u32;
    if let Some(number) = FREE_NUMBERS.pop().ok().flatten()
        && let Some(account) = ACCOUNTS.get_ptr_mut(number)
    {
        // SAFETY: a live map value that nobody else has, all of whose figures are zero. User space reads whose it is once
        // there are some.
        unsafe {
            (*account).tgid = current_ids().1;
            (*account).used = 1;
            (*account).comm = current_comm();
            account.cast::<Words>().write(key.words());
        }
        // An interrupt may just have opened the same account: the look-up finds that one.
        if NUMBERS.insert(&key.words(), &number, BPF_NOEXIST.into()).is_err() {
            // SAFETY: as above.
            unsafe { (*account).key.memcg = 0 };
            let _ = FREE_NUMBERS.push(number, 0);
        }
    }
    if let Some(found) = look_up(key) {
        let _ = THREADS.insert(&tid, &key.start_ns, 0);
        return Some(found);
    }
    count_loss(LossCounter::AccountsFull, 1);
    look_up(Key {
        start_ns: 0,
        thread: key.thread | u64::from(OVERFLOW_TID),
        ..key
    })
}
