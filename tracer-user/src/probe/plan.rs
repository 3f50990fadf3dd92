//! The one table of probes: what each is for, and what it can be attached to, in the order it is tried.

use serde::{Deserialize, Serialize};

use super::btf::KernelTypes;

/// How a probe is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// BPF trampoline at a function's entry or return.
    Fentry,
    /// Kernel tracepoint.
    Tracepoint,
}

impl Backend {
    /// Its name in recordings and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// The first that works: fentry, then tracepoint.
    #[default]
    Auto,
    /// Function probes.
    Fentry,
    /// Memcg tracepoints.
    Tracepoint,
}

impl BackendChoice {
    /// The backends to try for the accounting, in order.
    #[must_use]
    pub const fn order(self) -> &'static [Backend] {
        match self {
            Self::Auto => &[Backend::Fentry, Backend::Tracepoint],
            Self::Fentry => &[Backend::Fentry],
            Self::Tracepoint => &[Backend::Tracepoint],
        }
    }
}

/// What a probe belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Counts charges: only one backend's probes of this group are attached, or pages would count twice.
    Accounting(Backend),
    /// Everything else, whatever counts the charges.
    Events,
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
}

impl Hook {
    /// The function's or tracepoint's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entry(name, _) | Self::Exit(name, _) | Self::Tracepoint(name, _) | Self::RawTracepoint(name) => name,
        }
    }

    /// How it is attached.
    #[must_use]
    pub const fn backend(self) -> Backend {
        match self {
            Self::Entry(..) | Self::Exit(..) => Backend::Fentry,
            Self::Tracepoint(..) | Self::RawTracepoint(_) => Backend::Tracepoint,
        }
    }

    /// Whether this kernel has it as the program expects it.
    ///
    /// # Errors
    /// Says what is missing or different.
    pub fn check(self, types: &KernelTypes) -> Result<(), String> {
        let (found, expected, all) = match self {
            Self::Entry(name, expected) | Self::Exit(name, expected) => {
                let found = types.function(name).map(|mut arguments| {
                    arguments.pop();
                    arguments
                });
                (found, expected, true)
            }
            Self::Tracepoint(name, expected) => (types.tracepoint(name), expected, false),
            Self::RawTracepoint(_) => return Ok(()),
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
    /// Name of the eBPF program.
    pub program: &'static str,
    /// What it is attached to.
    pub hook: Hook,
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
    /// What is tried, in order.
    pub candidates: &'static [Candidate],
}

const FOLIO: &str = "struct folio *";
const PAGE: &str = "struct page *";
const MEMCG: &str = "struct mem_cgroup *";
const OBJCG: &str = "struct obj_cgroup *";
const MAPPING: &str = "struct address_space *";
const MM: &str = "struct mm_struct *";
const TASK: &str = "struct task_struct *";
const ULONG: &str = "long unsigned int";
const UINT: &str = "unsigned int";

const FUNCTIONS: Group = Group::Accounting(Backend::Fentry);
const TRACEPOINTS: Group = Group::Accounting(Backend::Tracepoint);

const fn on(program: &'static str, hook: Hook) -> Candidate {
    Candidate { program, hook }
}

/// Every probe. Prototypes: the kernel versions are noted at the programs in tracer-ebpf.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "charge_folio",
        group: FUNCTIONS,
        need: Need::Required,
        candidates: &[on(
            "charge_folio",
            Hook::Exit("__mem_cgroup_charge", &[FOLIO, MM, "gfp_t"]),
        )],
    },
    Probe {
        name: "charge_swapin",
        group: FUNCTIONS,
        need: Need::Optional("memory that is swapped in shows as unexplained"),
        candidates: &[on(
            "charge_swapin_folio",
            Hook::Exit("mem_cgroup_swapin_charge_folio", &[FOLIO, MM, "gfp_t", "swp_entry_t"]),
        )],
    },
    Probe {
        name: "charge_kernel_pages",
        group: FUNCTIONS,
        need: Need::Required,
        candidates: &[on(
            "charge_kernel_pages",
            Hook::Exit("__memcg_kmem_charge_page", &[PAGE, "gfp_t", "int"]),
        )],
    },
    Probe {
        name: "charge_objects",
        group: FUNCTIONS,
        need: Need::Optional("kernel objects (slab) show as unexplained"),
        candidates: &[on(
            "charge_objects",
            Hook::Exit("obj_cgroup_charge", &[OBJCG, "gfp_t", "size_t"]),
        )],
    },
    Probe {
        name: "charge_socket",
        group: FUNCTIONS,
        need: Need::Optional("socket buffers show as unexplained"),
        candidates: &[on(
            "charge_socket",
            Hook::Exit("mem_cgroup_charge_skmem", &[MEMCG, UINT, "gfp_t"]),
        )],
    },
    Probe {
        name: "uncharge_folio",
        group: FUNCTIONS,
        need: Need::Required,
        candidates: &[on(
            "uncharge_folio",
            Hook::Entry("uncharge_folio", &[FOLIO, "struct uncharge_gather *"]),
        )],
    },
    Probe {
        name: "uncharge_kernel_pages",
        group: FUNCTIONS,
        need: Need::Required,
        candidates: &[on(
            "uncharge_kernel_pages",
            Hook::Entry("__memcg_kmem_uncharge_page", &[PAGE, "int"]),
        )],
    },
    Probe {
        name: "uncharge_objects",
        group: FUNCTIONS,
        need: Need::Optional("kernel objects (slab) that are freed show as unexplained"),
        candidates: &[on(
            "uncharge_objects",
            Hook::Entry("refill_obj_stock", &[OBJCG, UINT, "bool"]),
        )],
    },
    Probe {
        name: "uncharge_socket",
        group: FUNCTIONS,
        need: Need::Optional("socket buffers that are freed show as unexplained"),
        candidates: &[on(
            "uncharge_socket",
            Hook::Entry("mem_cgroup_uncharge_skmem", &[MEMCG, UINT]),
        )],
    },
    Probe {
        name: "place_anon",
        group: FUNCTIONS,
        need: Need::Required,
        candidates: &[on(
            "place_anon",
            Hook::Entry(
                "folio_add_new_anon_rmap",
                &[FOLIO, "struct vm_area_struct *", ULONG, "rmap_t"],
            ),
        )],
    },
    Probe {
        name: "place_shmem",
        group: FUNCTIONS,
        need: Need::Optional("guest RAM in memfds is not told from other shared memory"),
        candidates: &[on(
            "place_shmem",
            Hook::Exit("shmem_add_to_page_cache", &[FOLIO, MAPPING, ULONG, "void *", "gfp_t"]),
        )],
    },
    Probe {
        name: "unplace_shmem",
        group: FUNCTIONS,
        need: Need::Optional("guest RAM in memfds that is given back shows as overhead freed"),
        candidates: &[on("unplace_shmem", Hook::Entry("filemap_remove_folio", &[FOLIO]))],
    },
    Probe {
        name: "place_file",
        group: FUNCTIONS,
        need: Need::Optional("page cache is not told by file"),
        candidates: &[on(
            "place_file",
            Hook::Exit("__filemap_add_folio", &[MAPPING, FOLIO, ULONG, "gfp_t", "void **"]),
        )],
    },
    Probe {
        name: "lruvec_stat",
        group: TRACEPOINTS,
        need: Need::Required,
        candidates: &[on(
            "lruvec_stat",
            Hook::Tracepoint("mod_memcg_lruvec_state", &[MEMCG, "int"]),
        )],
    },
    Probe {
        name: "memcg_stat",
        group: TRACEPOINTS,
        need: Need::Required,
        candidates: &[on("memcg_stat", Hook::Tracepoint("mod_memcg_state", &[MEMCG, "int"]))],
    },
    Probe {
        name: "fault_user",
        group: TRACEPOINTS,
        need: Need::Optional("guest RAM is told from overhead by smaps alone"),
        candidates: &[on("fault_user", Hook::Tracepoint("page_fault_user", &[ULONG]))],
    },
    Probe {
        name: "fault_kernel",
        group: TRACEPOINTS,
        need: Need::Optional("guest RAM that the kernel touches is told by smaps alone"),
        candidates: &[on("fault_kernel", Hook::Tracepoint("page_fault_kernel", &[ULONG]))],
    },
    Probe {
        name: "guest_fault_begin",
        group: TRACEPOINTS,
        need: Need::Optional("without KVM there are no nested page faults to follow"),
        candidates: &[on("guest_fault_begin", Hook::RawTracepoint("kvm_page_fault"))],
    },
    Probe {
        name: "guest_fault_end",
        group: TRACEPOINTS,
        need: Need::Optional("without KVM there are no nested page faults to follow"),
        candidates: &[on("guest_fault_end", Hook::RawTracepoint("kvm_entry"))],
    },
    Probe {
        name: "oom_kill",
        group: Group::Events,
        need: Need::Optional("a kill is told with its victim, but without the allocation that failed"),
        candidates: &[on(
            "oom_kill",
            Hook::Entry("oom_kill_process", &["struct oom_control *", "char *"]),
        )],
    },
    Probe {
        name: "oom_victim",
        group: Group::Events,
        need: Need::Required,
        candidates: &[on("oom_victim", Hook::Tracepoint("mark_victim", &[TASK]))],
    },
    Probe {
        name: "reclaim_begin",
        group: Group::Events,
        need: Need::Optional("time spent reclaiming is not shown"),
        candidates: &[
            on(
                "reclaim_begin",
                Hook::Tracepoint("mm_vmscan_memcg_reclaim_begin", &["int", "gfp_t"]),
            ),
            on(
                "reclaim_begin_gfp_first",
                Hook::Tracepoint("mm_vmscan_memcg_reclaim_begin", &["gfp_t", "int", MEMCG]),
            ),
        ],
    },
    Probe {
        name: "reclaim_end",
        group: Group::Events,
        need: Need::Optional("time spent reclaiming is not shown"),
        candidates: &[on(
            "reclaim_end",
            Hook::Tracepoint("mm_vmscan_memcg_reclaim_end", &[ULONG]),
        )],
    },
    Probe {
        name: "thread_exit",
        group: Group::Events,
        need: Need::Required,
        candidates: &[on("thread_exit", Hook::Tracepoint("sched_process_exit", &[TASK]))],
    },
    Probe {
        name: "thread_rename",
        group: Group::Events,
        need: Need::Optional("names are as old as the last charge"),
        candidates: &[on("thread_rename", Hook::Tracepoint("task_rename", &[TASK, "char *"]))],
    },
    Probe {
        name: "process_exec",
        group: Group::Events,
        need: Need::Optional("new processes are found by polling"),
        candidates: &[on("process_exec", Hook::Tracepoint("sched_process_exec", &[TASK]))],
    },
];
