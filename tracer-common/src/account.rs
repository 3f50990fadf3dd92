//! Accounts: running totals of one thread in one memcg.

use crate::{COMM_LEN, Kind, Region, abi, assert_layout};

/// Thread id of a memcg's overflow account: no thread has it (the idle tasks have 0, and free what interrupts free).
pub const OVERFLOW_TID: u32 = u32::MAX;

abi! {
    /// Whose account: one (memcg, thread), split by kind and region.
    ///
    /// The start time makes a reused thread id another account, so an account of a dead thread never changes again
    /// and can be read and removed without a race.
    #[derive(Hash)]
    pub struct AccountKey {
        /// The memcg's cgroup id: the kernfs node id, which is the directory's inode number.
        pub memcg: u64,
        /// `task_struct.start_boottime` of the thread, nanoseconds; 0 in a memcg's overflow account.
        pub start_ns: u64,
        /// Thread id in the initial pid namespace; [`OVERFLOW_TID`] in a memcg's overflow account.
        pub tid: u32,
        /// [`Kind`] as a number.
        pub kind: u8,
        /// [`Region`] as a number.
        pub region: u8,
        /// Zero: keys are compared as bytes.
        pub padding: u16,
    }
}
assert_layout!(AccountKey, size 24, memcg at 0, start_ns at 8, tid at 16, kind at 20, region at 21);

impl AccountKey {
    /// The last word of a key, without its thread.
    #[inline(always)]
    #[must_use]
    pub const fn sort(kind: Kind, region: Region) -> u64 {
        ((region as u64) << 40) | ((kind as u64) << 32)
    }
}

/// Numbers of accounts, 0 included, which none has. Beyond that a memcg's overflow accounts take what is charged. 3 MiB.
pub const ACCOUNTS: u32 = 32_768;

/// log2 of the accounts that are remembered to be found without a look-up: those of a few hundred threads.
pub const RECENT_BITS: u32 = 12;

abi! {
    /// An account: its totals since it was opened, and what it holds, in bytes.
    ///
    /// It has a number, which it keeps until its thread is gone and it holds nothing: pages may be held long after who was
    /// charged for them is gone.
    pub struct Account {
        /// Whose. The memcg is 0 where the number is free, or the thread is gone: nothing is added to it any more.
        pub key: AccountKey,
        /// Bytes charged. Only ever grows.
        ///
        /// A page that is placed leaves the `unplaced` account as `uncharged` and enters its region's as `charged`.
        pub charged: u64,
        /// Bytes given back by this thread, whoever had charged them. Only ever grows.
        pub uncharged: u64,
        /// `charged + uncharged` when a record was last put into the ring buffer.
        pub emitted: u64,
        /// Bytes charged whose stacks are sampled: without what only moved here from another kind, less what moved on
        /// to another. Wraps below zero where one thread charges and another finds out what for.
        pub sampled: u64,
        /// Bytes charged to the account that are still held, where its pages are followed.
        pub live: u64,
        /// Bytes charged to the account that found no room in the page ledger. Only ever grows.
        pub not_followed: u64,
        /// Process id (thread group).
        pub tgid: u32,
        /// 1 from the first account on that had this number. Lower numbers are used first.
        pub used: u32,
        /// The thread's name when the account last emitted, NUL padded.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(Account, size 96, charged at 24, uncharged at 32, emitted at 40, sampled at 48, live at 56, not_followed at 64, tgid at 72, used at 76, comm at 80);
