//! Numbers that are the same as long as programs are loaded, and that user space writes into their instructions before: a
//! field of a kernel's struct is then one load, as if it had been known to the compiler, and the verifier sees constants.
//!
//! The compiled programs have marks in their place, which say where in [`Constants`] the number is.

use crate::{KernelOffsets, assert_layout};

/// What can be written into instructions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)
)]
pub struct Constants {
    /// Where the running kernel keeps things.
    pub kernel: KernelOffsets,
    /// Bytes that an account gathers before it emits a record.
    pub granularity: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// log2 of that.
    pub page_shift: u32,
    /// 1 where the kernel has bpf_get_current_task_btf (5.11).
    pub has_task_btf: u32,
    /// 1 where each function has its second program, too.
    pub again: u32,
    /// 1 where stacks of charges are sampled, once in so many bytes of an account as it gathers before it emits.
    pub stacks: u32,
    /// 1 where pages of overhead are followed.
    pub follow: u32,
    /// PG_swapbacked and PG_head, as bits of `folio.flags`.
    pub swapbacked_or_huge: u32,
    /// How far to shift a hash of 32 bits for an index into the array of single pages.
    pub singles_shift: u32,
}
assert_layout!(Constants, size 268, granularity at 232);

impl Constants {
    /// How many there are.
    pub const COUNT: usize = size_of::<Self>() / size_of::<u32>();

    /// Which one begins at this byte.
    #[must_use]
    pub const fn index(offset: usize) -> usize {
        assert!(offset.is_multiple_of(size_of::<u32>()) && offset < size_of::<Self>());
        offset / size_of::<u32>()
    }
}

/// Items of memory.stat are told apart by their numbers modulo this. kernel: enum node_stat_item has fewer (5.10 to 7.3)
pub const ITEMS: usize = 64;

/// The mark of a number: an instruction that sets a register to this, and the constant's index.
pub const VALUE_MARK: i32 = 0x4845_0000;

/// The mark of a bit whose number is a constant: as [`VALUE_MARK`], with this.
pub const BIT_MARK: i32 = 0x4845_1000;

/// The mark of a field whose offset is a constant: a load at this offset, and the constant's index. Nothing that programs
/// load of their own is so far from where it begins.
pub const FIELD_MARK: i16 = 0x7f00;
