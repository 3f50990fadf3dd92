//! Accounts: running totals of one thread in one memcg.

use crate::{COMM_LEN, abi, assert_layout};

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
        /// [`Kind`](crate::Kind) as a number.
        pub kind: u8,
        /// [`Region`](crate::Region) as a number.
        pub region: u8,
        /// Zero: keys are compared as bytes.
        pub padding: u16,
    }
}
assert_layout!(AccountKey, size 24, memcg at 0, start_ns at 8, tid at 16, kind at 20, region at 21);

abi! {
    /// An account's totals since it was opened, in bytes. Both only ever grow.
    ///
    /// A page that is placed leaves the `unplaced` account as `uncharged` and enters its region's as `charged`.
    pub struct AccountTotals {
        /// Bytes charged.
        pub charged: u64,
        /// Bytes given back by this thread, whoever had charged them.
        pub uncharged: u64,
        /// `charged + uncharged` when a record was last put into the ring buffer.
        pub emitted: u64,
        /// Process id (thread group).
        pub tgid: u32,
        /// Its place among the [`OwnerTotals`](crate::OwnerTotals); [`NOT_FOLLOWED`](crate::NOT_FOLLOWED) where its pages
        /// are not followed.
        pub slot: u32,
        /// Bytes charged whose stacks are sampled: without what only moved here from another kind, less what moved on
        /// to another. Wraps below zero where one thread charges and another finds out what for.
        pub sampled: u64,
        /// The thread's name when the account last emitted, NUL padded.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(AccountTotals, size 56, charged at 0, uncharged at 8, emitted at 16, tgid at 24, slot at 28, sampled at 32, comm at 40);
