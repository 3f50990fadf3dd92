//! Loads the eBPF object, attaches what the plan says and what this kernel allows, and holds the maps.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::sys::SyscallError;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use tracer_common::{ABSENT, Constants, FileKey, GuestRanges, ITEMS, KernelOffsets, LossCounter};

use super::accounts::Accounts;
use super::attach::{Attacher, Outcome, ProbeState, chain, os_error};
use super::attached::Attached;
use super::btf::{KernelTypes, TypesError};
use super::constants;
use super::fallback::passed_over;
use super::kernel_table::{Unresolved, resolve_offsets};
use super::live::{self, LiveChoice, LiveState, PageLedger};
use super::plan::{Backend, BackendChoice, Group};
use super::preemption;
use super::singles;
use super::watches::Watches;

/// The eBPF programs, inside the binary.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/headroom-ebpf"));

/// How to trace.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which backend counts the charges.
    pub backend: BackendChoice,
    /// Bytes that an account gathers before it emits.
    pub granularity: u32,
    /// Bytes of the ring buffer: a power of two of at least a page.
    pub ring_bytes: u32,
    /// Bytes of the ring buffer of stacks, where stacks are sampled: a power of two of at least a page.
    pub stack_ring_bytes: Option<u32>,
    /// Whether memory is controlled by cgroup v1, where usage does not include socket buffers.
    pub cgroup_v1: bool,
    /// Whether cgroup v1 accounts memory and swap together, so that what is swapped out gives its charge back at once.
    pub v1_accounts_swap: bool,
    /// Whether pages of overhead are followed.
    pub live: LiveChoice,
    /// How many pages there is room for then: see [`room`](super::room).
    pub live_pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            granularity: 64 << 10,
            ring_bytes: 4 << 20,
            stack_ring_bytes: None,
            cgroup_v1: false,
            v1_accounts_swap: false,
            live: LiveChoice::Auto,
            live_pages: 1 << 14,
        }
    }
}

/// Why tracing is not possible.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel's types.
    #[error(transparent)]
    Types(#[from] TypesError),
    /// Something in them is missing.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The object or its maps could not be loaded.
    #[error("the kernel refused the eBPF maps: {reason}")]
    Load {
        /// Why, with the missing capability where that is it.
        reason: String,
    },
    /// The same, for want of a capability.
    #[error("the kernel refused the eBPF maps: permission denied")]
    Denied,
    /// Pages were to be followed, and cannot be.
    #[error("pages cannot be followed: {0}")]
    Live(String),
    /// No backend counts charges here.
    #[error("no backend can count charges on this kernel: {0}")]
    NoBackend(String),
    /// Stacks were asked for, and the kernel has none for eBPF programs of this kind.
    #[error("stacks need Linux 5.11 or later: leave out --stacks")]
    NoStacks,
    /// A required probe could not be attached.
    #[error("probe {probe} cannot be attached: {reason}")]
    Required {
        /// The probe.
        probe: &'static str,
        /// Why not.
        reason: String,
    },
    /// A map could not be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        source: MapError,
    },
}

impl ProbeError {
    /// Whether a map has no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            // kernel: a hash map answers E2BIG, an LRU one ENOMEM (kernel/bpf/hashtab.c)
            Self::Map {
                source: MapError::SyscallError(error),
                ..
            } => matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM)),
            _ => false,
        }
    }
}

/// Attached programs and their maps. Dropping it detaches everything.
pub struct Tracer {
    attached: Vec<Attached>,
    /// Runs missed by programs that are detached.
    missed: u64,
    states: Vec<ProbeState>,
    backend: Backend,
    samples_stacks: bool,
    pub(super) ring: RingBuf<MapData>,
    pub(super) stacks: RingBuf<MapData>,
    pub(super) accounts: Accounts,
    pub(super) watches: Watches,
    pub(super) guest_ranges: HashMap<MapData, u32, GuestRanges>,
    pub(super) guest_files: HashMap<MapData, FileKey, u8>,
    pub(super) file_pages: HashMap<MapData, [u64; 3], u64>,
    pub(super) losses: PerCpuArray<MapData, [u64; LossCounter::COUNT]>,
    pub(super) ledger: Option<PageLedger>,
    live: LiveState,
    pub(super) malformed: u64,
    pub(super) logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Tracer {
    /// Loads and attaches.
    ///
    /// # Errors
    /// When the kernel shows no types, refuses the maps, or no backend can count charges.
    pub fn attach(root: &Path, options: Options) -> Result<Self, ProbeError> {
        let types = KernelTypes::of_running_kernel(root)?;
        let kernel = Kernel {
            offsets: resolve_offsets(&types)?,
            types,
            btf: Btf::from_sys_fs().map_err(|error| ProbeError::Load {
                reason: error.to_string(),
            })?,
            again: preemption::possible(root),
        };
        if options.stack_ring_bytes.is_some() && !has_stacks(&kernel.types) {
            return Err(ProbeError::NoStacks);
        }
        let mut refusals = Vec::new();
        for &group in options.backend.accounting() {
            match Self::attach_group(&kernel, group, options) {
                Ok(mut tracer) => {
                    passed_over(&mut tracer.states, refusals);
                    return Ok(tracer);
                }
                // Another backend would not do better.
                Err(error @ (ProbeError::Live(_) | ProbeError::Denied | ProbeError::Load { .. })) => return Err(error),
                Err(error) => refusals.push(format!("{}: {error}", group.as_str())),
            }
        }
        Err(ProbeError::NoBackend(refusals.join("; ")))
    }

    /// Attaches with the page ledger, or without it where it is not wanted or not possible.
    fn attach_group(kernel: &Kernel, group: Group, options: Options) -> Result<Self, ProbeError> {
        let reason = match (options.live, live::impossible(&kernel.types, group)) {
            (LiveChoice::Off, _) => "not wanted".to_owned(),
            (_, Some(reason)) => reason,
            (_, None) => match Self::try_attach(
                kernel,
                group,
                options,
                LiveState::On {
                    pages: options.live_pages.max(1),
                },
            ) {
                Ok(tracer) => match live::lacking(&tracer.states) {
                    None => return Ok(tracer),
                    Some(reason) => reason,
                },
                Err(error) => error.to_string(),
            },
        };
        if options.live == LiveChoice::Required {
            return Err(ProbeError::Live(reason));
        }
        Self::try_attach(kernel, group, options, LiveState::Off(reason))
    }

    fn try_attach(kernel: &Kernel, group: Group, options: Options, live: LiveState) -> Result<Self, ProbeError> {
        let mut ebpf = kernel.load(options, &live)?;
        let mut attacher = Attacher {
            ebpf: &mut ebpf,
            types: &kernel.types,
            btf: &kernel.btf,
            functions: options.backend.functions(),
            cgroup_v1: options.cgroup_v1,
            v1_accounts_swap: options.v1_accounts_swap,
            again: kernel.again,
        };
        let follows = matches!(live, LiveState::On { .. });
        let groups = [Some(group), follows.then_some(Group::Live), Some(Group::Events)];
        let (mut attached, mut states) = (Vec::new(), Vec::new());
        for group in groups.into_iter().flatten() {
            let (more, more_states) = attacher.group(group)?;
            attached.extend(more);
            states.extend(more_states);
        }
        let mut this = Self::with(ebpf, attached, states, live, kernel.again)?;
        this.samples_stacks = options.stack_ring_bytes.is_some();
        Ok(this)
    }

    fn with(
        mut ebpf: Ebpf,
        attached: Vec<Attached>,
        states: Vec<ProbeState>,
        live: LiveState,
        again: bool,
    ) -> Result<Self, ProbeError> {
        // What the programs have to say is for the log; that they cannot say it is no reason not to trace.
        let logger = EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| log::debug!("no log from eBPF: {error}"))
            .ok();
        // The first probe of a group is one that it needs: what counts user memory.
        let backend = states.iter().find_map(|state| match state.outcome {
            Outcome::Attached { backend, .. } => Some(backend),
            _ => None,
        });
        let ledger = match &live {
            LiveState::On { pages } => Some(PageLedger::take(&mut ebpf, *pages)?),
            LiveState::Off(_) => None,
        };
        let watches = Watches::take(&mut ebpf, &states, again)?;
        Ok(Self {
            ledger,
            live,
            logger,
            attached,
            missed: 0,
            backend: backend.unwrap_or(Backend::Tracepoint),
            states,
            samples_stacks: false,
            ring: take(&mut ebpf, "RECORDS")?,
            stacks: take(&mut ebpf, "STACK_RECORDS")?,
            accounts: Accounts::take(&mut ebpf)?,
            watches,
            guest_ranges: take(&mut ebpf, "GUEST_RANGES")?,
            guest_files: take(&mut ebpf, "GUEST_FILES")?,
            file_pages: take(&mut ebpf, "FILE_PAGES")?,
            losses: take(&mut ebpf, "LOSSES")?,
            malformed: 0,
        })
    }

    /// What counts the charges.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether stacks are sampled.
    #[must_use]
    pub const fn samples_stacks(&self) -> bool {
        self.samples_stacks
    }

    /// Whether pages of overhead are followed, so that it is known what accounts hold.
    #[must_use]
    pub const fn live(&self) -> &LiveState {
        &self.live
    }

    /// What became of each probe.
    #[must_use]
    pub fn states(&self) -> &[ProbeState] {
        &self.states
    }

    /// Each probe's backend, and what was refused before it, for a recording's header.
    #[must_use]
    pub fn backends(&self) -> BTreeMap<String, String> {
        self.states
            .iter()
            .map(|state| (state.probe.name.to_owned(), state.in_header()))
            .collect()
    }

    /// A descriptor that becomes readable when the kernel side wants to be heard at once (a kill, a new program).
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring buffer owns the descriptor and outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        fd.try_clone_to_owned()
    }

    /// Times that a program did not run, since the same program was running on that CPU. What it would have counted
    /// is in no account, unless its second program made up for it ([`tracer_common::LossCounter::RunsMadeUp`]).
    #[must_use]
    pub fn missed_runs(&self) -> u64 {
        self.missed + self.attached.iter().map(Attached::missed_runs).sum::<u64>()
    }

    /// Detaches every program, which unloads it; the maps stay readable, and no longer change.
    pub fn detach(&mut self) {
        self.missed = self.missed_runs();
        self.attached.clear();
    }
}

/// Nanoseconds of CLOCK_BOOTTIME, as `bpf_ktime_get_boot_ns` gives them.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| {
        u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}

/// Bytes of a page.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page_size).unwrap_or(4096)
}

/// What a kernel is like.
struct Kernel {
    types: KernelTypes,
    btf: Btf,
    offsets: KernelOffsets,
    /// Each function needs its second program.
    again: bool,
}

impl Kernel {
    fn load(&self, options: Options, live: &LiveState) -> Result<Ebpf, ProbeError> {
        let pages = match live {
            LiveState::On { pages } => *pages,
            LiveState::Off(_) => 1,
        };
        let (in_array, in_table) = singles::split(pages);
        let page_size = u32::try_from(page_size()).unwrap_or(4096);
        let constants = Constants {
            kernel: self.offsets,
            granularity: options.granularity,
            page_size,
            page_shift: page_size.trailing_zeros(),
            // kernel: enum bpf_func_id, BPF_FUNC_get_current_task_btf (5.11)
            has_task_btf: self.types.enum_value("BPF_FUNC_get_current_task_btf").is_some().into(),
            again: self.again.into(),
            stacks: options.stack_ring_bytes.is_some().into(),
            follow: matches!(live, LiveState::On { .. }).into(),
            swapbacked_or_huge: [self.offsets.pg_swapbacked, self.offsets.pg_head]
                .into_iter()
                .fold(0, |bits, bit| bits | constants::bit(bit)),
            singles_shift: singles::shift(in_array),
        };
        let object = constants::written(OBJECT, &constants).map_err(|error| ProbeError::Load {
            reason: error.to_string(),
        })?;
        // Where there are no stacks, the map is there all the same: as small as can be.
        let stack_ring = options.stack_ring_bytes.unwrap_or(page_size);
        EbpfLoader::new()
            .btf(Some(&self.btf))
            .override_global("OTHER_ITEMS", &other_items(&self.offsets), true)
            .map_max_entries("STACK_RECORDS", stack_ring)
            .map_max_entries("RECORDS", options.ring_bytes)
            .map_max_entries("SINGLES", in_array)
            .map_max_entries("PAGES", in_table)
            .load(&object)
            .map_err(|error| not_loaded(&error))
    }
}

/// Whether a program can ask for the running thread's stacks.
///
/// kernel: enum bpf_func_id, BPF_FUNC_get_task_stack (5.9) of a typed task, BPF_FUNC_get_current_task_btf (5.11)
fn has_stacks(types: &KernelTypes) -> bool {
    ["BPF_FUNC_get_task_stack", "BPF_FUNC_get_current_task_btf"]
        .iter()
        .all(|helper| types.enum_value(helper).is_some())
}

/// Takes a map out of the object.
pub(super) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbeError> {
    let map = ebpf.take_map(name).ok_or_else(|| ProbeError::Load {
        reason: format!("the object has no map {name}"),
    })?;
    map.try_into().map_err(failed(name))
}

/// 1 for each item, modulo their number, by which pages are not told apart where the kernel counts them.
fn other_items(offsets: &KernelOffsets) -> [u8; ITEMS] {
    let mut others = [1; ITEMS];
    for item in [
        offsets.stat_pagetable,
        offsets.stat_secondary_pagetable,
        offsets.stat_kernel_stack,
        offsets.stat_node_vmalloc,
        offsets.stat_slab_unreclaimable,
        offsets.stat_shmem_huge,
        offsets.stat_file_huge,
    ] {
        if item != ABSENT {
            others[item as usize % ITEMS] = 0;
        }
    }
    others
}

/// An error of a map, with its name.
pub(super) fn failed(map: &'static str) -> impl Fn(MapError) -> ProbeError {
    move |source| ProbeError::Map { map, source }
}

/// What the kernel answers where a map has no room.
pub(super) fn full(map: &'static str) -> ProbeError {
    failed(map)(MapError::SyscallError(SyscallError {
        call: "bpf_map_update_elem",
        io_error: io::Error::from_raw_os_error(libc::E2BIG),
    }))
}

/// Why maps or globals were refused.
fn not_loaded(error: &EbpfError) -> ProbeError {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) => ProbeError::Denied,
        _ => ProbeError::Load { reason: chain(error) },
    }
}

/// Names of the programs in the object.
#[cfg(test)]
pub(super) fn program_names() -> std::collections::BTreeSet<String> {
    let object = aya_obj::Object::parse(OBJECT).expect("the object of this build");
    object.programs.into_keys().collect()
}
