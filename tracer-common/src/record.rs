//! Records of the ring buffer. The first four bytes of each say which one it is.

use crate::{AccountKey, abi, assert_layout};

/// Length of a thread's name in the kernel, its NUL included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// What a record is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// [`ChargeRecord`]
    Charge = 1,
    /// [`ReclaimRecord`]
    Reclaim = 2,
    /// [`OomRecord`]
    Oom = 3,
    /// [`VictimRecord`]
    Victim = 4,
    /// [`ThreadRecord`] of a thread that exits
    Exit = 5,
    /// [`ThreadRecord`] of a thread that renamed itself
    Rename = 6,
    /// [`ExecRecord`]
    Exec = 7,
    /// [`StackRecord`](crate::StackRecord), in a ring buffer of its own
    Stack = 8,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Charge,
            2 => Self::Reclaim,
            3 => Self::Oom,
            4 => Self::Victim,
            5 => Self::Exit,
            6 => Self::Rename,
            7 => Self::Exec,
            8 => Self::Stack,
            _ => return None,
        })
    }
}

abi! {
    /// An account's totals at a moment.
    pub struct ChargeRecord {
        /// [`RecordKind::Charge`]
        pub record: u32,
        /// Process id.
        pub tgid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// Whose account.
        pub account: AccountKey,
        /// Bytes charged since the account was opened.
        pub charged: u64,
        /// Bytes given back since the account was opened.
        pub uncharged: u64,
        /// The thread's name now.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(ChargeRecord, size 72, t at 8, account at 16, charged at 40, uncharged at 48, comm at 56);

abi! {
    /// A thread reclaimed memory on a memcg's behalf before its charge could go through.
    pub struct ReclaimRecord {
        /// [`RecordKind::Reclaim`]
        pub record: u32,
        /// Thread id.
        pub tid: u32,
        /// When it ended, CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// The memcg of the thread.
        pub memcg: u64,
        /// Start time of the thread, nanoseconds.
        pub start_ns: u64,
        /// How long it took.
        pub duration_ns: u64,
        /// Pages that were reclaimed.
        pub reclaimed_pages: u64,
        /// Process id.
        pub tgid: u32,
        /// Order of the allocation that wanted the memory.
        pub order: u32,
        /// The thread's name.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(ReclaimRecord, size 72, memcg at 16, duration_ns at 32, tgid at 48, comm at 56);

abi! {
    /// The kernel decided to kill (`oom_kill_process`): the OOM control as it stood.
    pub struct OomRecord {
        /// [`RecordKind::Oom`]
        pub record: u32,
        /// Thread id of the invoker.
        pub invoker_tid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// cgroup id of the memcg whose limit was hit; 0 when the whole machine is out of memory.
        pub oom_memcg: u64,
        /// Its usage, bytes.
        pub usage: u64,
        /// Its limit, bytes.
        pub limit: u64,
        /// Process id of the invoker.
        pub invoker_tgid: u32,
        /// Process id of the chosen victim.
        pub victim_tgid: u32,
        /// `gfp_mask` of the allocation that failed.
        pub gfp_mask: u32,
        /// Its order.
        pub order: u32,
        /// `enum oom_constraint` of the running kernel.
        pub constraint: u32,
        /// Zero.
        pub padding: u32,
        /// Name of the invoking thread.
        pub invoker_comm: [u8; COMM_LEN],
        /// Name of the victim.
        pub victim_comm: [u8; COMM_LEN],
    }
}
assert_layout!(OomRecord, size 96, oom_memcg at 16, invoker_tgid at 40, invoker_comm at 64, victim_comm at 80);

abi! {
    /// A process was marked as OOM victim (`oom:mark_victim`), with the state of its memcg.
    pub struct VictimRecord {
        /// [`RecordKind::Victim`]
        pub record: u32,
        /// Thread id of the current thread: the invoker, unless a dying task was marked.
        pub invoker_tid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// cgroup id of the victim's memcg.
        pub memcg: u64,
        /// Usage and limit of the memcg that ran full: the first, from the victim's upwards, that cannot take
        /// another page; the victim's own if none is seen to be full. Bytes.
        pub usage: u64,
        /// Limit, bytes.
        pub limit: u64,
        /// cgroup id of that memcg.
        pub oom_memcg: u64,
        /// Process id of the current thread.
        pub invoker_tgid: u32,
        /// Process id of the victim.
        pub victim_tgid: u32,
        /// Name of the current thread.
        pub invoker_comm: [u8; COMM_LEN],
        /// Name of the victim.
        pub victim_comm: [u8; COMM_LEN],
    }
}
assert_layout!(VictimRecord, size 88, memcg at 16, oom_memcg at 40, invoker_tgid at 48, victim_comm at 72);

abi! {
    /// A thread that has accounts exits, or a thread in a watched memcg renames itself.
    pub struct ThreadRecord {
        /// [`RecordKind::Exit`] or [`RecordKind::Rename`]
        pub record: u32,
        /// Thread id.
        pub tid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// Start time of the thread, nanoseconds.
        pub start_ns: u64,
        /// Process id.
        pub tgid: u32,
        /// Zero.
        pub padding: u32,
        /// Its name at the end, or its new one.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(ThreadRecord, size 48, start_ns at 16, comm at 32);

abi! {
    /// A process in a watched memcg started a program: user space looks at it without waiting for its next poll.
    pub struct ExecRecord {
        /// [`RecordKind::Exec`]
        pub record: u32,
        /// Process id.
        pub tgid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// cgroup id of its memcg.
        pub memcg: u64,
        /// Its name after the exec.
        pub comm: [u8; COMM_LEN],
    }
}
assert_layout!(ExecRecord, size 40, memcg at 16, comm at 24);
