//! Starting processes in a memcg, such that they never outlive the lab.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Makes the kernel kill the process that this command becomes when the calling thread ends, however it ends; with a
/// cgroup, puts it there before it allocates anything.
///
/// # Errors
/// When the cgroup cannot be opened.
pub fn bind(command: &mut Command, cgroup: Option<&Path>) -> io::Result<()> {
    let parent = Pid::this();
    let mut members = match cgroup {
        Some(path) => Some(File::options().write(true).open(path.join("cgroup.procs"))?),
        None => None,
    };
    // SAFETY: between fork and exec only system calls are made: prctl, getppid and a write from static memory.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                // The lab ended before the line above could take effect.
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            match &mut members {
                // "0" stands for the writer.
                Some(file) => file.write_all(b"0"),
                None => Ok(()),
            }
        });
    }
    // Ctrl-C is for the lab, which ends the others in order.
    command.process_group(0);
    Ok(())
}
