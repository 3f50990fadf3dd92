//! A scenario made concrete: who does what, under which limit, and what a tracer should conclude.

use serde::Serialize;

use super::actor::spec::Spec;
use super::real::Part;
use crate::role::Role;

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;

/// A scenario with all its sizes settled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Size of guest RAM, bytes.
    pub guest_ram: u64,
    /// Limit of the container's memcg, bytes.
    pub limit: u64,
    /// The processes, in the order they start.
    pub cast: Vec<Member>,
    /// What should come of it; `None` where the reader chose the limit or the guest, so that the run tells.
    pub expect: Option<Expect>,
}

/// What a tracer should conclude.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expect {
    /// Whose overhead grew most: process and role. `None` where nothing is to blame.
    pub culprit: Option<Culprit>,
    /// Short name of the process that the kernel kills, if any.
    pub kill: Option<&'static str>,
    /// Roles whose allocation may hit the limit; empty where nothing is killed.
    pub invokers: Vec<Role>,
}

/// Who is to blame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// Short name of the process.
    pub process: String,
    /// Role.
    pub role: Role,
}

/// A process of the pod.
#[derive(Clone, Debug)]
pub struct Member {
    /// Short name, as a tracer should find it (`qemu`, `virtqemud`).
    pub name: String,
    /// Its command line as /proc shows it, the program's own name first.
    pub argv: Vec<String>,
    /// What runs.
    pub program: Program,
}

/// What runs as a member of the cast.
#[derive(Clone, Debug)]
pub enum Program {
    /// This executable, playing a part.
    StandIn(Spec),
    /// A real QEMU with the lab's payload.
    Real(Part),
}

impl Member {
    /// The last phase it has work in; 0 when it only stands there.
    #[must_use]
    pub fn last_phase(&self) -> u32 {
        match &self.program {
            Program::StandIn(spec) => spec
                .threads
                .iter()
                .flat_map(|thread| thread.work.iter().map(|work| work.phase))
                .max()
                .unwrap_or(0),
            Program::Real(part) => u32::try_from(part.tasks.len()).unwrap_or(u32::MAX),
        }
    }

    /// How many of its threads have work in a phase.
    #[must_use]
    pub fn busy_threads(&self, phase: u32) -> usize {
        match &self.program {
            Program::StandIn(spec) => spec
                .threads
                .iter()
                .filter(|thread| thread.work.iter().any(|work| work.phase == phase))
                .count(),
            Program::Real(_) => usize::from(phase <= self.last_phase()),
        }
    }

    /// How many threads say hello when it has started.
    #[must_use]
    pub fn threads(&self) -> usize {
        match &self.program {
            Program::StandIn(spec) => spec.threads.len(),
            // The payload.
            Program::Real(_) => 1,
        }
    }
}
