//! Programs that return at once, at the same hooks as headroom's: what the kernel takes to run any program there.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use headroom::probe::{Hook, KernelTypes, Outcome, ProbeState};

/// `BPF_PROG_LOAD` and `BPF_RAW_TRACEPOINT_OPEN` (include/uapi/linux/bpf.h).
const PROG_LOAD: i64 = 5;
const RAW_TRACEPOINT_OPEN: i64 = 17;
/// `BPF_PROG_TYPE_TRACING`
const TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`, `BPF_TRACE_FENTRY`, `BPF_TRACE_FEXIT`
const TRACE_RAW_TP: u32 = 23;
const TRACE_FENTRY: u32 = 24;
const TRACE_FEXIT: u32 = 25;

/// `r0 = 0; exit`
const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];

/// `union bpf_attr` as far as `BPF_PROG_LOAD` of this program goes.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct OpenAttributes {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// Attached as long as this lives.
pub struct EmptyPrograms {
    _links: Vec<OwnedFd>,
}

impl EmptyPrograms {
    /// Attaches as many programs to each function and tracepoint as headroom has there.
    pub fn attach(states: &[ProbeState], types: &KernelTypes) -> Result<Self> {
        let mut links = Vec::new();
        for state in states {
            let Outcome::Attached { hook: attached, .. } = &state.outcome else {
                continue;
            };
            let candidates = state.probe.candidates.iter();
            let chosen = candidates
                .filter(|candidate| candidate.hook.name() == *attached)
                .find(|candidate| candidate.check(types).is_ok())
                .with_context(|| format!("nothing of {} is attached to {attached}", state.probe.name))?;
            let (kind, id) = match chosen.hook {
                Hook::Entry(name, _) => (TRACE_FENTRY, types.function_id(name)),
                Hook::Exit(name, _) => (TRACE_FEXIT, types.function_id(name)),
                Hook::Tracepoint(name, _) => (TRACE_RAW_TP, types.tracepoint_id(name)),
                Hook::RawTracepoint(_) | Hook::Nothing(_) => continue,
            };
            let id = id.with_context(|| format!("no type of {attached}"))?;
            for _ in 0..state.programs {
                links.push(attach(kind, id).with_context(|| format!("an empty program at {attached}"))?);
            }
        }
        ensure!(!links.is_empty(), "headroom attached nothing");
        Ok(Self { _links: links })
    }
}

fn attach(kind: u32, id: u32) -> Result<OwnedFd> {
    let load = LoadAttributes {
        prog_type: TRACING,
        insn_count: INSTRUCTIONS.len() as u32,
        insns: INSTRUCTIONS.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        expected_attach_type: kind,
        attach_btf_id: id,
        ..LoadAttributes::default()
    };
    let program = bpf(PROG_LOAD, &load).context("load")?;
    let open = OpenAttributes {
        name: 0,
        prog_fd: u32::try_from(program.as_raw_fd())?,
        padding: 0,
    };
    // The link holds the program.
    bpf(RAW_TRACEPOINT_OPEN, &open).context("attach")
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the attributes, which are as long as said, and what they point to, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
