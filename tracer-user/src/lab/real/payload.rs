//! The guest program, as bytes: `payload.s` is assembled along with this program and carried in it.

std::arch::global_asm!(include_str!("payload.s"), options(att_syntax, raw));

unsafe extern "C" {
    static headroom_payload_start: u8;
    static headroom_payload_end: u8;
}

/// Guest RAM below this many MiB is the payload's own; touching begins above.
pub const FIRST_MIB: u64 = 4;

/// The multiboot image.
#[must_use]
pub fn image() -> &'static [u8] {
    let start = &raw const headroom_payload_start;
    let end = &raw const headroom_payload_end;
    // SAFETY: both symbols bound one read-only section of this program, in this order.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_begins_with_a_valid_multiboot_header() {
        let words: Vec<u32> = image()
            .as_chunks::<4>()
            .0
            .iter()
            .take(8)
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        assert_eq!(words[0], 0x1bad_b002);
        assert_eq!(words[0].wrapping_add(words[1]).wrapping_add(words[2]), 0);
        let (load, end, entry) = (words[4], words[5], words[7]);
        assert_eq!(words[3], load);
        assert_eq!((end - load) as usize, image().len());
        assert_eq!(entry, load + 32);
        // cli: the entry is code.
        assert_eq!(image()[32], 0xfa);
    }
}
