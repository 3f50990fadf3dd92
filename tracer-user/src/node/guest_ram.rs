//! Where guest RAM is in QEMU's address space.
//!
//! QEMU maps each memory backend as one mapping of exactly the backend's size (qemu: util/mmap-alloc.c), followed by
//! a guard page, so that neighbours do not merge with it; mprotect and madvise may split it later. The command line
//! says the sizes, /proc/PID/maps the mappings. maps costs the kernel no walk of page tables; smaps, which does cost
//! that, is read here only when several mappings would fit.

use std::ops::ControlFlow;

use tracer_common::{FileKey, GuestRange};

use super::Node;
use super::maps::{self, Mapping};
use super::process::Process;
use super::qemu_args::{Backend, MemoryObject, QemuArgs};

/// Sizes of hugetlbfs pages: a file backend is rounded up to its page size.
const HUGE_PAGES: [u64; 3] = [1, 2 << 20, 1 << 30];

/// How guest RAM was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Every memory backend of the command line was matched by its size.
    Backends,
    /// Some memory backends were matched, others not.
    SomeBackends,
    /// A mapping of the size given with `-m` was found.
    BootSize,
    /// Nothing fits: the size is known from the command line at best, the place is not.
    #[default]
    NotFound,
}

/// Guest RAM of a QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestRam {
    /// What the VM was given, bytes.
    pub size: u64,
    /// The part of it in huge pages that no memcg is charged for, bytes.
    pub hugetlb: u64,
    /// Where it is mapped, by address.
    pub ranges: Vec<GuestRange>,
    /// Files (memfds) that back it.
    pub files: Vec<FileKey>,
    /// How it was found.
    pub how: How,
}

/// Guest RAM that is resident, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// In pages that are charged to the memcg.
    pub pages: u64,
    /// In huge pages of hugetlbfs that are not, unless the kernel is told to (`memory_hugetlb_accounting`): then they
    /// are among `pages`.
    pub hugetlb: u64,
}

impl GuestRam {
    /// The part of guest RAM that the memcg is charged for: what a limit must hold besides overhead.
    #[must_use]
    pub fn charged_size(&self) -> u64 {
        self.size.saturating_sub(self.hugetlb)
    }

    /// Whether this address is in guest RAM.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|range| (range.start..range.end).contains(&address))
    }
}

impl Node {
    /// Finds the guest RAM of a QEMU. Costs one read of its maps, and one of its smaps where sizes are ambiguous.
    /// `None` when the process is gone or may not be looked at; [`How::NotFound`] while QEMU has not mapped it yet.
    #[must_use]
    pub fn guest_ram(&self, process: &Process) -> Option<GuestRam> {
        let args = QemuArgs::parse(&process.args);
        let mut mappings = self.read_write_mappings(process.pid, "maps")?;
        let mut search = Search::new(&args, &mappings);
        if search.ambiguous {
            mappings = self.read_write_mappings(process.pid, "smaps").unwrap_or(mappings);
            search = Search::new(&args, &mappings);
        }
        let mut guest = search.into_guest_ram(&args);
        if !self.hierarchy.hugetlb_accounting {
            guest.hugetlb = args.guest_hugetlb();
        }
        Some(guest)
    }

    /// Resident guest RAM of this process. The kernel walks the page tables of every mapping up to the end of guest
    /// RAM, under the process's mmap lock: about a millisecond per GiB of resident 4 KiB pages, much less with huge
    /// pages. There is no cheaper exact way, so ask once per second at most. `None` when the process is gone or its
    /// guest RAM was not found.
    #[must_use]
    pub fn guest_resident(&self, pid: u32, guest: &GuestRam) -> Option<Resident> {
        let last = guest.ranges.iter().map(|range| range.end).max()?;
        let mut resident = Resident::default();
        maps::for_each(&self.proc(&format!("{pid}/smaps")), |mapping| {
            if mapping.start >= last {
                return ControlFlow::Break(());
            }
            let covered = overlap(&mapping, &guest.ranges);
            resident.pages += mapping.rss.min(covered);
            resident.hugetlb += mapping.hugetlb.min(covered);
            ControlFlow::Continue(())
        })?;
        if self.hierarchy.hugetlb_accounting {
            resident.pages += std::mem::take(&mut resident.hugetlb);
        }
        Some(resident)
    }

    fn read_write_mappings(&self, pid: u32, file: &str) -> Option<Vec<Mapping>> {
        let mut mappings = Vec::new();
        maps::for_each(&self.proc(&format!("{pid}/{file}")), |mapping| {
            if mapping.read_write && !mapping.is_empty() {
                mappings.push(mapping);
            }
            ControlFlow::Continue(())
        })?;
        Some(mappings)
    }
}

fn overlap(mapping: &Mapping, ranges: &[GuestRange]) -> u64 {
    ranges
        .iter()
        .map(|range| {
            mapping
                .end
                .min(range.end)
                .saturating_sub(mapping.start.max(range.start))
        })
        .sum()
}

/// A mapping, or neighbouring pieces of one, that might be guest RAM.
#[derive(Clone, Debug)]
struct Candidate {
    range: GuestRange,
    file: Option<FileKey>,
    /// It has the flags that QEMU gives guest RAM (only smaps tells).
    flagged: bool,
}

/// The search through one reading of the mappings.
struct Search<'a> {
    mappings: &'a [Mapping],
    taken: Vec<Candidate>,
    missing: usize,
    ambiguous: bool,
}

impl<'a> Search<'a> {
    fn new(args: &QemuArgs, mappings: &'a [Mapping]) -> Self {
        let mut search = Self {
            mappings,
            taken: Vec::new(),
            missing: 0,
            ambiguous: false,
        };
        for (index, object) in args.objects.iter().enumerate() {
            // Backends alike (NUMA nodes of one size) want as many mappings alike: no ambiguity in that.
            let alike = args.objects[index..]
                .iter()
                .filter(|other| (other.size, other.backend) == (object.size, object.backend))
                .count();
            search.place(object, alike);
        }
        if search.taken.is_empty()
            && let Some(size) = args.ram.filter(|size| *size > 0)
        {
            let whole = MemoryObject {
                id: String::new(),
                backend: Backend::Ram,
                size,
                path: None,
                hugetlb: false,
            };
            search.place(&whole, 1);
        }
        search
    }

    fn place(&mut self, object: &MemoryObject, alike: usize) {
        let mut candidates = self.candidates(object);
        if candidates.len() > alike {
            self.ambiguous = true;
            candidates.sort_by_key(|candidate| !candidate.flagged);
        }
        match candidates.into_iter().next() {
            Some(candidate) => self.taken.push(candidate),
            None => self.missing += 1,
        }
    }

    /// Runs of mappings without a gap, of one backing, whose lengths add up to the size of the object.
    fn candidates(&self, object: &MemoryObject) -> Vec<Candidate> {
        let mut found = Vec::new();
        for first in 0..self.mappings.len() {
            if let Some(candidate) = self.run_from(first, object)
                && !self
                    .taken
                    .iter()
                    .any(|taken| intersects(&taken.range, &candidate.range))
            {
                found.push(candidate);
            }
        }
        found
    }

    fn run_from(&self, first: usize, object: &MemoryObject) -> Option<Candidate> {
        let head = &self.mappings[first];
        if !could_back(object, head) {
            return None;
        }
        let mut end = head.start;
        let mut flagged = true;
        for mapping in &self.mappings[first..] {
            if mapping.start != end || !same_backing(head, mapping) {
                return None;
            }
            end = mapping.end;
            flagged &= mapping.has_flag("dc");
            let length = end - head.start;
            if is_size(object, length) {
                let range = GuestRange { start: head.start, end };
                return Some(Candidate {
                    range,
                    file: head.file_key(),
                    flagged,
                });
            }
            if length > object.size {
                return None;
            }
        }
        None
    }

    fn into_guest_ram(self, args: &QemuArgs) -> GuestRam {
        let how = match (self.taken.is_empty(), args.objects.is_empty(), self.missing) {
            (true, ..) => How::NotFound,
            (false, false, 0) => How::Backends,
            (false, false, missing) if missing < args.objects.len() => How::SomeBackends,
            _ => How::BootSize,
        };
        let mut ranges: Vec<GuestRange> = self.taken.iter().map(|candidate| candidate.range).collect();
        ranges.sort_by_key(|range| range.start);
        GuestRam {
            size: args.guest_ram(),
            hugetlb: 0,
            ranges,
            files: self.taken.into_iter().filter_map(|candidate| candidate.file).collect(),
            how,
        }
    }
}

fn intersects(a: &GuestRange, b: &GuestRange) -> bool {
    a.start < b.end && b.start < a.end
}

fn same_backing(a: &Mapping, b: &Mapping) -> bool {
    (a.device, a.inode) == (b.device, b.inode) && a.path == b.path
}

fn could_back(object: &MemoryObject, mapping: &Mapping) -> bool {
    let path = mapping.path.as_str();
    match object.backend {
        // Shared anonymous memory is a nameless file of tmpfs.
        Backend::Ram => mapping.inode == 0 && !path.starts_with(['[', '/']) || path.starts_with("/dev/zero"),
        Backend::Memfd => path.starts_with("/memfd:memory-backend-memfd"),
        Backend::File => {
            let wanted = object.path.as_deref().unwrap_or("/").trim_end_matches('/');
            mapping.inode != 0 && path.starts_with(wanted)
        }
        Backend::Epc => path.starts_with("/dev/sgx"),
    }
}

fn is_size(object: &MemoryObject, length: u64) -> bool {
    match object.backend {
        Backend::Ram | Backend::Epc => length == object.size,
        Backend::Memfd | Backend::File => HUGE_PAGES
            .iter()
            .any(|page| object.size.checked_next_multiple_of(*page) == Some(length)),
    }
}

#[cfg(test)]
#[path = "guest_ram_tests.rs"]
mod tests;
