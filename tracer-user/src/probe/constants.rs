//! Writes [`Constants`] into the instructions of the programs, in place of the marks that the compiler left there.

use object::{Object as _, ObjectSection as _, SectionKind};
use tracer_common::{BIT_MARK, Constants, FIELD_MARK, VALUE_MARK};

/// Bytes of an instruction: code, registers, offset (2), immediate (4).
const INSTRUCTION: usize = 8;
/// kernel: BPF_LDX | BPF_MEM of 4 and of 8 bytes, include/uapi/linux/bpf.h, bpf_common.h
const LOADS: [u8; 2] = [0x61, 0x79];
/// kernel: BPF_ALU64 | BPF_MOV | BPF_K, as above
const SET: u8 = 0xb7;
/// kernel: BPF_ALU | BPF_MOV | BPF_K, as above: clears the upper half of the register
const SET_LOWER_HALF: u8 = 0xb4;
/// Where no field can be: the verifier refuses the load, if a program ever gets there.
const NOWHERE: i16 = i16::MAX;

/// The object with these constants.
///
/// # Errors
/// When the object cannot be read.
pub(super) fn written(object: &[u8], constants: &Constants) -> Result<Vec<u8>, object::Error> {
    let file = object::File::parse(object)?;
    let mut written = object.to_vec();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, length) = section.file_range().unwrap_or_default();
        let range = usize::try_from(start).unwrap_or(0)..usize::try_from(start + length).unwrap_or(0);
        for instruction in written.get_mut(range).unwrap_or_default().chunks_exact_mut(INSTRUCTION) {
            write(instruction, constants);
        }
    }
    Ok(written)
}

/// The bit of this number; one that the kernel does not have is never set.
pub(super) fn bit(number: u32) -> u32 {
    1_u32.checked_shl(number).unwrap_or(0)
}

/// Writes a constant into an instruction, if it is a mark.
fn write(instruction: &mut [u8], constants: &Constants) {
    let &mut [code, _, ref mut offset @ .., i0, i1, i2, i3] = instruction else {
        return;
    };
    let at = i16::from_le_bytes([offset[0], offset[1]]);
    let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
    if LOADS.contains(&code) {
        if let Some(field) = nth(constants, i32::from(at), FIELD_MARK.into()) {
            let field = i16::try_from(field).unwrap_or(NOWHERE);
            offset.copy_from_slice(&field.to_le_bytes());
        }
    } else if code == SET {
        let value = nth(constants, immediate, VALUE_MARK);
        if let Some(value) = value.or_else(|| nth(constants, immediate, BIT_MARK).map(bit)) {
            instruction[0] = SET_LOWER_HALF;
            instruction[INSTRUCTION - size_of::<u32>()..].copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The constant that a mark of this sort stands for, if this is one.
fn nth(constants: &Constants, found: i32, mark: i32) -> Option<u32> {
    let all: &[u32; Constants::COUNT] = zerocopy::transmute_ref!(constants);
    let index = usize::try_from(found.checked_sub(mark)?).ok()?;
    all.get(index).copied()
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::bpf_insn;
    use tracer_common::KernelOffsets;

    use super::*;
    use crate::probe::tracer::OBJECT;

    /// Each constant another number, so that none can stand for another.
    fn constants() -> Constants {
        let numbers: [u32; Constants::COUNT] = std::array::from_fn(|index| 1000 + index as u32);
        zerocopy::transmute!(numbers)
    }

    /// The instructions of all functions of an object, as they are loaded.
    fn instructions(object: &[u8]) -> Vec<bpf_insn> {
        let object = aya_obj::Object::parse(object).expect("an object");
        object
            .functions
            .into_values()
            .flat_map(|function| function.instructions)
            .collect()
    }

    fn is_mark(instruction: &bpf_insn) -> bool {
        let is = |found: i32, mark: i32| usize::try_from(found - mark).is_ok_and(|index| index < Constants::COUNT);
        let load = LOADS.contains(&instruction.code) && is(instruction.off.into(), FIELD_MARK.into());
        let set = instruction.code == SET && [VALUE_MARK, BIT_MARK].iter().any(|&mark| is(instruction.imm, mark));
        load || set
    }

    #[test]
    fn every_mark_becomes_its_constant_and_nothing_else_changes() {
        let written = written(OBJECT, &constants()).expect("the object of this build");
        let (before, after) = (instructions(OBJECT), instructions(&written));
        assert_eq!(before.len(), after.len());
        let mut marks = 0;
        for (before, after) in before.iter().zip(&after) {
            assert!(!is_mark(after), "left: {after:?}");
            if !is_mark(before) {
                assert_eq!(format!("{before:?}"), format!("{after:?}"));
                continue;
            }
            marks += 1;
            assert_eq!((before.dst_reg(), before.src_reg()), (after.dst_reg(), after.src_reg()));
            if LOADS.contains(&before.code) {
                assert_eq!(after.code, before.code);
                assert_eq!(after.off - 1000, before.off - FIELD_MARK);
            } else if before.imm < BIT_MARK {
                assert_eq!(after.code, SET_LOWER_HALF);
                assert_eq!(after.imm - 1000, before.imm - VALUE_MARK);
            } else {
                // There is no such bit.
                assert_eq!((after.code, after.imm), (SET_LOWER_HALF, 0));
            }
        }
        // Each program begins with the look at its subject, at least.
        assert!(
            marks > crate::probe::tracer::program_names().len(),
            "only {marks} marks"
        );
    }

    #[test]
    fn what_a_kernel_lacks_is_no_field_and_no_bit() {
        let lacking = Constants {
            kernel: KernelOffsets::UNRESOLVED,
            ..constants()
        };
        let load = |mark: i16| [LOADS[1], 0x21, mark.to_le_bytes()[0], mark.to_le_bytes()[1], 0, 0, 0, 0];
        let mut instruction = load(FIELD_MARK);
        write(&mut instruction, &lacking);
        assert_eq!(instruction, load(NOWHERE));
        // ABSENT as it is, in 32 bits: not a small negative number.
        let mut instruction = [SET, 1, 0, 0, 0, 0, 0x45, 0x48];
        write(&mut instruction, &lacking);
        assert_eq!(instruction, [SET_LOWER_HALF, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!([bit(6), bit(31), bit(32), bit(u32::MAX)], [64, 1 << 31, 0, 0]);
    }
}
