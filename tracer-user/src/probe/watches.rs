//! Which memcgs are watched: told to the kernel side, which asks itself at everyone's charges.

use std::collections::{HashMap as Map, VecDeque};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use tracer_common::{FILTER_LEN, KNOWN_LEN, Placed, WATCHES, WatchState, Watched, WatchedMemcg};

use super::attach::{Outcome, ProbeState};
use super::plan::Backend;
use super::tracer::{ProbeError, failed, full, take};

/// Any element, new or not (include/uapi/linux/bpf.h).
const BPF_ANY: u64 = 0;

/// The watched memcgs by their numbers.
type Memcgs = [WatchedMemcg; WATCHES as usize];

/// Variables of the kernel side, each a map of one value.
const MEMCGS: &str = ".bss.watched";
const PLACES: &str = ".bss.places";

/// The kernel side's maps of watched memcgs, and what is in them.
pub(super) struct Watches {
    numbers_by_id: HashMap<MapData, u64, u64>,
    memcgs: Array<MapData, Memcgs>,
    /// What is in that map.
    by_number: Box<Memcgs>,
    filter: Array<MapData, u8>,
    state: Array<MapData, u64>,
    known: Array<MapData, [u64; KNOWN_LEN]>,
    told: Map<u64, u32>,
    /// Numbers that are not in use, the longest unused first: a program that began before one was given back has ended by the
    /// time it is given out again.
    unused: VecDeque<u32>,
    changes: u64,
}

impl Watches {
    /// Takes the maps of an object whose programs are attached. `preempts`: threads can lose their CPU in the kernel.
    pub(super) fn take(ebpf: &mut Ebpf, states: &[ProbeState], preempts: bool) -> Result<Self, ProbeError> {
        let mut this = Self {
            numbers_by_id: take(ebpf, "WATCHED")?,
            memcgs: take(ebpf, MEMCGS)?,
            by_number: Box::new([WatchedMemcg::NONE; WATCHES as usize]),
            filter: take(ebpf, "WATCHED_FILTER")?,
            state: take(ebpf, "STATE")?,
            known: take(ebpf, ".bss")?,
            told: Map::new(),
            unused: (1..WATCHES).collect(),
            changes: 0,
        };
        let attached = |name: &str| {
            let state = states.iter().find(|state| state.probe.name == name)?;
            match state.outcome {
                Outcome::Attached { backend, .. } => Some(backend),
                _ => None,
            }
        };
        // The cache must not miss that memcgs change. A kprobe's program is left out where it interrupts another's, or a
        // change of a map: kernel/trace/bpf_trace.c trace_call_bpf(), kernel/bpf/syscall.c bpf_disable_instrumentation().
        // A thread that makes a memcg does so only after preempting another.
        let never_missed = |name| attached(name).is_some_and(|backend| backend == Backend::Fentry || !preempts);
        let caches = never_missed("memcg_made") && never_missed("memcg_left");
        this.state
            .set(WatchState::Caches as u32, u64::from(caches), BPF_ANY)
            .map_err(failed("STATE"))?;
        let mut places = [0; Placed::COUNT];
        for (which, program) in [(Placed::Files, "place_file"), (Placed::Shmem, "place_shmem")] {
            places[which as usize] = attached(program).is_some().into();
        }
        let mut map: Array<_, [u32; Placed::COUNT]> = take(ebpf, PLACES)?;
        map.set(0, places, BPF_ANY).map_err(failed(PLACES))?;
        Ok(this)
    }

    /// Watches a memcg, or changes what is known of it.
    pub(super) fn watch(&mut self, memcg: u64, watched: Watched) -> Result<(), ProbeError> {
        let entry = WatchedMemcg { memcg, watched };
        if let Some(&number) = self.told.get(&memcg) {
            return self.set(number, entry);
        }
        let number = self.unused.pop_front().ok_or_else(|| full("WATCHED"))?;
        let result = self.tell(memcg, number, entry);
        match result {
            Ok(()) => {
                self.told.insert(memcg, number);
            }
            Err(_) => {
                // It may not have been told.
                let _ = self.numbers_by_id.remove(&memcg);
                self.unused.push_back(number);
            }
        }
        result
    }

    /// Says what a number stands for. The map has one value, which is replaced as a whole: by the same, but for this.
    fn set(&mut self, number: u32, entry: WatchedMemcg) -> Result<(), ProbeError> {
        self.by_number[number as usize] = entry;
        self.memcgs.set(0, *self.by_number, BPF_ANY).map_err(failed(MEMCGS))
    }

    fn tell(&mut self, memcg: u64, number: u32, entry: WatchedMemcg) -> Result<(), ProbeError> {
        // In this order: who finds the number finds what it stands for.
        self.set(number, entry)?;
        self.numbers_by_id
            .insert(memcg, u64::from(number), BPF_ANY)
            .map_err(failed("WATCHED"))?;
        self.filter
            .set(remainder(memcg), 1, BPF_ANY)
            .map_err(failed("WATCHED_FILTER"))?;
        self.changed()
    }

    /// Watches a memcg no more; one that was not watched is fine.
    pub(super) fn unwatch(&mut self, memcg: u64) -> Result<(), ProbeError> {
        let Some(number) = self.told.remove(&memcg) else {
            return Ok(());
        };
        match self.numbers_by_id.remove(&memcg) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(failed("WATCHED")),
        }?;
        if !self.told.keys().any(|&other| remainder(other) == remainder(memcg)) {
            self.filter
                .set(remainder(memcg), 0, BPF_ANY)
                .map_err(failed("WATCHED_FILTER"))?;
        }
        self.unused.push_back(number);
        self.changed()
    }

    /// Has the kernel side forget what it knew of addresses. That there was a change is said first: see `resolve` there.
    fn changed(&mut self) -> Result<(), ProbeError> {
        self.changes += 1;
        self.state
            .set(WatchState::ChangedByUser as u32, self.changes, BPF_ANY)
            .map_err(failed("STATE"))?;
        self.known.set(0, [0; KNOWN_LEN], BPF_ANY).map_err(failed("KNOWN"))
    }
}

/// The place of a memcg in the filter.
fn remainder(memcg: u64) -> u32 {
    u32::try_from(memcg % u64::from(FILTER_LEN)).unwrap_or(0)
}
