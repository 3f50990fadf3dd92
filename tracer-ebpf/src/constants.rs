//! Numbers that user space writes into these programs: see `tracer-common/src/constants.rs`.

use core::arch::asm;
use core::hint::assert_unchecked;

use tracer_common::{FIELD_MARK, VALUE_MARK};

use crate::kernel::Pointer;

/// What is written in place of a mark of this sort, by the constant's index.
#[inline(always)]
pub fn written<const INDEX: usize, const MARK: i32>() -> u64 {
    let value: u64;
    // SAFETY: sets a register; what is written in place of the mark is a number of 32 bits.
    unsafe {
        asm!(
            "{value} = {mark}",
            value = out(reg) value,
            mark = const MARK + INDEX as i32,
            options(pure, nomem, nostack),
        );
        assert_unchecked(value <= u32::MAX as u64);
    }
    value
}

/// A field whose offset is a constant, of a struct whose type the verifier knows.
#[derive(Clone, Copy)]
pub struct Field<const INDEX: usize>;

impl<const INDEX: usize> Field<INDEX> {
    /// Its offset.
    #[inline(always)]
    pub fn offset(self) -> u32 {
        written::<INDEX, VALUE_MARK>() as u32
    }

    /// Loads it directly: only through pointers whose type the verifier knows (arguments of fentry, fexit and tp_btf
    /// programs, and pointers loaded through them). A bad address reads as zero.
    #[inline(always)]
    pub fn load<T: Copy>(self, base: Pointer) -> T {
        const { assert!(size_of::<T>() == size_of::<u64>() || size_of::<T>() == size_of::<u32>()) };
        let value: u64;
        macro_rules! load {
            ($type:literal) => {
                asm!(
                    concat!("{value} = *(", $type, " *)({base} + {mark})"),
                    value = out(reg) value,
                    base = in(reg) base,
                    mark = const FIELD_MARK + INDEX as i16,
                    options(readonly, nostack),
                )
            };
        }
        // SAFETY: the verifier admits the load only where the type at this offset is known; faults are handled. What is loaded
        // are integers and pointers, as many bytes as `T` has.
        unsafe {
            if size_of::<T>() == size_of::<u64>() {
                load!("u64");
            } else {
                load!("u32");
                assert_unchecked(value <= u32::MAX as u64);
            }
            core::mem::transmute_copy(&value)
        }
    }
}

/// A constant of this run, by its name.
macro_rules! constant {
    ($name:ident) => {
        $crate::constants::written::<
            { tracer_common::Constants::index(core::mem::offset_of!(tracer_common::Constants, $name)) },
            { tracer_common::VALUE_MARK },
        >()
    };
}
pub(crate) use constant;

/// A constant of the running kernel, by its name.
macro_rules! offset {
    ($name:ident) => {
        $crate::constants::field!($name).offset()
    };
}
pub(crate) use offset;

/// The bit whose number is a constant of the running kernel.
macro_rules! bit {
    ($name:ident) => {
        $crate::constants::written::<
            { tracer_common::Constants::index(core::mem::offset_of!(tracer_common::Constants, kernel.$name)) },
            { tracer_common::BIT_MARK },
        >()
    };
}
pub(crate) use bit;

/// The field whose offset is a constant of the running kernel.
macro_rules! field {
    ($name:ident) => {
        $crate::constants::Field::<
            { tracer_common::Constants::index(core::mem::offset_of!(tracer_common::Constants, kernel.$name)) },
        >
    };
}
pub(crate) use field;
