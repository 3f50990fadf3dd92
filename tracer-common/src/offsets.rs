//! Where the running kernel keeps what the eBPF side reads: resolved from its BTF at start, handed over as one
//! read-only global, so that the verifier sees constants.

/// An offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets, bit numbers and enum values of the running kernel. Filled by `probe/offsets.rs`, where each field
/// is named; [`ABSENT`] where the kernel has no such field.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOffsets {
    /// Placeholder of the layout.
    pub placeholder: u32,
}
