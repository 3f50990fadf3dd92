//! Loads the eBPF object, attaches what the plan says and what this kernel allows, and holds the maps.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use tracer_common::{AccountKey, AccountTotals, FileKey, GuestRanges, KernelOffsets, Watched};

use super::attached::Attached;
use super::btf::{KernelTypes, TypesError};
use super::kernel_table::{Unresolved, resolve_offsets};
use super::plan::{Backend, BackendChoice, Candidate, Group, Hook, Need, PROBES, Probe};

/// The eBPF programs, inside the binary.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/headroom-ebpf"));

/// How to trace.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which backend counts the charges.
    pub backend: BackendChoice,
    /// Bytes that an account gathers before it emits.
    pub granularity: u64,
    /// Bytes of the ring buffer: a power of two of at least a page.
    pub ring_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            granularity: 64 << 10,
            ring_bytes: 4 << 20,
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
    /// No backend counts charges here.
    #[error("no backend can count charges on this kernel: {0}")]
    NoBackend(String),
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

/// What became of a probe.
#[derive(Clone, Debug)]
pub struct ProbeState {
    /// The probe.
    pub probe: &'static Probe,
    /// Backend and hook that it got, or why it has none.
    pub result: Result<(Backend, &'static str), String>,
}

impl ProbeState {
    /// `fentry uncharge_folio`, or `none: reason`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.result {
            Ok((backend, hook)) => format!("{} {hook}", backend.as_str()),
            Err(reason) => format!("none: {reason}"),
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
    pub(super) ring: RingBuf<MapData>,
    pub(super) accounts: HashMap<MapData, AccountKey, AccountTotals>,
    pub(super) watched: HashMap<MapData, u64, Watched>,
    pub(super) guest_ranges: HashMap<MapData, u32, GuestRanges>,
    pub(super) guest_files: HashMap<MapData, FileKey, u8>,
    pub(super) file_pages: HashMap<MapData, [u64; 3], u64>,
    pub(super) losses: PerCpuArray<MapData, u64>,
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
        let offsets = resolve_offsets(&types)?;
        let btf = Btf::from_sys_fs().map_err(|error| ProbeError::Load {
            reason: error.to_string(),
        })?;
        let mut ebpf = load(&types, &btf, &offsets, options)?;
        let mut refusals = Vec::new();
        for &backend in options.backend.order() {
            match attach_group(&mut ebpf, &types, &btf, Group::Accounting(backend)) {
                Ok((mut attached, mut states)) => {
                    let (more, more_states) = attach_group(&mut ebpf, &types, &btf, Group::Events)?;
                    attached.extend(more);
                    states.extend(more_states);
                    return Self::with(ebpf, attached, states, backend);
                }
                Err(error) => refusals.push(format!("{}: {error}", backend.as_str())),
            }
        }
        Err(ProbeError::NoBackend(refusals.join("; ")))
    }

    fn with(
        mut ebpf: Ebpf,
        attached: Vec<Attached>,
        states: Vec<ProbeState>,
        backend: Backend,
    ) -> Result<Self, ProbeError> {
        macro_rules! take {
            ($name:literal) => {
                ebpf.take_map($name)
                    .ok_or(ProbeError::Load {
                        reason: concat!("the object has no map ", $name).to_owned(),
                    })?
                    .try_into()
                    .map_err(|source| ProbeError::Map { map: $name, source })?
            };
        }
        // What the programs have to say is for the log; that they cannot say it is no reason not to trace.
        let logger = EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| log::debug!("no log from eBPF: {error}"))
            .ok();
        Ok(Self {
            logger,
            attached,
            missed: 0,
            states,
            backend,
            ring: take!("RECORDS"),
            accounts: take!("ACCOUNTS"),
            watched: take!("WATCHED"),
            guest_ranges: take!("GUEST_RANGES"),
            guest_files: take!("GUEST_FILES"),
            file_pages: take!("FILE_PAGES"),
            losses: take!("LOSSES"),
            malformed: 0,
        })
    }

    /// What counts the charges.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// What became of each probe.
    #[must_use]
    pub fn states(&self) -> &[ProbeState] {
        &self.states
    }

    /// Each probe's backend, for a recording's header.
    #[must_use]
    pub fn backends(&self) -> BTreeMap<String, String> {
        self.states
            .iter()
            .map(|state| (state.probe.name.to_owned(), state.describe()))
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
    /// is in no account.
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

fn load(types: &KernelTypes, btf: &Btf, offsets: &KernelOffsets, options: Options) -> Result<Ebpf, ProbeError> {
    let page_size = page_size();
    let page_shift = page_size.trailing_zeros();
    // kernel: enum bpf_func_id, BPF_FUNC_get_current_task_btf (5.11)
    let has_task_btf = u32::from(types.enum_value("BPF_FUNC_get_current_task_btf").is_some());
    EbpfLoader::new()
        .btf(Some(btf))
        .override_global("OFFSETS", offsets, true)
        .override_global("GRANULARITY", &options.granularity, true)
        .override_global("PAGE_SIZE", &page_size, true)
        .override_global("PAGE_SHIFT", &page_shift, true)
        .override_global("HAS_TASK_BTF", &has_task_btf, true)
        .map_max_entries("RECORDS", options.ring_bytes)
        .load(OBJECT)
        .map_err(|error| ProbeError::Load {
            reason: explain_load(&error),
        })
}

/// Attaches a group's probes.
fn attach_group(
    ebpf: &mut Ebpf,
    types: &KernelTypes,
    btf: &Btf,
    group: Group,
) -> Result<(Vec<Attached>, Vec<ProbeState>), ProbeError> {
    let mut attached = Vec::new();
    let mut states = Vec::new();
    for probe in PROBES.iter().filter(|probe| probe.group == group) {
        let result = attach_probe(ebpf, types, btf, probe);
        let result = match (result, probe.need) {
            (Ok((program, candidate)), _) => {
                attached.push(program);
                Ok((candidate.hook.backend(), candidate.hook.name()))
            }
            (Err(reason), Need::Required) => {
                return Err(ProbeError::Required {
                    probe: probe.name,
                    reason,
                });
            }
            (Err(reason), Need::Optional(consequence)) => Err(format!("{reason}: {consequence}")),
        };
        states.push(ProbeState { probe, result });
    }
    Ok((attached, states))
}

/// Tries a probe's candidates in order.
fn attach_probe(
    ebpf: &mut Ebpf,
    types: &KernelTypes,
    btf: &Btf,
    probe: &Probe,
) -> Result<(Attached, &'static Candidate), String> {
    let mut reasons = Vec::new();
    for candidate in probe.candidates {
        match candidate
            .hook
            .check(types)
            .and_then(|()| attach_candidate(ebpf, btf, candidate))
        {
            Ok(attached) => return Ok((attached, candidate)),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join(", or "))
}

fn attach_candidate(ebpf: &mut Ebpf, btf: &Btf, candidate: &Candidate) -> Result<Attached, String> {
    let name = candidate.hook.name();
    let program = ebpf
        .program_mut(candidate.program)
        .ok_or_else(|| format!("no program {}", candidate.program))?;
    let attached = try_attach(program, btf, name, candidate.hook);
    attached.map_err(|error| explain_attach(name, &error))
}

fn try_attach(program: &mut Program, btf: &Btf, name: &str, hook: Hook) -> Result<Attached, ProgramError> {
    let link = match (&mut *program, hook) {
        (Program::FEntry(program), Hook::Entry(..)) => {
            program.load(name, btf)?;
            let link = program.attach()?;
            program.take_link(link)?.into()
        }
        (Program::FExit(program), Hook::Exit(..)) => {
            program.load(name, btf)?;
            let link = program.attach()?;
            program.take_link(link)?.into()
        }
        (Program::BtfTracePoint(program), Hook::Tracepoint(..)) => {
            program.load(name, btf)?;
            let link = program.attach()?;
            program.take_link(link)?.into()
        }
        (Program::RawTracePoint(program), Hook::RawTracepoint(_)) => {
            program.load()?;
            let link = program.attach(name)?;
            program.take_link(link)?.into()
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Attached::new(program, link)
}

/// Why maps or globals were refused, with the missing capability where that is it.
fn explain_load(error: &EbpfError) -> String {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) => {
            "permission denied: run as root, or with CAP_BPF and CAP_PERFMON".to_owned()
        }
        _ => chain(error),
    }
}

/// Why a program was refused, in words.
fn explain_attach(name: &str, error: &ProgramError) -> String {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM) => format!("{name} is refused by this kernel (EPERM)"),
        Some(libc::EBUSY) => format!("{name} cannot be traced (EBUSY)"),
        Some(libc::ENOENT) => format!("{name} is not there to attach to (ENOENT)"),
        // kernel: ENOTSUPP, include/linux/errno.h
        Some(524) => format!("{name} has too many arguments to be traced (ENOTSUPP)"),
        _ => match error {
            ProgramError::LoadError { verifier_log, .. } => {
                log::debug!("{name}: {verifier_log}");
                let log = verifier_log.to_string();
                let noise = ["processed ", "stack depth ", "verification time "];
                let last = log
                    .lines()
                    .rev()
                    .find(|line| !noise.iter().any(|prefix| line.starts_with(prefix)))
                    .unwrap_or("");
                format!("{name} is refused by the verifier: {last}")
            }
            _ => format!("{name}: {}", chain(error)),
        },
    }
}

fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
