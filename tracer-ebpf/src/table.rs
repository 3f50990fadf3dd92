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
    /// How many bits of a hash make an index.
    const BITS: u32 = LEN.trailing_zeros();

    /// A table of this element, which is all zeroes: the section is empty then.
    pub const fn of(zero: T) -> Self {
        assert!(LEN.is_power_of_two());
        Self(UnsafeCell::new([zero; LEN]))
    }

    /// Where something that is known by a number has its place.
    #[inline(always)]
    pub fn place(&self, number: u32) -> *mut T {
        let index = hash::place(number, u32::BITS - Self::BITS);
        // SAFETY: a hash of so many bits is an index.
        unsafe { self.0.get().cast::<T>().add(index as usize) }
    }
}
