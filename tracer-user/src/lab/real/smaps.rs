//! Resident guest RAM of a QEMU, by the kernel's own count.

/// Resident bytes of the mappings whose size is exactly that of guest RAM, from the text of smaps.
///
/// QEMU maps guest RAM in one piece, between inaccessible pages, so no other mapping merges with it.
#[must_use]
pub fn guest_resident(smaps: &str, guest_ram: u64) -> u64 {
    let mut inside = false;
    let mut resident = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(size) = range_size(first) {
            inside = size == guest_ram && words.next().is_some_and(|access| access.starts_with("rw"));
        } else if inside && matches!(first, "Rss:" | "Shared_Hugetlb:" | "Private_Hugetlb:") {
            resident += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10;
        }
    }
    resident
}

fn range_size(word: &str) -> Option<u64> {
    let (start, end) = word.split_once('-')?;
    let parse = |text| u64::from_str_radix(text, 16).ok();
    parse(end)?.checked_sub(parse(start)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_writable_mapping_of_the_right_size_counts() {
        let smaps = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0\nSize: 4096 kB\nRss: 2048 kB\n\
                     7f0000400000-7f0000800000 ---p 00000000 00:00 0\nRss: 4 kB\n\
                     7f0000800000-7f0000801000 rw-p 00000000 00:00 0 [heap]\nRss: 4 kB\n\
                     7f0001000000-7f0001400000 rw-s 00000000 00:01 5 /memfd:memory-backend-memfd (deleted)\nRss: 8 kB\n";
        assert_eq!(guest_resident(smaps, 4 << 20), 2056 << 10);
        assert_eq!(guest_resident(smaps, 8 << 20), 0);
    }
}
