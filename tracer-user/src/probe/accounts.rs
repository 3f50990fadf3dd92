//! The accounts, shared with the kernel side as memory: reading all of them takes no system call, and keeps no program from
//! running.
//!
//! The kernel side opens accounts for threads, user space those that take what finds no room. Only user space takes numbers
//! away from accounts.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, Stack};
use tracer_common::{ACCOUNTS, Account, AccountKey};
use zerocopy::FromZeros as _;

use super::mapped::{Mapped, Shared};
use super::tracer::{ProbeError, failed, full, take};

/// Creates a new element only (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// Accounts that may be in the middle of being opened, one on each CPU and some in threads that lost theirs meanwhile: behind
/// as many numbers in a row that are not used yet, none is.
const ON_THE_WAY: u32 = 256;

/// Words of an [`Account`].
const WORDS: usize = size_of::<Account>() / size_of::<u64>();
/// Where its memcg is among them, and so on.
const MEMCG: usize = 0;
const CHARGED: usize = 3;
const UNCHARGED: usize = 4;
const LIVE: usize = 7;
const NOT_FOLLOWED: usize = 8;
const TGID_AND_USED: usize = 9;

const _: () = assert!(
    std::mem::offset_of!(Account, key) == MEMCG * 8
        && std::mem::offset_of!(Account, charged) == CHARGED * 8
        && std::mem::offset_of!(Account, uncharged) == UNCHARGED * 8
        && std::mem::offset_of!(Account, live) == LIVE * 8
        && std::mem::offset_of!(Account, not_followed) == NOT_FOLLOWED * 8
        && std::mem::offset_of!(Account, tgid) == TGID_AND_USED * 8
        && std::mem::offset_of!(Account, used) == TGID_AND_USED * 8 + 4
);

/// An [`Account`] that the kernel side writes to as well.
#[repr(transparent)]
struct Entry([AtomicU64; WORDS]);

// SAFETY: words that are only accessed atomically.
unsafe impl Shared for Entry {}

impl Entry {
    fn word(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Acquire)
    }

    /// Whether its number was ever an account's.
    fn is_used(&self) -> bool {
        self.word(TGID_AND_USED) >> u32::BITS != 0
    }

    /// As it is now. Its totals are of some moment; whose they are is known by then.
    fn read(&self) -> Account {
        let (charged, uncharged) = (self.word(CHARGED), self.word(UNCHARGED));
        let mut words: [u64; WORDS] = std::array::from_fn(|index| self.word(index));
        (words[CHARGED], words[UNCHARGED]) = (charged, uncharged);
        zerocopy::transmute!(words)
    }

    /// Makes it an empty account, or with an empty key none. Whose it is comes last.
    fn write(&self, key: AccountKey) {
        let empty = Account {
            key,
            used: 1,
            ..Account::new_zeroed()
        };
        let words: [u64; WORDS] = zerocopy::transmute!(empty);
        for (place, word) in self.0.iter().zip(words).rev() {
            place.store(word, Ordering::Release);
        }
    }
}

/// The accounts' maps.
pub(super) struct Accounts {
    numbers: HashMap<MapData, AccountKey, u32>,
    free: Stack<MapData, u32>,
    entries: Mapped<Entry>,
}

impl Accounts {
    /// Takes the maps, and makes every number free.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let mut this = Self {
            numbers: take(ebpf, "NUMBERS")?,
            free: take(ebpf, "FREE_NUMBERS")?,
            entries: Mapped::take(ebpf, "ACCOUNTS", ACCOUNTS)?,
        };
        // The lowest is taken first, so that those in use stay together.
        for number in (1..ACCOUNTS).rev() {
            this.free.push(number, 0).map_err(failed("FREE_NUMBERS"))?;
        }
        Ok(this)
    }

    fn entry(&self, number: u32) -> &Entry {
        &self.entries.all()[number as usize]
    }

    /// Opens an account; one that is open is fine.
    pub(super) fn open(&mut self, key: AccountKey) -> Result<(), ProbeError> {
        if self.number(&key).is_some() {
            return Ok(());
        }
        // Where there is none left, that is all that can fail.
        let number = self.free.pop(0).map_err(|_| full("FREE_NUMBERS"))?;
        self.entry(number).write(key);
        let opened = self.numbers.insert(key, number, BPF_NOEXIST);
        if opened.is_err() {
            self.close(number);
        }
        opened.map_err(failed("NUMBERS"))
    }

    /// The number of an account that is open.
    pub(super) fn number(&self, key: &AccountKey) -> Option<u32> {
        self.numbers.get(key, 0).ok()
    }

    /// Every account that was ever added to, with its number. One that is opened meanwhile may be missing.
    pub(super) fn read(&self) -> Vec<(u32, Account)> {
        added_to(self.entries.all())
    }

    /// What an account holds, and what it was charged that found no room in the page ledger, in bytes.
    pub(super) fn held(&self, number: u32) -> (u64, u64) {
        let entry = self.entry(number);
        (entry.word(LIVE), entry.word(NOT_FOLLOWED))
    }

    /// Ends an account: whoever would add to it finds it no more. Returns it as it is then.
    pub(super) fn end(&mut self, number: u32, key: &AccountKey) -> Account {
        let _ = self.numbers.remove(key);
        // The kernel side may still know its number.
        let entry = self.entry(number);
        entry.0[MEMCG].store(0, Ordering::SeqCst);
        Account {
            key: *key,
            ..entry.read()
        }
    }

    /// Makes the number of an account free that has ended and holds nothing.
    pub(super) fn close(&mut self, number: u32) {
        self.entry(number).write(AccountKey::new_zeroed());
        let _ = self.free.push(number, 0);
    }
}

fn added_to(entries: &[Entry]) -> Vec<(u32, Account)> {
    let mut unused = 0;
    let used = entries.iter().zip(0..).skip(1).take_while(|(entry, _)| {
        unused = if entry.is_used() { 0 } else { unused + 1 };
        unused < ON_THE_WAY
    });
    used.filter(|(entry, _)| entry.word(MEMCG) != 0)
        .map(|(entry, number)| (number, entry.read()))
        .filter(|(_, account)| account.charged != 0 || account.uncharged != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    const KEY: AccountKey = AccountKey {
        memcg: 7,
        start_ns: 8,
        tid: 9,
        kind: 1,
        region: 2,
        padding: 0,
    };

    fn filled_with(word: u64) -> Entry {
        Entry(std::array::from_fn(|_| AtomicU64::new(word)))
    }

    #[test]
    fn accounts_behind_one_that_is_being_opened_are_read() {
        let entries: Vec<Entry> = (0..1000).map(|_| filled_with(0)).collect();
        let open = |number: usize, bytes| {
            entries[number].write(KEY);
            entries[number].0[UNCHARGED].store(bytes, Ordering::Relaxed);
        };
        // 2 is on the way, to 3 nothing was added, 5 is free again.
        open(1, 4096);
        open(3, 0);
        open(4, 4096);
        open(5, 4096);
        entries[5].write(AccountKey::new_zeroed());
        open(6, 8192);
        let numbers: Vec<u32> = added_to(&entries).iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 4, 6]);
    }

    #[test]
    fn an_entry_is_an_account() {
        let entry = filled_with(u64::MAX);
        entry.write(KEY);
        entry.0[CHARGED].store(4096, Ordering::Relaxed);
        entry.0[LIVE].store(100, Ordering::Relaxed);
        let read = entry.read();
        let expected = Account {
            key: KEY,
            charged: 4096,
            live: 100,
            used: 1,
            ..Account::new_zeroed()
        };
        assert_eq!(read.as_bytes(), expected.as_bytes());
        assert!(entry.is_used());
        entry.write(AccountKey::new_zeroed());
        assert!(entry.is_used(), "numbers are used for good");
        assert_eq!(entry.read().key.memcg, 0);
    }
}
