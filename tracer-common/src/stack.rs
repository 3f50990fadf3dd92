//! Stacks of charges, and which charges are sampled.

use crate::{AccountKey, COMM_LEN, abi, assert_layout};

/// Most frames of a kernel stack that are kept, those of the probe included.
pub const KERNEL_FRAMES: usize = 48;
/// Most frames of a user stack that are kept, the innermost.
pub const USER_FRAMES: usize = 80;

abi! {
    /// Where a charge came from. Which bytes it stands for follows from `sampled`, as totals: see [`steps`].
    pub struct StackRecord {
        /// [`RecordKind::Stack`](crate::RecordKind::Stack)
        pub record: u32,
        /// Process id.
        pub tgid: u32,
        /// CLOCK_BOOTTIME nanoseconds.
        pub t: u64,
        /// Whose account.
        pub account: AccountKey,
        /// [`Account::sampled`](crate::Account::sampled) with this charge.
        pub sampled: u64,
        /// The thread's name now.
        pub comm: [u8; COMM_LEN],
        /// Bytes of `kernel` that are filled; negative when the kernel gave none.
        pub kernel_bytes: i32,
        /// Bytes of `user` that are filled; negative when there is none, as in kernel threads.
        pub user_bytes: i32,
        /// Return addresses in the kernel, innermost first.
        pub kernel: [u64; KERNEL_FRAMES],
        /// Addresses in the process, innermost first.
        pub user: [u64; USER_FRAMES],
    }
}
assert_layout!(StackRecord, size 1096, account at 16, sampled at 40, comm at 48, kernel_bytes at 64, kernel at 72, user at 456);

/// Keeps positions above zero where `sampled` wraps below it.
const BIAS: u64 = 1 << 62;

/// Where in the first step an account begins: anywhere, but always the same. Accounts that never fill a step are so
/// sampled as often as their bytes are worth.
#[inline(always)]
const fn phase(key: &AccountKey, granularity: u64) -> u64 {
    let thread = key.start_ns ^ ((key.tid as u64) << 32) ^ key.memcg.rotate_left(17);
    let mixed = (thread ^ ((key.kind as u64) << 8) ^ key.region as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Multiplying and shifting would overflow for steps of 4 GiB and more; nobody samples so rarely.
    ((mixed >> 32) * (granularity & 0xffff_ffff)) >> 32
}

#[inline(always)]
const fn position(key: &AccountKey, granularity: u64, sampled: u64) -> u64 {
    sampled.wrapping_add(BIAS + phase(key, granularity))
}

/// Whether an account passed the end of a step of `granularity` bytes with its last `bytes`.
#[inline(always)]
#[must_use]
pub const fn crosses_step(key: &AccountKey, granularity: u64, sampled: u64, bytes: u64) -> bool {
    // Checked, since the kernel side has no place to panic in.
    match position(key, granularity, sampled).checked_rem(granularity) {
        Some(into_step) => into_step < bytes,
        None => false,
    }
}

/// Steps of `granularity` bytes that an account has behind it. A stack stands for the steps since the last one of its
/// account that came through: over an account, stacks so add up to its bytes within one step, and each is as likely to
/// be sampled as its bytes are many.
#[inline(always)]
#[must_use]
pub const fn steps(key: &AccountKey, granularity: u64, sampled: u64) -> u64 {
    match position(key, granularity, sampled).checked_div(granularity) {
        Some(steps) => steps,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tid: u32) -> AccountKey {
        AccountKey {
            memcg: 4096,
            start_ns: 1_234_567_891 * u64::from(tid),
            tid,
            kind: 0,
            region: 2,
            padding: 0,
        }
    }

    #[test]
    fn a_crossing_is_seen_exactly_where_a_step_ends() {
        for granularity in [1, 4096, 50_000, 64 << 10] {
            let key = key(7);
            let mut sampled = 0_u64;
            for bytes in [4096, 4096, 1, 2 << 20, 65_536, 50_000, 8, 4096].repeat(40) {
                let before = steps(&key, granularity, sampled);
                sampled += bytes;
                let passed = steps(&key, granularity, sampled) - before;
                assert_eq!(crosses_step(&key, granularity, sampled, bytes), passed > 0);
            }
        }
    }

    #[test]
    fn accounts_below_a_step_are_sampled_as_their_bytes_are_worth() {
        let granularity = 64 << 10;
        let charged = 16 << 10;
        let sampled = (1..=4000)
            .filter(|&tid| steps(&key(tid), granularity, charged) > steps(&key(tid), granularity, 0))
            .count();
        assert!((900..1100).contains(&sampled), "a quarter of 4000, not {sampled}");
    }

    #[test]
    fn totals_below_zero_do_not_count_and_do_not_panic() {
        let key = key(3);
        let below = 0_u64.wrapping_sub(10 << 20);
        assert!(steps(&key, 4096, below) < steps(&key, 4096, 0));
        assert!(!crosses_step(&key, 64 << 10, u64::MAX, 0));
    }
}
