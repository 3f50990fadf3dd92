//! The ABI between headroom's eBPF programs and its user space: every record and map value is declared here, once,
//! with its size and offsets asserted at compile time.
//!
//! Counters are cumulative: a record carries an account's totals, not its deltas. A record that is late, repeated or
//! lost therefore costs nothing, because the next one (or a read of the map) says the same and more.
#![cfg_attr(not(feature = "user"), no_std)]

mod account;
mod constants;
mod guest;
mod kind;
mod live;
mod offsets;
mod record;
mod stack;
mod watch;

pub use account::{ACCOUNTS, Account, AccountKey, OVERFLOW_TID, RECENT_BITS};
pub use constants::{BIT_MARK, Constants, FIELD_MARK, ITEMS, VALUE_MARK};
pub use guest::{FileKey, GuestRange, GuestRanges, MAX_GUEST_RANGES};
pub use kind::{Kind, Region};
pub use live::{LivePages, MAX_ORDER, NOT_FOLLOWED, SinglePage};
pub use offsets::{ABSENT, KernelOffsets};
pub use record::{
    COMM_LEN, ChargeRecord, ExecRecord, OomRecord, ReclaimRecord, RecordKind, ThreadRecord, VictimRecord,
};
pub use stack::{KERNEL_FRAMES, StackRecord, USER_FRAMES, crosses_step, steps};
pub use watch::{FILTER_LEN, KNOWN_LEN, LossCounter, Placed, WATCHES, WatchState, Watched, WatchedMemcg};

/// Fails to compile unless a type has exactly this size: both sides copy these types as bytes.
macro_rules! assert_layout {
    ($type:ty, size $size:literal $(, $field:ident at $offset:literal)*) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;

/// Declares a `repr(C)` type that crosses the kernel boundary: user space gets checked decoding for it.
macro_rules! abi {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }

        // SAFETY: repr(C), Copy, and (asserted by zerocopy's IntoBytes) without padding: every bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use abi;
