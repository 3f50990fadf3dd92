//! How probes are planned: what each is for, what it can be attached to, and which of that fits a kernel. The probes
//! themselves are in [`PROBES`](super::table::PROBES).

use serde::{Deserialize, Serialize};

use super::btf::KernelTypes;

/// How a probe is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// BPF trampoline at a function's entry or return.
    Fentry,
    /// Breakpoint or ftrace handler at a function's entry, and in place of its return address.
    Kprobe,
    /// Kernel tracepoint.
    Tracepoint,
}

impl Backend {
    /// Its name in recordings and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// The first that works: for each probe fentry, then kprobe; memcg tracepoints where functions cannot be probed.
    #[default]
    Auto,
    /// Function probes by BPF trampolines alone.
    Fentry,
    /// Function probes by kprobes alone.
    Kprobe,
    /// Memcg tracepoints.
    Tracepoint,
}

impl BackendChoice {
    /// The groups of probes to try for the accounting, in order.
    #[must_use]
    pub const fn accounting(self) -> &'static [Group] {
        match self {
            Self::Auto => &[Group::Functions, Group::Tracepoints],
            Self::Fentry | Self::Kprobe => &[Group::Functions],
            Self::Tracepoint => &[Group::Tracepoints],
        }
    }

    /// How to attach to functions, in order.
    #[must_use]
    pub const fn functions(self) -> &'static [Backend] {
        match self {
            Self::Auto | Self::Tracepoint => &[Backend::Fentry, Backend::Kprobe],
            Self::Fentry => &[Backend::Fentry],
            Self::Kprobe => &[Backend::Kprobe],
        }
    }
}

/// What a probe belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Counts charges where functions charge, give back and place pages.
    Functions,
    /// Counts charges by the changes of a memcg's counters. Either this group or the functions are attached, or pages
    /// would count twice.
    Tracepoints,
    /// What following each page takes, beside the functions.
    Live,
    /// Everything else, whatever counts the charges.
    Events,
}

impl Group {
    /// Its name in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Functions => "function probes",
            Self::Tracepoints => "memcg tracepoints",
            Self::Live => "page ledger",
            Self::Events => "events",
        }
    }
}

/// What it means when a probe cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it the group cannot work.
    Required,
    /// Without it this is lost.
    Optional(&'static str),
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Entry of a kernel function with these argument types.
    Entry(&'static str, &'static [&'static str]),
    /// Return of a kernel function with these argument types.
    Exit(&'static str, &'static [&'static str]),
    /// A tracepoint with these argument types; those behind are not looked at.
    Tracepoint(&'static str, &'static [&'static str]),
    /// A tracepoint whose arguments are not used, which may live in a module.
    RawTracepoint(&'static str),
    /// Nothing: this kernel has no use for the probe, because of this.
    Nothing(&'static str),
}

impl Hook {
    /// The function's or tracepoint's name, or why there is none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entry(name, _)
            | Self::Exit(name, _)
            | Self::Tracepoint(name, _)
            | Self::RawTracepoint(name)
            | Self::Nothing(name) => name,
        }
    }

    /// Whether this kernel has it as the program expects it.
    ///
    /// # Errors
    /// Says what is missing or different.
    pub fn check(self, types: &KernelTypes) -> Result<(), String> {
        let (found, expected, all) = match self {
            Self::Entry(name, expected) | Self::Exit(name, expected) => (types.arguments(name), expected, true),
            Self::Tracepoint(name, expected) => (types.tracepoint(name), expected, false),
            Self::RawTracepoint(_) | Self::Nothing(_) => return Ok(()),
        };
        let Some(found) = found else {
            return Err(format!("this kernel has no {}", self.name()));
        };
        let considered = if all {
            found.len()
        } else {
            expected.len().min(found.len())
        };
        if found[..considered] == *expected {
            Ok(())
        } else {
            Err(format!(
                "{} takes ({}), not ({})",
                self.name(),
                found.join(", "),
                expected.join(", ")
            ))
        }
    }
}

/// A program and what it can be attached to.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Name of the eBPF program; as a kprobe it is `NAME_kprobe`, with `NAME_kretprobe` at a return.
    pub program: &'static str,
    /// What it is attached to.
    pub hook: Hook,
    /// The kernel must have this function: what the hook means depends on it.
    with: Option<&'static str>,
    /// The kernel must have none of these functions.
    without: &'static [&'static str],
}

impl Candidate {
    /// A program at a function's entry.
    pub(super) const fn entry(
        program: &'static str,
        function: &'static str,
        arguments: &'static [&'static str],
    ) -> Self {
        Self::new(program, Hook::Entry(function, arguments))
    }

    /// A program at a function's return.
    pub(super) const fn exit(
        program: &'static str,
        function: &'static str,
        arguments: &'static [&'static str],
    ) -> Self {
        Self::new(program, Hook::Exit(function, arguments))
    }

    /// A program on a tracepoint.
    pub(super) const fn tracepoint(
        program: &'static str,
        name: &'static str,
        arguments: &'static [&'static str],
    ) -> Self {
        Self::new(program, Hook::Tracepoint(name, arguments))
    }

    /// A program on a tracepoint that may live in a module.
    pub(super) const fn raw_tracepoint(program: &'static str, name: &'static str) -> Self {
        Self::new(program, Hook::RawTracepoint(name))
    }

    /// No program: the kernel does nothing that the probe would see.
    pub(super) const fn nothing(why: &'static str) -> Self {
        Self::new("", Hook::Nothing(why))
    }

    const fn new(program: &'static str, hook: Hook) -> Self {
        Self {
            program,
            hook,
            with: None,
            without: &[],
        }
    }

    /// Only on kernels with this function.
    pub(super) const fn with(mut self, function: &'static str) -> Self {
        self.with = Some(function);
        self
    }

    /// Only on kernels with none of these functions.
    pub(super) const fn without(mut self, functions: &'static [&'static str]) -> Self {
        self.without = functions;
        self
    }

    /// Whether it fits this kernel.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self, types: &KernelTypes) -> Result<(), String> {
        let has = |function: &&str| types.arguments(function).is_some();
        if let Some(function) = self.with.filter(|function| !has(function)) {
            return Err(format!("this kernel has no {function}"));
        }
        if let Some(function) = self.without.iter().copied().find(|function| has(function)) {
            return Err(format!(
                "{} does not say it on a kernel with {function}",
                self.hook.name()
            ));
        }
        self.hook.check(types)
    }
}

/// Something that headroom wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name in recordings and in `doctor`.
    pub name: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// What it means when it cannot be attached.
    pub need: Need,
    /// On v1 usage does not include what it sees, so it is left out there.
    pub v2_only: bool,
    /// Only where cgroup v1 accounts memory and swap together is there anything to see.
    pub v1_swap_only: bool,
    /// What is tried, in order.
    pub candidates: &'static [Candidate],
}

impl Probe {
    /// A probe that its group needs.
    pub(super) const fn required(name: &'static str, group: Group, candidates: &'static [Candidate]) -> Self {
        Self {
            name,
            group,
            need: Need::Required,
            v2_only: false,
            v1_swap_only: false,
            candidates,
        }
    }

    /// A probe without which this is lost.
    pub(super) const fn optional(
        name: &'static str,
        group: Group,
        lost: &'static str,
        candidates: &'static [Candidate],
    ) -> Self {
        Self {
            need: Need::Optional(lost),
            ..Self::required(name, group, candidates)
        }
    }

    /// Not on v1.
    pub(super) const fn v2_only(mut self) -> Self {
        self.v2_only = true;
        self
    }

    /// Only where cgroup v1 accounts memory and swap together.
    pub(super) const fn where_swap_is_accounted_by_v1(mut self) -> Self {
        self.v1_swap_only = true;
        self
    }

    /// The first candidate that fits these types: what is attached, if the kernel lets it.
    ///
    /// # Errors
    /// Says for each candidate why not.
    pub fn choose(&self, types: &KernelTypes) -> Result<&'static Candidate, String> {
        let mut reasons = Vec::new();
        for candidate in self.candidates {
            match candidate.check(types) {
                Ok(()) => return Ok(candidate),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join(", or "))
    }
}
