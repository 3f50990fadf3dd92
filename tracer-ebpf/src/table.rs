//! Arrays of the kernel side alone. Their addresses are in the programs, so that an element is found in half the instructions
//! that an array map takes. Each has a section of its own, which becomes a map of one value.

use core::cell::UnsafeCell;

use crate::hash;

/// `LEN` elements, a power of two.
#[repr(transparent)]
pub struct Table<T, const LEN: usize>(UnsafeCell<[T; LEN]>);

// SAFETY: elements are reached by raw pointers only, and read and written as what they are shared for demands.
unsafe impl<T, const LEN: usize> Sync for Table<T, LEN> {}

impl<T: Copy, const LEN: usize> Table<T, LEN> {
    /// A table of this element, which is all zeroes: the section is empty then.
    pub const fn of(zero: T) -> Self {
        assert!(LEN.is_power_of_two() && size_of::<T>().is_power_of_two());
        Self(UnsafeCell::new([zero; LEN]))
    }

    /// Where something that is known by the lower half of a number has its place.
    #[inline(always)]
    pub fn place(&self, number: u64) -> *mut T {
        let offset = hash::offset::<T, LEN>(number);
        // SAFETY: within the table, at a multiple of an element's size.
        unsafe { self.0.get().cast::<u8>().add(offset).cast() }
    }
}
