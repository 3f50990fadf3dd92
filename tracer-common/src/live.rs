//! The page ledger: whose account each page of overhead is charged to, as long as it is held.

use crate::{AccountKey, abi, assert_layout};

/// Slot of accounts whose pages are not followed, because of what they are: guest RAM, objects.
pub const NOT_FOLLOWED: u32 = 0;

/// Slot of accounts whose pages would be followed if there were a slot to be had.
pub const NO_SLOT: u32 = u32::MAX;

/// Largest order of pages that can come back in pieces: 2^10 pages.
///
/// kernel: MAX_ORDER, MAX_PAGE_ORDER: the largest that the buddy allocator hands out (5.10 to 7.3)
pub const MAX_ORDER: u32 = 10;

abi! {
    /// What an account holds now, in its slot.
    ///
    /// It outlives its thread and the thread's account: pages may be held long after who was charged for them is gone.
    pub struct OwnerTotals {
        /// Whose.
        pub account: AccountKey,
        /// Bytes charged to the account that are still held.
        pub live: u64,
        /// Bytes charged to the account that found no room in the ledger. Only ever grows.
        pub not_followed: u64,
    }
}
assert_layout!(OwnerTotals, size 40, live at 24, not_followed at 32);

abi! {
    /// Value of the ledger. The key is the address of the first page's `struct page`, with the order of what was charged
    /// at once in its low bits: so what is left of a huge page in pieces is not taken for what its first page became.
    pub struct LivePages {
        /// Index of the [`OwnerTotals`].
        pub slot: u32,
        /// Pages that are left of it.
        pub pages: u32,
    }
}
assert_layout!(LivePages, size 8);

abi! {
    /// Entry of the array that has room for one small page, by its address, in front of the ledger.
    pub struct SinglePage {
        /// Address of the page's `struct page`; 0 where there is none.
        pub page: u64,
        /// Index of the [`OwnerTotals`].
        pub slot: u32,
        /// How many want to put a page there, or take one away that is theirs no more, right now. Only who is alone does.
        pub busy: u32,
    }
}
assert_layout!(SinglePage, size 16, slot at 8, busy at 12);
