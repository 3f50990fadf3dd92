//! Where something that has an address, or is known by a number, has its place in a table: Fibonacci hashing, since what is
//! used one after the other often lies side by side, or at regular distances.

use core::arch::asm;
use core::hint::assert_unchecked;

/// 2^32 by the golden ratio, and odd.
const FACTOR: u32 = 0x9e37_79b1;

/// As many numbers as there are, each another one that has nothing to do with it.
#[inline(always)]
pub fn scatter(number: u32) -> u32 {
    number.wrapping_mul(FACTOR)
}

/// The hash is what is left of 32 bits when they are shifted to the right by `shift`, which is below 32.
#[inline(always)]
pub fn place(number: u32, shift: u32) -> u32 {
    scatter(number) >> (shift & (u32::BITS - 1))
}

/// At which byte something has its place, by its lower half, among so many elements. Their number and their size are powers of
/// two.
#[inline(always)]
pub fn offset<T, const LEN: usize>(word: u64) -> usize {
    let offset: u64;
    // SAFETY: computes with registers. The verifier takes the copy of a lower half for a number: see `low_half`.
    unsafe {
        asm!(
            "w0 = w1",
            "w0 *= {factor}",
            "w0 >>= {shift}",
            "w0 &= {mask}",
            in("r1") word,
            out("r0") offset,
            factor = const FACTOR as i32,
            shift = const u32::BITS - (LEN * size_of::<T>()).trailing_zeros(),
            mask = const (LEN - 1) * size_of::<T>(),
            options(pure, nomem, nostack),
        );
        assert_unchecked(offset < (LEN * size_of::<T>()) as u64);
    }
    offset as usize
}
