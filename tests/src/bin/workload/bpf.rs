//! Plain bpf(2): what BPF objects there are in the kernel, and such as a test has it hold.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya_obj::btf::{Btf, BtfKind};
use nix::errno::Errno;

// kernel: enum bpf_cmd, include/uapi/linux/bpf.h (5.10 to 7.3)
const PROG_LOAD: libc::c_long = 5;
const PROG_GET_NEXT_ID: libc::c_long = 11;
const MAP_GET_NEXT_ID: libc::c_long = 12;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const LINK_GET_NEXT_ID: libc::c_long = 31;

// kernel: enum bpf_prog_type, bpf_attach_type
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_FENTRY: u32 = 24;

/// More than any kernel lets a function have. kernel: BPF_MAX_TRAMP_LINKS is 38 (5.10: BPF_MAX_TRAMP_PROGS, 40)
const TOO_MANY: usize = 64;

fn bpf(command: libc::c_long, attribute: &mut [u32]) -> Result<i32, Errno> {
    // SAFETY: the attribute is as long as told, and outlives the call; what it points to does so, too, in every caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute)) };
    Errno::result(result).map(|value| i32::try_from(value).unwrap_or(i32::MAX))
}

fn descriptor(command: libc::c_long, attribute: &mut [u32]) -> Result<OwnedFd, Errno> {
    let number = bpf(command, attribute)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Objects of BPF that there are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    pub programs: u64,
    pub maps: u64,
    pub links: u64,
}

impl Objects {
    /// Counts them.
    pub fn count() -> Result<Self> {
        Ok(Self {
            programs: ids(PROG_GET_NEXT_ID)?,
            maps: ids(MAP_GET_NEXT_ID)?,
            links: ids(LINK_GET_NEXT_ID)?,
        })
    }
}

/// Counts the objects that a command walks.
fn ids(command: libc::c_long) -> Result<u64> {
    let mut count = 0;
    // start_id, next_id, open_flags
    let mut attribute = [0_u32; 3];
    loop {
        match bpf(command, &mut attribute) {
            Ok(_) => count += 1,
            Err(Errno::ENOENT) => return Ok(count),
            Err(error) => return Err(error).context("cannot walk the kernel's BPF objects"),
        }
        attribute[0] = attribute[1];
    }
}

/// Attaches programs that do nothing to a function's entry until it takes no more. It is free again when they are dropped.
pub fn fill(function: &str) -> Result<Vec<(OwnedFd, OwnedFd)>> {
    let types = Btf::from_sys_fs().context("no BTF")?;
    let function = types.id_by_type_name_kind(function, BtfKind::Func)?;
    let mut attached = Vec::new();
    while attached.len() < TOO_MANY {
        let program = idle_program(function)?;
        // name, prog_fd
        let number = u32::try_from(program.as_raw_fd())?;
        match descriptor(RAW_TRACEPOINT_OPEN, &mut [0, 0, number, 0]) {
            Ok(link) => attached.push((program, link)),
            Err(Errno::E2BIG) => return Ok(attached),
            Err(error) => return Err(error).context("cannot attach a program"),
        }
    }
    bail!("{} programs are not too many", attached.len())
}

/// Loads `return 0` for the entry of a function.
fn idle_program(function: u32) -> Result<OwnedFd> {
    // r0 = 0; exit
    let instructions = [0xb7_u64, 0x95];
    let license = c"GPL";
    let mut attribute = [0_u32; 30];
    let mut pointer = |word: usize, address: usize| {
        let address = address as u64;
        attribute[word] = address as u32;
        attribute[word + 1] = (address >> 32) as u32;
    };
    pointer(2, instructions.as_ptr().expose_provenance());
    pointer(4, license.as_ptr().expose_provenance());
    attribute[0] = PROG_TYPE_TRACING;
    attribute[1] = u32::try_from(instructions.len())?;
    // expected_attach_type, attach_btf_id
    attribute[17] = TRACE_FENTRY;
    attribute[27] = function;
    descriptor(PROG_LOAD, &mut attribute).context("cannot load a program")
}
