//! The tracer must survive the OOM it watches.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::stat::Mode;
use nix::unistd::write;

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
        log::warn!("cannot lower oom_score_adj: {error}");
    }
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        log::warn!("cannot lock memory: {error}");
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
