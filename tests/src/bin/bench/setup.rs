//! What runs beside the work.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::{BackendChoice, KernelTypes, Options, Tracer};
use headroom_tests::Memcg;
use tracer_common::{FileKey, Region, Watched};

use crate::empty::EmptyPrograms;
use crate::peers::{self, Peer};

/// Where a piece of work keeps what can stand for guest RAM.
pub enum GuestRam {
    /// Private memory: the mapping's first address and the one behind it.
    Mapping(u64, u64),
    /// A file.
    File(FileKey),
}

/// A set-up that is in place until it is dropped.
pub enum Setup {
    /// Nothing.
    None,
    /// Programs that do nothing, at each hook that headroom has.
    Empty(EmptyPrograms),
    /// headroom's own programs.
    Headroom {
        tracer: Box<Tracer>,
        /// The memory cgroup of the work, if it is watched.
        watched: Option<u64>,
        /// What the work touches is guest RAM.
        guest: bool,
        /// Another group that is watched, where the work's is not.
        _other: Option<Memcg>,
    },
    /// Another tracer, and whether it is to count the work.
    Peer {
        peer: Peer,
        counts: bool,
        /// Another group that it counts, where it does not count the work's.
        _other: Option<Memcg>,
    },
}

impl Setup {
    /// Puts a set-up in place for work in `group`.
    pub fn start(name: &str, group: &Memcg) -> Result<Self> {
        Ok(match name {
            "none" => Self::None,
            "empty" => {
                let tracer = attach(false)?;
                let programs = if tracer.runs_twice() { 2 } else { 1 };
                let types = KernelTypes::of_running_kernel(Path::new("/"))?;
                let empty = EmptyPrograms::attach(tracer.states(), &types, programs)?;
                Self::Empty(empty)
            }
            "unwatched" => {
                let other = Memcg::create()?;
                Self::watching(attach(false)?, other.id()?, None, false, Some(other))?
            }
            "watched" => Self::watching(attach(false)?, group.id()?, Some(group.id()?), false, None)?,
            "stacks" => Self::watching(attach(true)?, group.id()?, Some(group.id()?), false, None)?,
            "guest" => Self::watching(attach(false)?, group.id()?, Some(group.id()?), true, None)?,
            _ => return Self::peer(name, group),
        })
    }

    fn watching(tracer: Tracer, memcg: u64, watched: Option<u64>, guest: bool, other: Option<Memcg>) -> Result<Self> {
        let mut tracer = Box::new(tracer);
        let qemu_tgid = if guest { std::process::id() } else { 0 };
        tracer.watch(memcg, Watched { qemu_tgid, pod: 0 })?;
        Ok(Self::Headroom {
            tracer,
            watched,
            guest,
            _other: other,
        })
    }

    /// Another tracer, by its name: `bpftrace` and `c` count the work, with `-unwatched` what is not there.
    fn peer(name: &str, group: &Memcg) -> Result<Self> {
        let (name, other) = match name.strip_suffix("-unwatched") {
            Some(name) => (name, Some(Memcg::create()?)),
            None => (name, None),
        };
        let memcg = other.as_ref().unwrap_or(group).id()?;
        let types = KernelTypes::of_running_kernel(Path::new("/"))?;
        let has = |function: &str| types.arguments(function).is_some();
        let peer = match name {
            "bpftrace" => Peer::bpftrace(memcg, false, has)?,
            "bpftrace-stacks" => Peer::bpftrace(memcg, true, has)?,
            "c" => Peer::c(memcg)?,
            _ => bail!("there is no set-up {name}"),
        };
        Ok(Self::Peer {
            peer,
            counts: other.is_none(),
            _other: other,
        })
    }

    /// Why a set-up cannot be had here.
    pub fn lacks(name: &str) -> Option<String> {
        let program = name.split('-').next().filter(|name| ["bpftrace", "c"].contains(name))?;
        (!peers::is_here(program)).then(|| format!("{name}: the machine was not given it"))
    }

    /// How many programs run at each hook of a function.
    pub fn programs_per_hook(&self) -> u32 {
        match self {
            Self::None | Self::Peer { .. } => 1,
            Self::Empty(empty) => empty.per_hook,
            Self::Headroom { tracer, .. } => 1 + u32::from(tracer.runs_twice()),
        }
    }

    /// Tells where guest RAM is. False where there is to be none.
    pub fn place_guest_ram(&mut self, ram: &GuestRam) -> Result<bool> {
        let Self::Headroom {
            tracer, guest: true, ..
        } = self
        else {
            return Ok(true);
        };
        match ram {
            GuestRam::Mapping(start, end) => {
                tracer.set_guest_ranges(std::process::id(), &[(*start, *end)])?;
            }
            GuestRam::File(file) => tracer.add_guest_file(*file)?,
        }
        Ok(true)
    }

    /// Empties the ring buffer, as the collector does.
    pub fn drain(&mut self) {
        if let Self::Headroom { tracer, .. } = self {
            tracer.drain(|_| ());
        }
    }

    /// Makes sure that what was measured is what was meant.
    pub fn finish(&mut self) -> Result<()> {
        let (tracer, watched, guest) = match self {
            Self::None | Self::Empty(_) => return Ok(()),
            Self::Peer { peer, counts, .. } => return peer.finish(*counts),
            Self::Headroom {
                tracer, watched, guest, ..
            } => (tracer, watched, guest),
        };
        let accounts = tracer.accounts()?;
        let charged = |region: Option<Region>| -> u64 {
            accounts
                .iter()
                .filter(|(key, _)| Some(key.memcg) == *watched)
                .filter(|(key, _)| region.is_none_or(|region| key.region == region as u8))
                .map(|(_, totals)| totals.charged)
                .sum()
        };
        ensure!(
            (charged(None) > 0) == watched.is_some(),
            "the work's memory is counted if it is watched, and only then"
        );
        let guest_bytes = charged(Some(Region::Guest));
        ensure!((guest_bytes > 0) == *guest, "{guest_bytes} B of guest RAM");
        Ok(())
    }
}

/// Bytes of the ring buffer for stacks.
const STACK_RING: u32 = 8 << 20;

/// headroom's function probes, with stacks or without.
fn attach(stacks: bool) -> Result<Tracer> {
    let options = Options {
        backend: BackendChoice::Fentry,
        stack_ring_bytes: stacks.then_some(STACK_RING),
        ..Options::default()
    };
    Tracer::attach(Path::new("/"), options).context("cannot attach")
}
