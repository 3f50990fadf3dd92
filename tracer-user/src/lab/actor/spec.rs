//! An actor's part: what it is called and what its threads allocate in which phase.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// The part of one process. The first thread is the main thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Guest RAM, for the part of a QEMU.
    pub guest_ram: Option<GuestRam>,
    /// Threads; the first is the main thread.
    pub threads: Vec<Thread>,
}

/// Guest RAM of a stand-in, mapped as QEMU maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRam {
    /// Size, bytes.
    pub bytes: u64,
    /// What backs it.
    pub backend: Backend,
}

/// What backs guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Private anonymous memory (memory-backend-ram).
    Ram,
    /// A shared memfd (memory-backend-memfd).
    Memfd,
    /// A memfd of huge pages (memory-backend-memfd with hugetlb=on).
    Hugepages,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Its name (at most 15 bytes).
    pub comm: String,
    /// What it stands for.
    pub role: Role,
    /// What it does, in order.
    pub work: Vec<Work>,
}

/// A step of a thread, done when its phase begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Phases are numbered from 1; the next begins when every thread is through with this one.
    pub phase: u32,
    /// What to do.
    pub step: Step,
}

/// Something that charges memory. Whatever it charges stays charged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Touches guest RAM.
    Guest {
        /// Where to begin, bytes.
        offset: u64,
        /// How much.
        bytes: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Touches private memory of the process.
    Heap {
        /// How much.
        bytes: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Leaks private memory, request by request, in a function that is to be found by its name.
    Leak {
        /// How much.
        bytes: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Starts threads that live for milliseconds, one after the other, each touching some private memory.
    Storm {
        /// How many.
        threads: u64,
        /// What each touches.
        bytes_each: u64,
        /// Their name.
        comm: String,
        /// What they stand for.
        role: Role,
        /// Bytes per second.
        rate: u64,
    },
    /// Writes a file: page cache.
    File {
        /// Which. Created.
        path: PathBuf,
        /// How much.
        bytes: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Makes the kernel build page tables that map nothing but the zero page.
    PageTables {
        /// How much.
        bytes: u64,
        /// Bytes per second.
        rate: u64,
    },
    /// Fills unix sockets that nobody reads.
    UnixSockets {
        /// How much payload.
        bytes: u64,
    },
    /// Fills TCP connections over the loopback device that nobody reads.
    TcpSockets {
        /// How much payload.
        bytes: u64,
        /// The kernel charges TCP buffers to the memcg's memory (cgroup v2).
        charged: bool,
    },
    /// Fills pipes that nobody reads.
    Pipes {
        /// How much payload.
        bytes: u64,
    },
}

impl Thread {
    /// A thread that only stands there.
    #[must_use]
    pub fn idle(comm: &str, role: Role) -> Self {
        Self {
            comm: comm.to_owned(),
            role,
            work: Vec::new(),
        }
    }

    /// The same thread with a further step.
    #[must_use]
    pub fn then(mut self, phase: u32, step: Step) -> Self {
        self.work.push(Work { phase, step });
        self
    }
}
