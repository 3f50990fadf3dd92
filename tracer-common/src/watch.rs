//! Which memcgs are watched, and what the kernel side could not keep.

use crate::{abi, assert_layout};

abi! {
    /// Value of the watch list, keyed by cgroup id.
    pub struct Watched {
        /// Thread group id of the QEMU whose guest RAM this memcg holds; 0 while unknown.
        pub qemu_tgid: u32,
        /// Number of the pod, as user space counts them.
        pub pod: u32,
    }
}
assert_layout!(Watched, size 8);

abi! {
    /// A watched memcg, by its number.
    pub struct WatchedMemcg {
        /// Its cgroup id.
        pub memcg: u64,
        /// What is known of it.
        pub watched: Watched,
    }
}
assert_layout!(WatchedMemcg, size 16, watched at 8);

impl WatchedMemcg {
    /// Of a number that is not in use.
    pub const NONE: Self = Self {
        memcg: 0,
        watched: Watched { qemu_tgid: 0, pod: 0 },
    };
}

/// Numbers of watched memcgs are below this, and not zero.
pub const WATCHES: u32 = 4096;

/// Bytes of the filter for watched memcgs, by cgroup id.
pub const FILTER_LEN: u32 = 1 << 16;

/// Addresses of memcgs and obj_cgroups that the kernel side knows at a time.
pub const KNOWN_LEN: usize = 1 << 11;

/// Which pages may be seen getting their place: index into an array of 1 where they are.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Page cache.
    Files = 0,
    /// Shared memory.
    Shmem = 1,
}

impl Placed {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// Index into the array of what concerns all watches.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// How often the kernel made a memcg, or took one away.
    ChangedByKernel = 0,
    /// How often user space changed what is watched.
    ChangedByUser = 1,
    /// 1 where the kernel side is told of the former, and so may remember addresses.
    Caches = 2,
    /// Its value means nothing.
    Fence = 3,
}

impl WatchState {
    /// How many there are.
    pub const COUNT: u32 = 4;
}

/// Index into the per-CPU array of what the kernel side could not do as meant. None of these lose bytes silently:
/// each is reported.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCounter {
    /// The ring buffer was full: the bytes stay in the account and come with a later record.
    RingFull = 0,
    /// The account map was full: the bytes went into the memcg's overflow account.
    AccountsFull = 1,
    /// Bytes that found no account at all, not even an overflow account.
    LostBytes = 2,
    /// Reclaim, OOM, exit or rename records that found the ring buffer full.
    EventsDropped = 3,
    /// Pages of page cache whose file found no room in the top list.
    FilesFull = 4,
    /// Calls of a charging function whose return no kretprobe saw: their charges, if they succeeded, are not counted.
    ReturnsMissed = 5,
    /// Runs that a program was kept from, and that its second did in its place: no loss.
    RunsMadeUp = 6,
    /// Stacks that found their ring buffer full: their bytes are in the accounts, and stand for the account's next stack.
    StacksDropped = 7,
    /// Bytes of pages that the page ledger had no room for: they are in their account, but nobody knows how long.
    LiveFull = 8,
}

impl LossCounter {
    /// How many counters there are.
    pub const COUNT: usize = 9;
}
