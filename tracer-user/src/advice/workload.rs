//! What kind of load a recording shows, and what the checklist of Harvester's documentation says to do about it.

use serde::Serialize;

use super::measure::Observation;
use crate::units::Bytes;

/// A class of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Class {
    /// Nothing out of the ordinary.
    #[serde(rename = "general")]
    General,
    /// Page cache, block workers and iothreads grow most.
    #[serde(rename = "high I/O and storage")]
    Storage,
    /// Devices of the host are passed through.
    #[serde(rename = "device passthrough")]
    Passthrough,
}

impl Class {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Storage => "high I/O and storage",
            Self::Passthrough => "device passthrough",
        }
    }

    /// What to do.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::General => {
                "the ratio takes care of it: the default of 1.5, or 2.0 where VMs of the cluster are killed with it"
            }
            Self::Storage => {
                "give this VM Reserved Memory of its own: what I/O takes comes and goes with its load, and a ratio \
                 multiplies an overhead that knows nothing of disks"
            }
            Self::Passthrough => {
                "set Reserved Memory explicitly: all guest RAM is pinned from the start, so nothing is left over for \
                 overhead that the budget does not know"
            }
        }
    }
}

/// The class, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// The class.
    pub class: Class,
    /// What to do.
    pub action: &'static str,
    /// Figures that it rests on.
    pub evidence: Vec<String>,
}

/// Names the load of a recording.
#[must_use]
pub fn classify(seen: &Observation) -> Workload {
    let work = seen.work;
    let devices = seen.shape.map_or(0, |shape| shape.host_devices);
    let io = work.page_cache.saturating_add(work.io_threads);
    let mut evidence = Vec::new();
    if devices > 0 {
        evidence.push(format!(
            "{devices} of the host's devices on QEMU's command line; {} of {} of guest RAM was resident",
            Bytes(seen.guest_peak),
            Bytes(seen.guest_ram),
        ));
    }
    evidence.push(format!(
        "I/O: {} of page cache charged, block workers and iothreads grew {}; everything else grew {}",
        Bytes(work.page_cache),
        Bytes(work.io_threads),
        Bytes(work.others),
    ));
    let noise = seen
        .tolerance
        .saturating_add(seen.guest_growth / super::measure::GUEST_RAM_PER_PAGE_TABLE);
    let class = if devices > 0 {
        Class::Passthrough
    } else if io > noise && io > work.others {
        Class::Storage
    } else {
        Class::General
    };
    Workload {
        class,
        action: class.action(),
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::Work;
    use super::*;
    use crate::recording::event::VmShape;

    const MIB: u64 = 1 << 20;

    fn class(page_cache: u64, io_threads: u64, others: u64, host_devices: u32) -> Class {
        classify(&Observation {
            work: Work {
                page_cache: page_cache * MIB,
                io_threads: io_threads * MIB,
                others: others * MIB,
            },
            shape: Some(VmShape {
                host_devices,
                ..VmShape::default()
            }),
            tolerance: MIB / 2,
            ..Observation::default()
        })
        .class
    }

    #[test]
    fn what_grew_decides() {
        assert_eq!(class(80, 20, 5, 0), Class::Storage);
        assert_eq!(class(0, 30, 29, 0), Class::Storage);
        assert_eq!(class(10, 10, 300, 0), Class::General);
        assert_eq!(class(0, 0, 0, 0), Class::General);
        assert_eq!(class(80, 20, 5, 1), Class::Passthrough);
    }
}
