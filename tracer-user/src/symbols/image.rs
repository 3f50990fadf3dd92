//! What an ELF file says about the names of its functions.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::LittleEndian;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, FileHeader64, ProgramHeader64, SHT_DYNSYM, SHT_NOTE, SHT_STRTAB, SHT_SYMTAB,
    SectionHeader64,
};
use object::pod::{bytes_of_slice, from_bytes, slice_from_bytes};

use super::kept;

/// Most sections that a file may have; with one for each function, as some compilers do, there are more, but not in what
/// the linker makes of them.
const MAX_SECTIONS: usize = 4096;
/// Most program headers.
const MAX_SEGMENTS: usize = 256;
/// Largest table of symbols or names that is read; those of a Go program of 100 MB are some 10 MB.
const MAX_TABLE: u64 = 64 << 20;
/// Most that is read of a file.
const MAX_TOTAL: u64 = 96 << 20;
/// Largest file: it is only a number, nothing of this size is read.
const MAX_FILE: u64 = 8 << 30;
/// Longest build id: a SHA-512 is 64 bytes, what linkers write is 20.
const MAX_BUILD_ID: usize = 64;
/// kernel: include/uapi/linux/elf.h NT_GNU_BUILD_ID
const NOTE_BUILD_ID: u32 = 3;
/// Symbols packed by a program that is not in this one. The symboliser would give up over it.
const PACKED_SYMBOLS: &[u8] = b".gnu_debugdata";

type Header = FileHeader64<LittleEndian>;
type Section = SectionHeader64<LittleEndian>;
type Segment = ProgramHeader64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;

/// Symbols of one file, in memory that nobody else can change.
pub(super) struct Image {
    /// Build id in hexadecimal.
    pub(super) build_id: Option<String>,
    /// Bytes of memory that it takes.
    pub(super) bytes: u64,
    /// `None` where there are no symbols, or when they proved too much for the symboliser.
    names: Option<Names>,
}

struct Names {
    symbolizer: Symbolizer,
    source: Source<'static>,
    /// What `source` is a path of.
    _copy: File,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("build_id", &self.build_id)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Image {
    /// Reads the symbols of a file. One that is no ELF file of this machine, or an odd one, has none.
    pub(super) fn read(file: &File) -> Self {
        let (build_id, copied) = match Headers::read(file) {
            Some(headers) => (headers.build_id(file), headers.copy(file)),
            None => (None, None),
        };
        let bytes = copied.as_ref().map_or(0, |(_, bytes)| *bytes);
        let names = copied.map(|(copy, _)| {
            let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
            let mut elf = Elf::new(path);
            // Nothing but this copy: debug links lead elsewhere.
            elf.debug_syms = false;
            Names {
                symbolizer: Symbolizer::builder()
                    .enable_auto_reload(false)
                    .enable_code_info(false)
                    .enable_inlined_fns(false)
                    .enable_demangling(true)
                    .build(),
                source: Source::Elf(elf),
                _copy: copy,
            }
        });
        Self { build_id, bytes, names }
    }

    /// Name of the function that this offset in the file lies in.
    pub(super) fn name(&mut self, offset: u64) -> Option<String> {
        let names = self.names.as_ref()?;
        let found = catch_unwind(AssertUnwindSafe(|| {
            let found = names
                .symbolizer
                .symbolize_single(&names.source, Input::FileOffset(offset));
            found.ok()?.into_sym().map(|symbol| kept(&symbol.name))
        }));
        match found {
            Ok(name) => name.filter(|name| !name.is_empty()),
            Err(_) => {
                log::debug!("symbols that make no sense: they are not used");
                self.names = None;
                None
            }
        }
    }
}

/// Where a file says that things are.
struct Headers {
    len: u64,
    header: Vec<u8>,
    sections_at: u64,
    sections: Vec<Section>,
    segments_at: u64,
    segments: Vec<Segment>,
}

impl Headers {
    fn read(file: &File) -> Option<Self> {
        let len = file.metadata().ok()?.len();
        let bytes = exactly(file, 0, size_of::<Header>())?;
        let (header, _) = from_bytes::<Header>(&bytes).ok()?;
        let ident = &header.e_ident;
        let ours = ident.magic == *b"\x7fELF" && ident.class == ELFCLASS64 && ident.data == ELFDATA2LSB;
        let sizes = usize::from(header.e_shentsize.get(ENDIAN)) == size_of::<Section>()
            && usize::from(header.e_phentsize.get(ENDIAN)) == size_of::<Segment>();
        let sections = usize::from(header.e_shnum.get(ENDIAN));
        let segments = usize::from(header.e_phnum.get(ENDIAN));
        if !ours || !sizes || len > MAX_FILE || sections > MAX_SECTIONS || segments > MAX_SEGMENTS {
            return None;
        }
        let (sections_at, segments_at) = (header.e_shoff.get(ENDIAN), header.e_phoff.get(ENDIAN));
        let table = exactly(file, sections_at, sections * size_of::<Section>())?;
        let (sections, _) = slice_from_bytes::<Section>(&table, sections).ok()?;
        let sections = sections.to_vec();
        let table = exactly(file, segments_at, segments * size_of::<Segment>())?;
        let (segments, _) = slice_from_bytes::<Segment>(&table, segments).ok()?;
        let segments = segments.to_vec();
        Some(Self {
            len,
            header: bytes,
            sections_at,
            sections,
            segments_at,
            segments,
        })
    }

    fn build_id(&self, file: &File) -> Option<String> {
        let notes = self
            .sections
            .iter()
            .filter(|section| section.sh_type.get(ENDIAN) == SHT_NOTE);
        notes.into_iter().find_map(|section| {
            let size = usize::try_from(section.sh_size.get(ENDIAN))
                .ok()
                .filter(|size| *size <= 64 << 10)?;
            build_id_in(&exactly(file, section.sh_offset.get(ENDIAN), size)?)
        })
    }

    /// Copies headers and symbols, each where it was, into memory; the rest stays a hole. `None` without symbols.
    fn copy(mut self, file: &File) -> Option<(File, u64)> {
        let tables: Vec<(u64, u64)> = self
            .sections
            .iter()
            .filter(|section| matches!(section.sh_type.get(ENDIAN), SHT_SYMTAB | SHT_DYNSYM | SHT_STRTAB))
            .map(|section| (section.sh_offset.get(ENDIAN), section.sh_size.get(ENDIAN)))
            .filter(|(offset, size)| *size <= MAX_TABLE && offset.checked_add(*size).is_some_and(|end| end <= self.len))
            .collect();
        let any = self.sections.iter().any(|section| {
            matches!(section.sh_type.get(ENDIAN), SHT_SYMTAB | SHT_DYNSYM) && section.sh_size.get(ENDIAN) > 0
        });
        let total = tables
            .iter()
            .fold(0_u64, |total, (_, size)| total.saturating_add(*size));
        if !any || total > MAX_TOTAL {
            return None;
        }
        self.hide_packed_symbols(file);
        let copy = File::from(memfd_create(c"headroom-symbols", MFdFlags::MFD_CLOEXEC).ok()?);
        copy.set_len(self.len).ok()?;
        copy.write_all_at(&self.header, 0).ok()?;
        copy.write_all_at(bytes_of_slice(&self.sections), self.sections_at)
            .ok()?;
        copy.write_all_at(bytes_of_slice(&self.segments), self.segments_at)
            .ok()?;
        for (offset, size) in tables {
            copy_range(file, &copy, offset, size)?;
        }
        Some((copy, total))
    }

    /// Takes the name from sections that the symboliser cannot read.
    fn hide_packed_symbols(&mut self, file: &File) -> Option<()> {
        let (header, _) = from_bytes::<Header>(&self.header).ok()?;
        let names = self.sections.get(usize::from(header.e_shstrndx.get(ENDIAN)))?;
        let (names_at, names_size) = (names.sh_offset.get(ENDIAN), names.sh_size.get(ENDIAN));
        for section in &mut self.sections {
            let name = u64::from(section.sh_name.get(ENDIAN));
            let end = name.saturating_add(PACKED_SYMBOLS.len() as u64);
            if name != 0
                && end <= names_size
                && exactly(file, names_at.checked_add(name)?, PACKED_SYMBOLS.len()).as_deref() == Some(PACKED_SYMBOLS)
            {
                section.sh_name.set(ENDIAN, 0);
            }
        }
        Some(())
    }
}

/// Reads this many bytes, which the caller has bounded.
fn exactly(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn copy_range(from: &File, to: &File, offset: u64, size: u64) -> Option<()> {
    let mut buffer = vec![0; 256 << 10];
    let end = offset.checked_add(size)?;
    let mut at = offset;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..want)?;
        from.read_exact_at(piece, at).ok()?;
        to.write_all_at(piece, at).ok()?;
        at += want as u64;
    }
    Some(())
}

/// The build id among notes.
fn build_id_in(mut notes: &[u8]) -> Option<String> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let word = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)) };
        let (name_len, id_len, kind) = (word(0)?, word(4)?, word(8)?);
        let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
        let (name, rest) = rest.split_at_checked(padded(name_len)?)?;
        let (id, rest) = match rest.split_at_checked(padded(id_len)?) {
            Some(split) => split,
            // The last one need not be padded.
            None => (rest, &[][..]),
        };
        let id = id.get(..usize::try_from(id_len).ok()?)?;
        if kind == NOTE_BUILD_ID && name == b"GNU\0" && (1..=MAX_BUILD_ID).contains(&id.len()) {
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A function to be found by its name.
    #[inline(never)]
    fn a_function_of_this_very_test(seed: u64) -> u64 {
        std::hint::black_box(seed.rotate_left(7))
    }

    fn own() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    /// Where an address of ours lies in our own file.
    fn offset_of(address: u64) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let hex = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
        let found = maps.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let offset = hex(fields.nth(1)?);
            (hex(start)..hex(end))
                .contains(&address)
                .then(|| address - hex(start) + offset)
        });
        found.unwrap()
    }

    #[test]
    fn a_function_of_our_own_is_found_by_where_it_is() {
        let mut image = Image::read(&own());
        let address = a_function_of_this_very_test as fn(u64) -> u64 as usize as u64;
        let name = image.name(offset_of(address) + 1).unwrap();
        assert!(name.ends_with("a_function_of_this_very_test"), "{name}");
        assert_eq!(image.name(u64::MAX), None);
        assert!((1 << 10..MAX_TOTAL).contains(&image.bytes));
    }

    #[test]
    fn the_build_id_is_what_readelf_says() {
        let Ok(output) = Command::new("readelf").args(["-n", "/bin/ls"]).output() else {
            panic!("readelf comes with what builds this");
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = said.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
        let image = Image::read(&File::open("/bin/ls").unwrap());
        assert_eq!(image.build_id.as_deref(), expected);
        assert!(expected.is_some(), "{said}");
    }

    #[test]
    fn what_is_no_elf_file_has_no_names_and_no_build_id() {
        for content in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0x7f; 4096]] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            let mut image = Image::read(&file);
            assert_eq!((image.name(64), image.build_id, image.bytes), (None, None, 0));
        }
    }

    #[test]
    fn notes_end_where_they_end() {
        let note = |name: &[u8], kind: u32, id: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len(), id.len(), kind as usize] {
                bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
            }
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(id);
            bytes
        };
        let other = note(b"GNU\0", 5, &[1, 2, 3, 4]);
        let wanted = note(b"GNU\0", 3, &[0xab, 0x01]);
        assert_eq!(build_id_in(&[other.clone(), wanted].concat()).as_deref(), Some("ab01"));
        assert_eq!(build_id_in(&note(b"Go\0\0", 3, &[1; 20])), None);
        assert_eq!(build_id_in(&note(b"GNU\0", 3, &[1; 65])), None);
        assert_eq!(build_id_in(&[0xff; 40]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// A real program with some bytes of its headers and symbols turned into others.
        #[test]
        fn a_damaged_program_panics_nothing(hits in proptest::collection::vec((0_usize..6, any::<u64>(), any::<u8>()), 1..40)) {
            let mut bytes = std::fs::read("/bin/ls").unwrap();
            let (sections, sizes) = {
                let (header, _) = from_bytes::<Header>(&bytes).unwrap();
                let at = usize::try_from(header.e_shoff.get(ENDIAN)).unwrap();
                let count = usize::from(header.e_shnum.get(ENDIAN));
                let (sections, _) = slice_from_bytes::<Section>(&bytes[at..], count).unwrap();
                let tables: Vec<(usize, usize)> = sections.iter()
                    .filter(|section| matches!(section.sh_type.get(ENDIAN), SHT_DYNSYM | SHT_STRTAB | SHT_NOTE))
                    .map(|section| (section.sh_offset.get(ENDIAN) as usize, section.sh_size.get(ENDIAN) as usize))
                    .collect();
                ((at, count * size_of::<Section>()), tables)
            };
            for (what, at, value) in hits {
                let (start, len) = match what {
                    0 => (0, 64),
                    1 | 2 => sections,
                    _ => sizes[at as usize % sizes.len()],
                };
                if len > 0 {
                    bytes[start + (at as usize / 7) % len] = value;
                }
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let mut image = Image::read(&file);
            for offset in (0..bytes.len() as u64).step_by(997) {
                let _ = image.name(offset);
            }
        }
    }
}
