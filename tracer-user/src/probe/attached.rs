//! An attached program, and how often the kernel left it out.

use std::fs::read_to_string;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::programs::kprobe::KProbeLink;
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};

/// What attaches a program.
pub(super) enum Link {
    Fd(#[expect(dead_code, reason = "held, not read")] FdLink),
    /// Kernels before 5.15 have no link for a kprobe, only its perf event.
    Kprobe(#[expect(dead_code, reason = "held, not read")] KProbeLink),
}

/// A program that is attached as long as this lives.
pub(super) struct Attached {
    _link: Link,
    program: OwnedFd,
    /// Nothing else does what this program is kept from.
    pub(super) misses_matter: bool,
}

impl Attached {
    /// A program with the link that attaches it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn new(program: &Program, link: Link) -> Result<Self, ProgramError> {
        let program = program.fd()?.as_fd().try_clone_to_owned()?;
        Ok(Self {
            _link: link,
            program,
            misses_matter: true,
        })
    }

    /// Times that the program did not run where it should have, since the same program (as a kprobe: any) was running
    /// on that CPU: an interrupt in the middle of it. 0 where the kernel does not tell.
    ///
    /// kernel: kernel/bpf/syscall.c `bpf_prog_show_fdinfo` (5.12 and later)
    pub(super) fn missed_runs(&self) -> u64 {
        if !self.misses_matter {
            return 0;
        }
        let path = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        read_to_string(path).map_or(0, |info| parse_misses(&info))
    }
}

fn parse_misses(info: &str) -> u64 {
    info.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_where_the_kernel_tells_them() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t7\nverified_insns:\t5\n";
        assert_eq!(parse_misses(info), 7);
        assert_eq!(parse_misses("prog_type:\t26\n"), 0);
    }
}
