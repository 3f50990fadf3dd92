//! The tracer must survive the OOM it watches, and hold no more privileges than it still needs.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::node::Node;
use crate::node::maps::{self, Mapping};
use crate::node::privileges::{Privileges, may_lock_everything};

const FILE: &CStr = c"/proc/self/oom_score_adj";
/// kernel: OOM_SCORE_ADJ_MIN is -1000 and means never; -999 leaves the last word to the kernel (include/uapi/linux/oom.h).
const PROTECTED: &[u8] = b"-999";
/// Longest that the file's content is, bytes.
const LONGEST: u64 = 16;

/// What it was before, once it is changed.
static BEFORE: OnceLock<Vec<u8>> = OnceLock::new();

/// Makes this process an unlikely victim and keeps its pages in memory. Without the privilege it goes on unprotected,
/// with a warning: recording matters more.
pub fn from_oom_killer() {
    if let Err(error) = get().and_then(|before| {
        set(PROTECTED)?;
        BEFORE.get_or_init(|| before);
        Ok(())
    }) {
        log::warn!("the OOM killer may choose headroom, CAP_SYS_RESOURCE is missing: oom_score_adj: {error}");
    }
    give_back_free_memory();
    if let Err(error) = lock_memory() {
        log::warn!("headroom's memory may be reclaimed, CAP_IPC_LOCK is missing: {error}");
    }
}

/// Attaching takes some 20 MiB for the kernel's types, which nothing needs afterwards: they would be locked as well.
fn give_back_free_memory() {
    // SAFETY: malloc_trim has no preconditions. That it finds nothing is fine.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Locks what is in memory, and what comes there later: a stack or a heap would else be in memory as a whole, with all that is
/// free of it. Code is brought there now: it may not be readable from a disk that waits for memory.
fn lock_memory() -> io::Result<()> {
    if !may_lock_everything() {
        // With a limit, locking what comes later would let an allocation fail that else would not.
        return Err(Errno::EPERM.into());
    }
    // SAFETY: mlockall has no preconditions.
    Errno::result(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })?;
    let mut locked = Ok(());
    maps::for_each(Path::new("/proc/self/maps"), |mapping| {
        if mapping.path.starts_with('/') {
            locked = lock(&mapping);
        }
        locked.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })
    .ok_or(Errno::ENOENT)?;
    Ok(locked?)
}

/// Locks a mapping of this process as a whole.
fn lock(mapping: &Mapping) -> Result<(), Errno> {
    let (Ok(start), Ok(length)) = (usize::try_from(mapping.start), usize::try_from(mapping.len())) else {
        return Err(Errno::EINVAL);
    };
    let start = std::ptr::without_provenance::<c_void>(start);
    // SAFETY: mlock has no preconditions: addresses that are not mapped are an error.
    Errno::result(unsafe { libc::mlock(start, length) }).map(drop)
}

/// Warns of what is lost without privileges with these names.
pub fn warn_of_missing(node: &Node, names: &[&str]) {
    for privilege in Privileges::read(Some(node)).missing() {
        if let Some(lost) = privilege.lost
            && names.contains(&privilege.name)
        {
            log::warn!("{lost}: {} is missing", privilege.name);
        }
    }
}

/// Has a command start as likely to be killed as this process was: it would inherit the protection, and so would whatever
/// it starts.
pub fn not(command: &mut Command) {
    let Some(before) = BEFORE.get() else { return };
    let undo = move || {
        // Less likely to be killed than meant is no reason not to run.
        let _ = set(before);
        Ok(())
    };
    // SAFETY: between fork and exec only open, write and close are called, which are async-signal-safe; nothing allocates.
    unsafe {
        command.pre_exec(undo);
    }
}

fn get() -> io::Result<Vec<u8>> {
    let mut score = Vec::new();
    File::open("/proc/self/oom_score_adj")?
        .take(LONGEST)
        .read_to_end(&mut score)?;
    Ok(score)
}

fn set(score: &[u8]) -> io::Result<()> {
    let file = open(FILE, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, score)?;
    Ok(())
}
