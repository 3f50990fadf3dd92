//! The guest program, as bytes: `payload.s` is assembled along with this program and carried in it.

std::arch::global_asm!(include_str!("payload.s"), options(att_syntax, raw));

unsafe extern "C" {
    static headroom_payload_start: u8;
    static headroom_payload_end: u8;
}

/// Guest RAM below this many MiB is the payload's own; touching begins above.
pub const FIRST_MIB: u64 = 4;

/// Size of a ROM that ends at 4 GiB. QEMU: hw/i386/x86.c `x86_bios_rom_init()` takes multiples of this.
const ROM: usize = 64 << 10;
/// Where the CPU starts, 16 bytes before the ROM's end. AMD64 Architecture Programmer's Manual, volume 2, 14.1.3.
const RESET: usize = ROM - 16;
/// `jmp rel16`, from the reset vector to the ROM's first byte.
const JUMP: [u8; 3] = {
    let [low, high] = ((ROM - RESET - 3) as u16).to_le_bytes();
    [0xe9, low, high]
};

/// The ROM for `-bios`: the program at its start, and a jump there where the CPU starts.
#[must_use]
pub fn rom() -> Vec<u8> {
    let mut rom = vec![0; ROM];
    rom[..code().len()].copy_from_slice(code());
    rom[RESET..RESET + JUMP.len()].copy_from_slice(&JUMP);
    rom
}

fn code() -> &'static [u8] {
    let start = &raw const headroom_payload_start;
    let end = &raw const headroom_payload_end;
    // SAFETY: both symbols bound one read-only section of this program, in this order.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_starts_with_a_jump_to_the_programs_first_instruction() {
        let rom = rom();
        assert_eq!(rom.len(), ROM);
        assert!(code().len() < RESET);
        let jump = u16::from_le_bytes([rom[RESET + 1], rom[RESET + 2]]);
        let next = u16::try_from(RESET + 3).unwrap();
        assert_eq!((rom[RESET], next.wrapping_add(jump)), (0xe9, 0));
        // cli, cld
        assert_eq!(rom[..2], [0xfa, 0xfc]);
    }
}
