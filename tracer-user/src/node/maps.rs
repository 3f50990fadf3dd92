//! /proc/PID/maps and smaps, as a stream: a hostile process can have 65,530 mappings with a kilobyte of name each.
//!
//! Unlike procfs's reader this one skips a line that it does not understand, reads names that are not UTF-8, and can
//! stop early, which spares the kernel the page tables of what follows.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::Path;

use tracer_common::FileKey;

/// Most that is read of either file.
const LIMIT: u64 = 256 << 20;

/// A mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// It may be read and written.
    pub read_write: bool,
    /// It may be executed.
    pub executable: bool,
    /// Where in its file it begins, bytes.
    pub offset: u64,
    /// Device of its file: major and minor number.
    pub device: (u32, u32),
    /// Inode of its file; 0 without one.
    pub inode: u64,
    /// Path or name; empty for anonymous memory.
    pub path: String,
    /// Resident bytes (smaps only; without huge pages of hugetlbfs).
    pub rss: u64,
    /// Resident bytes in huge pages of hugetlbfs (smaps only).
    pub hugetlb: u64,
    /// `VmFlags`, such as `rd wr dc hg` (smaps only).
    pub flags: String,
}

impl Mapping {
    /// Its length, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// It has no addresses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key of its file; `None` for anonymous memory.
    #[must_use]
    pub fn file_key(&self) -> Option<FileKey> {
        (self.inode != 0).then_some(FileKey {
            inode: self.inode,
            device: device(self.device.0, self.device.1),
            padding: 0,
        })
    }

    /// Whether smaps shows this flag.
    #[must_use]
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.split_ascii_whitespace().any(|found| found == flag)
    }
}

/// A device in the kernel's own encoding (kernel: include/linux/kdev_t.h MKDEV), from the numbers that /proc prints:
/// those of the superblock itself (kernel: fs/proc/task_mmu.c show_map_vma).
#[must_use]
pub const fn device(major: u32, minor: u32) -> u32 {
    (major << 20) | (minor & 0xf_ffff)
}

/// Calls `visit` for each mapping in the order of addresses, until it breaks. `None` when the file cannot be read.
pub fn for_each(path: &Path, mut visit: impl FnMut(Mapping) -> ControlFlow<()>) -> Option<()> {
    let mut reader = BufReader::new(File::open(path).ok()?.take(LIMIT));
    let mut line = Vec::new();
    let mut current: Option<Mapping> = None;
    loop {
        line.clear();
        let read = match reader.read_until(b'\n', &mut line) {
            Ok(read) => read,
            // The process ended: what was seen of it is no longer true.
            Err(_) => return None,
        };
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        // The fields of smaps start with a capital, addresses are in lower-case hexadecimal.
        if read > 0 && text.starts_with(|c: char| c.is_ascii_uppercase()) {
            if let Some(mapping) = &mut current {
                read_field(mapping, text);
            }
            continue;
        }
        if let Some(complete) = current.take()
            && visit(complete).is_break()
        {
            return Some(());
        }
        if read == 0 {
            return Some(());
        }
        current = parse_line(text);
    }
}

/// `7f1c-7f1d rw-p 00000000 00:01 2048    /memfd:memory-backend-memfd (deleted)`
fn parse_line(text: &str) -> Option<Mapping> {
    let mut rest = text;
    let mut field = || {
        let (field, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail;
        field
    };
    let (start, end) = field().split_once('-')?;
    let permissions = field();
    let offset = field();
    let (major, minor) = field().split_once(':')?;
    let inode = field().parse().ok()?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        read_write: permissions.starts_with("rw"),
        executable: permissions.as_bytes().get(2) == Some(&b'x'),
        offset: hex(offset)?,
        device: (number(major)?, number(minor)?),
        inode,
        path: rest.trim_start().to_owned(),
        ..Mapping::default()
    })
}

fn read_field(mapping: &mut Mapping, text: &str) {
    let Some((key, value)) = text.split_once(':') else {
        return;
    };
    let value = value.trim();
    let bytes = || {
        value
            .strip_suffix(" kB")
            .and_then(|kib| kib.parse::<u64>().ok())
            .map_or(0, |kib| kib.saturating_mul(1024))
    };
    match key {
        "Rss" => mapping.rss = bytes(),
        "Shared_Hugetlb" | "Private_Hugetlb" => mapping.hugetlb = mapping.hugetlb.saturating_add(bytes()),
        "VmFlags" => value.clone_into(&mut mapping.flags),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Vec<Mapping> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut mappings = Vec::new();
        for_each(file.path(), |mapping| {
            mappings.push(mapping);
            ControlFlow::Continue(())
        })
        .unwrap();
        mappings
    }

    #[test]
    fn smaps_as_the_kernel_prints_it() {
        let text = b"7f00-8f00 rw-s 00000000 00:01 42     /memfd:memory-backend-memfd (deleted)\n\
            Size: 4 kB\nRss: 3 kB\nShared_Hugetlb: 1 kB\nPrivate_Hugetlb: 2 kB\nVmFlags: rd wr sh dc ht \n\
            ffff-10000 r--p 00000000 fd:00 7    /odd\xff name\nRss: 1 kB\n";
        let mappings = all(text);
        assert_eq!(mappings.len(), 2);
        let memfd = &mappings[0];
        assert_eq!((memfd.len(), memfd.rss, memfd.hugetlb), (0x1000, 3 << 10, 3 << 10));
        assert_eq!(memfd.path, "/memfd:memory-backend-memfd (deleted)");
        assert!(memfd.read_write && memfd.has_flag("ht") && !memfd.has_flag("h"));
        assert_eq!(memfd.file_key().map(|key| (key.inode, key.device)), Some((42, 1)));
        assert_eq!(mappings[1].path, "/odd\u{fffd} name");
        assert!(!mappings[1].read_write && !mappings[1].executable);
    }

    #[test]
    fn code_and_where_it_begins_in_its_file() {
        let mappings = all(b"55d0-55e0 r-xp 0001a000 fd:00 7    /usr/sbin/virtqemud\n");
        assert_eq!((mappings[0].executable, mappings[0].offset), (true, 0x1a000));
    }

    #[test]
    fn a_visitor_that_breaks_sees_no_more() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"1-2 rw-p 0 00:00 0 \n2-3 rw-p 0 00:00 0 \n").unwrap();
        let mut seen = 0;
        let done = for_each(file.path(), |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!((seen, done), (1, Some(())));
        assert_eq!(
            for_each(Path::new("/nonexistent/maps"), |_| ControlFlow::Continue(())),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec("[0-9a-f]{1,18}-[0-9a-f]{1,18} rw-p \\PC{0,30}|[A-Z]\\PC{0,20}|Rss: [0-9]{0,22} kB", 0..8)) {
            for mapping in all(lines.join("\n").as_bytes()) {
                let _ = (mapping.len(), mapping.file_key());
            }
        }
    }
}
