//! What the payload tells on its serial line, as the lab's truth.

use tracer_common::{Kind, Region};

use super::Part;
use super::payload::FIRST_MIB;
use crate::lab::actor::spec::Backend;
use crate::lab::plan::MIB;
use crate::lab::truth::{Alloc, Event, now};
use crate::role::Role;

/// Reads the payload's lines one after the other.
#[derive(Debug)]
pub struct Serial {
    part: Part,
    gates: u32,
    touched: u64,
    written: u64,
}

impl Serial {
    /// A payload that has told nothing yet.
    #[must_use]
    pub fn new(part: Part) -> Self {
        Self {
            part,
            gates: 0,
            touched: FIRST_MIB,
            written: 0,
        }
    }

    /// What a line means, if anything.
    pub fn hear(&mut self, line: &str) -> Option<Event> {
        let line = line.trim();
        if line == "gate" {
            return Some(self.gate());
        }
        match line.split_once(' ')? {
            ("no", what) => Some(Event::Failed {
                tid: 0,
                error: format!("the payload finds no {what}"),
            }),
            ("t", mib) => self.touch(mib.parse().ok()?),
            ("w", mib) => self.write(mib.parse().ok()?),
            _ => None,
        }
    }

    /// The first gate is the payload's hello; every other ends a phase.
    fn gate(&mut self) -> Event {
        let phase = self.gates;
        self.gates += 1;
        if phase == 0 {
            Event::Ready {
                t: now(),
                tid: 0,
                comm: "payload".to_owned(),
                role: Role::Vcpu(0),
            }
        } else {
            Event::Done {
                t: now(),
                tid: 0,
                phase,
            }
        }
    }

    fn touch(&mut self, mib: u64) -> Option<Event> {
        let grown = mib.checked_sub(self.touched)?;
        self.touched = mib;
        let kind = match self.part.ram.backend {
            Backend::Ram => Kind::Anon,
            Backend::Memfd => Kind::Shmem,
            Backend::Hugepages => Kind::Hugetlb,
        };
        Some(alloc(Role::Vcpu(0), kind, Region::Guest, grown))
    }

    /// The file's blocks go through QEMU's thread pool.
    fn write(&mut self, mib: u64) -> Option<Event> {
        let grown = mib.checked_sub(self.written)?;
        self.written = mib;
        let grown = if self.part.cached { grown } else { 0 };
        Some(alloc(Role::BlockWorker, Kind::File, Region::Overhead, grown))
    }
}

fn alloc(role: Role, kind: Kind, region: Region, mib: u64) -> Event {
    Event::Alloc(Alloc {
        t: now(),
        tid: 0,
        role,
        kind: kind.as_str().to_owned(),
        region: region.as_str().to_owned(),
        bytes: mib * MIB,
        exact: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::actor::spec::GuestRam;

    fn serial(cached: bool) -> Serial {
        Serial::new(Part {
            program: "/q".into(),
            tasks: Vec::new(),
            ram: GuestRam {
                bytes: 64 * MIB,
                backend: Backend::Memfd,
            },
            cached,
        })
    }

    fn bytes(event: Option<Event>) -> Option<(String, u64)> {
        match event? {
            Event::Alloc(alloc) => Some((alloc.kind, alloc.bytes)),
            _ => None,
        }
    }

    #[test]
    fn gates_are_the_hello_and_then_the_ends_of_phases() {
        let mut serial = serial(true);
        assert!(matches!(serial.hear("gate\r"), Some(Event::Ready { .. })));
        assert!(matches!(serial.hear("gate"), Some(Event::Done { phase: 1, .. })));
        assert!(matches!(serial.hear("gate"), Some(Event::Done { phase: 2, .. })));
    }

    #[test]
    fn progress_is_told_as_growth() {
        let mut serial = serial(true);
        assert_eq!(bytes(serial.hear("t 5")), Some(("shmem".to_owned(), MIB)));
        assert_eq!(bytes(serial.hear("t 8")), Some(("shmem".to_owned(), 3 * MIB)));
        assert_eq!(bytes(serial.hear("w 1")), Some(("file".to_owned(), MIB)));
        assert_eq!(serial.hear("t 2"), None);
        assert_eq!(serial.hear("t x"), None);
        assert_eq!(serial.hear(""), None);
    }

    #[test]
    fn writes_past_the_page_cache_charge_none() {
        assert_eq!(bytes(serial(false).hear("w 7")), Some(("file".to_owned(), 0)));
    }
}
