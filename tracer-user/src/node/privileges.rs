//! Which of the kernel's capabilities headroom needs, what for, which of them it has, and giving up all others.

use std::io;
use std::path::Path;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::Node;
use super::bounded::{self, SMALL};

/// kernel: PROC_USER_INIT_INO, include/linux/proc_ns.h: the number of the first user namespace. Capabilities of any
/// other one do not count for eBPF, tracing and the kernel's log.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";
/// kernel: OOM_SCORE_ADJ_MIN is -1000 and means never (include/uapi/linux/oom.h); headroom asks for one more.
const SPARED: i32 = -999;
/// Capabilities have numbers below this (kernel: 64 bits since capget's version 3, include/uapi/linux/capability.h).
const NUMBERS: u32 = 64;

/// A capability and what headroom needs it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// The capability.
    pub capability: CapabilitySet,
    /// Its name, as capabilities(7) has it.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// What is lost without it; `None` when nothing can be traced without it.
    pub lost: Option<&'static str>,
    /// It is given up once the probes are attached.
    pub only_to_attach: bool,
}

/// Everything that headroom needs, what it cannot do without first.
///
/// kernel: 5.8 and later have `CAP_BPF` and `CAP_PERFMON`; before that, and in their place, `CAP_SYS_ADMIN` serves.
pub const PRIVILEGES: [Privilege; 7] = [
    Privilege {
        capability: CapabilitySet::BPF,
        name: "CAP_BPF",
        purpose: "load eBPF programs, read what they count",
        lost: None,
        only_to_attach: false,
    },
    Privilege {
        capability: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "attach eBPF programs to the kernel",
        lost: None,
        only_to_attach: true,
    },
    Privilege {
        capability: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        purpose: "see executables, mappings and open files of the pods' processes",
        lost: Some("guest RAM cannot be told from overhead"),
        only_to_attach: false,
    },
    Privilege {
        capability: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "list open files of other users' processes",
        lost: Some("files in the page cache have no names"),
        only_to_attach: false,
    },
    Privilege {
        capability: CapabilitySet::SYSLOG,
        name: "CAP_SYSLOG",
        purpose: "read the kernel's log",
        lost: Some("kills come without the kernel's own report"),
        only_to_attach: false,
    },
    Privilege {
        capability: CapabilitySet::SYS_RESOURCE,
        name: "CAP_SYS_RESOURCE",
        purpose: "be spared by the OOM killer; before Linux 5.11 also to make large eBPF maps",
        lost: Some("headroom is as likely to be killed as any other process"),
        only_to_attach: true,
    },
    Privilege {
        capability: CapabilitySet::IPC_LOCK,
        name: "CAP_IPC_LOCK",
        purpose: "keep its own memory from being reclaimed",
        lost: Some("under memory pressure headroom may wait for its own pages"),
        only_to_attach: false,
    },
];

/// Whether a capability is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is.
    Yes,
    /// It is not, and nothing is lost, because of this.
    Needless(&'static str),
    /// It is not.
    Missing,
}

/// What this process may do.
#[derive(Clone, Copy, Debug)]
pub struct Privileges {
    effective: CapabilitySet,
    /// The kernel's log is for everybody (`kernel.dmesg_restrict` is 0).
    log_is_open: bool,
    /// Whoever started us has seen to it that the OOM killer spares us.
    spared: bool,
    /// As much memory as we like may be locked (`RLIMIT_MEMLOCK`).
    may_lock: bool,
}

impl Privileges {
    /// Asks the kernel. What cannot be read counts as not there.
    #[must_use]
    pub fn read(node: Option<&Node>) -> Self {
        let namespace = std::fs::read_link("/proc/self/ns/user").ok();
        let first = namespace.is_none_or(|namespace| namespace.as_os_str() == FIRST_USER_NAMESPACE);
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let restricted = node.and_then(|node| bounded::text(&node.proc("sys/kernel/dmesg_restrict"), SMALL));
        Self {
            effective: if first { effective } else { CapabilitySet::empty() },
            log_is_open: restricted.is_some_and(|text| text.trim() == "0"),
            spared: bounded::text(Path::new("/proc/self/oom_score_adj"), SMALL)
                .and_then(|score| score.trim().parse::<i32>().ok())
                .is_some_and(|score| score <= SPARED),
            may_lock: may_lock_everything(),
        }
    }

    /// Whether a capability is there, or what it is for can be done without it.
    #[must_use]
    pub fn held(&self, privilege: &Privilege) -> Held {
        // kernel: bpf_capable() and perfmon_capable(), include/linux/capability.h
        let stands_for = if privilege.lost.is_none() {
            CapabilitySet::SYS_ADMIN
        } else {
            CapabilitySet::empty()
        };
        if self.effective.intersects(privilege.capability | stands_for) {
            return Held::Yes;
        }
        let otherwise = match privilege.capability {
            CapabilitySet::SYSLOG => (
                self.log_is_open,
                "everybody may read the kernel's log (kernel.dmesg_restrict)",
            ),
            CapabilitySet::SYS_RESOURCE => (self.spared, "the OOM killer spares headroom already (oom_score_adj)"),
            CapabilitySet::IPC_LOCK => (self.may_lock, "it may lock its memory without (RLIMIT_MEMLOCK)"),
            _ => (false, ""),
        };
        match otherwise {
            (true, why) => Held::Needless(why),
            (false, _) => Held::Missing,
        }
    }

    /// What is missing.
    pub fn missing(&self) -> impl Iterator<Item = &'static Privilege> + '_ {
        PRIVILEGES
            .iter()
            .filter(|privilege| self.held(privilege) == Held::Missing)
    }

    /// Names of what is missing and cannot be done without.
    #[must_use]
    pub fn missing_to_trace(&self) -> Vec<&'static str> {
        let required = self.missing().filter(|privilege| privilege.lost.is_none());
        required.map(|privilege| privilege.name).collect()
    }
}

/// Whether this process may lock all its memory, also what it will have.
#[must_use]
pub fn may_lock_everything() -> bool {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let has = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    has || getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY)
}

/// What programs that are started from here on may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// No capability.
    Nothing,
    /// What this process was started with. Only root's programs get it: the kernel gives it to them anew.
    Everything,
}

impl Children {
    /// Everything for those of a process that runs what its user would else run without it.
    #[must_use]
    pub const fn of(started: bool) -> Self {
        if started { Self::Everything } else { Self::Nothing }
    }
}

/// Whether probes will be attached another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attaching {
    /// No.
    Done,
    /// They will, so what that takes is kept.
    Again,
}

/// Whether code of processes will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No.
    Unread,
    /// It will, by its mappings: so it is found also when its file was deleted, where `CAP_CHECKPOINT_RESTORE` is there.
    Read,
}

/// Gives up every capability that is needed no more once the probes are attached, for good. Maps are still read: where
/// `kernel.unprivileged_bpf_disabled` is set, kernels before 5.19 want `CAP_BPF` for that, and an administrator may set
/// it at any time.
///
/// kernel: capabilities are a thread's own. It must be called before other threads are started.
///
/// # Errors
/// When there are other threads, or the kernel refuses.
pub fn give_up(children: Children, attaching: Attaching, code: Code) -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "{threads} threads run already, each with capabilities of its own"
        )));
    }
    let kept = PRIVILEGES
        .iter()
        .filter(|privilege| attaching == Attaching::Again || !privilege.only_to_attach)
        .fold(CapabilitySet::empty(), |kept, privilege| kept | privilege.capability);
    // What was started must be ended, also when it runs as another user by then.
    let kept = match children {
        Children::Nothing => kept,
        Children::Everything => kept | CapabilitySet::KILL,
    };
    let kept = match code {
        Code::Unread => kept,
        Code::Read => kept | CapabilitySet::CHECKPOINT_RESTORE,
    };
    let has = capabilities(None)?;
    // Where it is not allowed to give these up, whoever started us has decided what programs may have.
    if children == Children::Nothing && has.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    clear_ambient_capability_set()?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: has.effective & kept,
            permitted: has.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

fn empty_bounding_set() -> io::Result<()> {
    for number in 0..NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
