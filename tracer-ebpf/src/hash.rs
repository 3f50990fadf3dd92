//! Where something that has an address, or is known by a number, has its place in a table.

/// Fibonacci hashing, since what is used one after the other often lies side by side, or at regular distances. The hash is
/// what is left of 32 bits when they are shifted to the right by `shift`, which is below 32.
#[inline(always)]
pub fn place(number: u32, shift: u32) -> u32 {
    scatter(number) >> (shift & (u32::BITS - 1))
}

/// 2^32 by the golden ratio, and odd.
pub const FACTOR: u32 = 0x9e37_79b1;

/// As many numbers as there are, each another one that has nothing to do with it.
#[inline(always)]
pub fn scatter(number: u32) -> u32 {
    number.wrapping_mul(FACTOR)
}
