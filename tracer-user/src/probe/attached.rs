//! An attached program, and how often the kernel left it out.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use aya::programs::kprobe::KProbeLink;
use aya::programs::links::FdLink;
use aya::programs::{ProbeKind, Program, ProgramError};

use super::missed;

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
    /// Of the link that attaches a kprobe, where the kernel makes one.
    kprobe: Option<RawFd>,
    /// Nothing else does what this program is kept from.
    pub(super) misses_matter: bool,
}

impl Attached {
    /// A program with the link that attaches it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn new(program: &Program, link: Link) -> Result<Self, ProgramError> {
        let fd = program.fd()?.as_fd().try_clone_to_owned()?;
        // A kretprobe has a kprobe beside it, which is left out with it, and the programs count returns that are not seen.
        let kprobe = match program {
            Program::KProbe(program) if matches!(program.kind(), ProbeKind::Entry) => missed::link_of(fd.as_fd()),
            _ => None,
        };
        Ok(Self {
            _link: link,
            program: fd,
            kprobe,
            misses_matter: true,
        })
    }

    /// Times that the program did not run where it should have.
    pub(super) fn missed_runs(&self) -> u64 {
        if !self.misses_matter {
            return 0;
        }
        missed::by_the_program(self.program.as_fd()) + self.kprobe.map_or(0, missed::by_the_kprobe)
    }
}
