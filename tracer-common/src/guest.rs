//! Where guest RAM is, told to the kernel side by user space.

use crate::{abi, assert_layout};

/// Most ranges (or pieces of ranges) of guest RAM that one QEMU process may have.
pub const MAX_GUEST_RANGES: usize = 8;

abi! {
    /// A half-open range of user addresses.
    pub struct GuestRange {
        /// First byte.
        pub start: u64,
        /// One past the last byte.
        pub end: u64,
    }
}

abi! {
    /// The guest RAM mappings of one process, keyed by its thread group id. Unused ranges are empty.
    pub struct GuestRanges {
        /// The ranges; those past `count` are zero.
        pub ranges: [GuestRange; MAX_GUEST_RANGES],
    }
}
assert_layout!(GuestRanges, size 128);

abi! {
    /// A file, as the page cache knows it: `inode.i_sb.s_dev` (kernel encoding: major << 20 | minor) and `inode.i_ino`.
    #[derive(Hash)]
    pub struct FileKey {
        /// Inode number.
        pub inode: u64,
        /// Device in the kernel's encoding.
        pub device: u32,
        /// Zero: keys are compared as bytes.
        pub padding: u32,
    }
}
assert_layout!(FileKey, size 16);
