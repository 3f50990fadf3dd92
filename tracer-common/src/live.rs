//! The page ledger: whose account each page of overhead is charged to, as long as it is held.

use crate::{abi, assert_layout};

/// Number that stands for an account whose pages are not followed, because of what they are: guest RAM, objects.
pub const NOT_FOLLOWED: u32 = 0;

/// Largest order of pages that can come back in pieces: 2^10 pages.
///
/// kernel: MAX_ORDER, MAX_PAGE_ORDER: the largest that the buddy allocator hands out (5.10 to 7.3)
pub const MAX_ORDER: u32 = 10;

abi! {
    /// Value of the ledger. The key is the address of the first page's `struct page`, with the order of what was charged
    /// at once in its low bits: so what is left of a huge page in pieces is not taken for what its first page became.
    pub struct LivePages {
        /// Number of the account that they are charged to.
        pub owner: u32,
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
        /// Number of the account that they are charged to.
        pub owner: u32,
        /// How many want to put a page there, or take one away that is theirs no more, right now. Only who is alone does.
        pub busy: u32,
    }
}
assert_layout!(SinglePage, size 16, owner at 8, busy at 12);
