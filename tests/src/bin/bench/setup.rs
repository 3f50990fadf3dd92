//! What runs beside the work.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::{BackendChoice, KernelTypes, LiveChoice, Options, Tracer};
use headroom_tests::Memcg;
use tracer_common::{FileKey, Region, Watched};

use crate::empty::EmptyPrograms;
use crate::load::GuestRam;
use crate::peers::{self, Peer};

/// A set-up that is in place until it is dropped.
pub enum Setup {
    /// Nothing.
    None,
    /// Programs that do nothing, at each hook that headroom has.
    Empty { _programs: EmptyPrograms },
    /// headroom's own programs.
    Headroom {
        tracer: Box<Tracer>,
        /// The memory cgroup of the work, if it is watched.
        watched: Option<u64>,
        /// The process of the work, if what it touches is guest RAM.
        guest: Option<u32>,
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
    /// Puts a set-up in place for work in `group`, of process `worker`.
    pub fn start(name: &str, group: &Memcg, worker: u32) -> Result<Self> {
        let memcg = group.id()?;
        Ok(match name {
            "none" => Self::None,
            "empty" => {
                // What this is told of stays when it is gone.
                let states = attach(Followed::Pages)?.states().to_vec();
                let types = KernelTypes::of_running_kernel(Path::new("/"))?;
                let programs = EmptyPrograms::attach(&states, &types)?;
                Self::Empty { _programs: programs }
            }
            "unwatched" => {
                let other = Memcg::create()?;
                Self::watching(Followed::Pages, None, other.id()?, Some(other))?
            }
            "guest" => Self::watching(Followed::Pages, Some(worker), memcg, None)?,
            "watched" => Self::watching(Followed::Nothing, None, memcg, None)?,
            "ledger" => Self::watching(Followed::Pages, None, memcg, None)?,
            "stacks" => Self::watching(Followed::PagesAndStacks, None, memcg, None)?,
            _ => return Self::peer(name, group),
        })
    }

    /// headroom, watching the memory cgroup of the work, or another one.
    fn watching(followed: Followed, guest: Option<u32>, memcg: u64, other: Option<Memcg>) -> Result<Self> {
        let mut tracer = Box::new(attach(followed)?);
        let qemu_tgid = guest.unwrap_or(0);
        tracer.watch(memcg, Watched { qemu_tgid, pod: 0 })?;
        Ok(Self::Headroom {
            tracer,
            watched: other.is_none().then_some(memcg),
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

    /// How many hooks have a program of headroom's, and how many of them have two.
    pub fn hooks(&self) -> Option<(usize, usize)> {
        let Self::Headroom { tracer, .. } = self else {
            return None;
        };
        let with = |programs: usize| {
            tracer
                .states()
                .iter()
                .filter(|state| state.programs >= programs)
                .count()
        };
        Some((with(1), with(2)))
    }

    /// Tells where guest RAM is, if there is to be some.
    pub fn place_guest_ram(&mut self, ram: &GuestRam) -> Result<()> {
        let Self::Headroom {
            tracer,
            guest: Some(worker),
            ..
        } = self
        else {
            return Ok(());
        };
        match *ram {
            GuestRam::Mapping(start, end) => {
                tracer.set_guest_ranges(*worker, &[(start, end)])?;
            }
            GuestRam::File(device, inode) => tracer.add_guest_file(FileKey {
                inode,
                device,
                padding: 0,
            })?,
        }
        Ok(())
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
            Self::None | Self::Empty { .. } => return Ok(()),
            Self::Peer { peer, counts, .. } => return peer.finish(*counts),
            Self::Headroom {
                tracer, watched, guest, ..
            } => (tracer, watched, guest),
        };
        let accounts = tracer.accounts();
        let charged = |region: Option<Region>| -> u64 {
            accounts
                .iter()
                .map(|(_, account)| account)
                .filter(|account| Some(account.key.memcg) == *watched)
                .filter(|account| region.is_none_or(|region| account.key.region == region as u8))
                .map(|account| account.charged)
                .sum()
        };
        ensure!(
            (charged(None) > 0) == watched.is_some(),
            "the work's memory is counted if it is watched, and only then"
        );
        let guest_bytes = charged(Some(Region::Guest));
        ensure!((guest_bytes > 0) == guest.is_some(), "{guest_bytes} B of guest RAM");
        Ok(())
    }
}

/// Bytes of the ring buffer for stacks.
const STACK_RING: u32 = 8 << 20;

/// What is followed beyond sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Followed {
    /// Nothing.
    Nothing,
    /// Who holds which page: the page ledger.
    Pages,
    /// Stacks of charges, too.
    PagesAndStacks,
}

/// headroom's function probes.
fn attach(followed: Followed) -> Result<Tracer> {
    let options = Options {
        backend: BackendChoice::Fentry,
        stack_ring_bytes: (followed == Followed::PagesAndStacks).then_some(STACK_RING),
        live: if followed == Followed::Nothing {
            LiveChoice::Off
        } else {
            LiveChoice::Required
        },
        ..Options::default()
    };
    Tracer::attach(Path::new("/"), options).context("cannot attach")
}
