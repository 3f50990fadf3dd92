//! Where the memory was.

use std::cmp::Reverse;

use serde::Serialize;

use super::guest::{GuestRam, qemu};
use crate::oomlog::{Report, Task, role};
use crate::role::Role;
use crate::sizing::MIB;
use crate::sizing::version::KubeVirt;

/// Where the memory of the memcg was. Bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Resident memory of all processes in the log.
    pub processes: u64,
    /// Kernel memory charged to the memcg, page tables included.
    pub kernel: Option<u64>,
    /// Page tables of all processes in the log; part of kernel memory.
    pub page_tables: u64,
    /// Usage beyond processes and kernel memory: page cache that nobody maps, and what is charged in advance.
    pub unexplained: Option<u64>,
    /// What processes and kernel memory add up to beyond usage, because shared pages count once for each process, and
    /// mapped files may be charged elsewhere.
    pub counted_twice: Option<u64>,
    /// Page cache, shared memory included, by memory.stat.
    pub page_cache: Option<u64>,
    /// Shared memory by memory.stat.
    pub shmem: Option<u64>,
    /// Anonymous memory by memory.stat.
    pub anon: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
}

/// What the limit leaves beyond guest RAM, against what was used of it. Bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Overhead {
    /// Limit less guest RAM. Negative where guest RAM alone does not fit.
    pub budget: i64,
    /// Least that was used: usage less guest RAM, or less QEMU's resident memory where that is smaller.
    pub at_least: u64,
}

/// A process of the task table. Bytes.
#[derive(Clone, Debug, Serialize)]
pub struct TaskUse {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// What it is for. For QEMU's process that of its main thread.
    pub role: Role,
    /// Resident memory.
    pub rss: u64,
    /// Swapped out.
    pub swap: u64,
    /// Page tables.
    pub page_tables: u64,
    /// `oom_score_adj`
    pub oom_score_adj: i64,
    /// What KubeVirt budgets for it; for QEMU guest RAM and the constant for QEMU itself, without its devices.
    pub budget: Option<u64>,
}

impl TaskUse {
    /// Its role by the process: QEMU's is `qemu`, whatever its main thread does. Not escaped.
    #[must_use]
    pub fn role_name(&self) -> String {
        if role::is_qemu(&self.comm) {
            "qemu".to_owned()
        } else {
            self.role.to_string()
        }
    }

    /// Resident memory of a process other than QEMU's beyond what KubeVirt budgets for it.
    #[must_use]
    pub fn over(&self) -> Option<u64> {
        let over = self.rss.checked_sub(self.budget?)?;
        (over > 0 && !role::is_qemu(&self.comm)).then_some(over)
    }
}

/// Kernel memory in memory.stat before `kernel` was added (5.18).
const KERNEL_PARTS: [&str; 5] = ["kernel_stack", "pagetables", "percpu", "slab", "vmalloc"];

/// cgroup v1 has a counter; v2 has memory.stat.
fn kernel(report: &Report) -> Option<u64> {
    if let Some(kmem) = report.kmem {
        return Some(kmem.usage);
    }
    if let Some(kernel) = report.stats.get("kernel") {
        return Some(*kernel);
    }
    report.stats.get("kernel_stack")?;
    let part = |name: &&str| report.stats.get(*name).copied();
    Some(KERNEL_PARTS.iter().filter_map(part).fold(0, u64::saturating_add))
}

pub(super) fn memory(report: &Report) -> Memory {
    let page_size = report.page_size();
    let total = |each: fn(&Task) -> u64| report.tasks.iter().map(each).fold(0, u64::saturating_add);
    let processes = total(|task| task.rss).saturating_mul(page_size);
    let kernel = kernel(report);
    let known = kernel
        .map(|kernel| processes.saturating_add(kernel))
        .filter(|_| !report.tasks.is_empty());
    let usage = report.memory.map(|memory| memory.usage);
    Memory {
        processes,
        kernel,
        page_tables: total(|task| task.pgtables),
        unexplained: usage.zip(known).and_then(|(usage, known)| usage.checked_sub(known)),
        counted_twice: usage
            .zip(known)
            .and_then(|(usage, known)| known.checked_sub(usage))
            .filter(|twice| *twice > 0),
        page_cache: stat(report, "file", "cache"),
        shmem: stat(report, "shmem", "shmem"),
        anon: stat(report, "anon", "rss"),
        swap: swap(report),
    }
}

/// A figure of memory.stat, under its name with cgroup v2 or v1. With v1 kernels before 6.5 print v2's names, later ones
/// their own, and those of the memcg alone before those with everything below it.
/// kernel: mm/memcontrol.c memory_stat_format, mm/memcontrol-v1.c memcg1_stat_format
fn stat(report: &Report, v2: &str, v1: &str) -> Option<u64> {
    let found = |name: &str| report.stats.get(name).copied();
    found(&format!("total_{v1}"))
        .or_else(|| found(v2))
        .or_else(|| found(v1))
}

/// cgroup v2 has a counter; v1 counts it together with memory.
fn swap(report: &Report) -> Option<u64> {
    let apart = report.swap.map(|swap| swap.usage);
    apart.or_else(|| Some(report.memory_swap?.usage.saturating_sub(report.memory?.usage)))
}

pub(super) fn overhead(report: &Report, guest: &GuestRam) -> Option<Overhead> {
    let memory = report.memory?;
    let size = guest.size?;
    let resident = qemu(report)?.rss.saturating_mul(report.page_size());
    Some(Overhead {
        budget: i64::try_from(memory.limit?).ok()?.checked_sub_unsigned(size)?,
        at_least: memory.usage.saturating_sub(size.min(resident)),
    })
}

/// What a release of KubeVirt budgets for a process. kubevirt: pkg/virt-controller/services/template.go, by release in
/// [`crate::sizing::version::CONSTANTS`]. It budgets nothing for what it did not start itself.
fn budget(comm: &str, guest: Option<u64>, release: KubeVirt, in_pod: bool) -> Option<u64> {
    let constants = release.constants();
    if role::is_qemu(comm) {
        return guest?.checked_add(constants.qemu * MIB);
    }
    let name = match role::of_process(comm) {
        Role::Helper(name) => name,
        Role::Other(_) if in_pod => return Some(0),
        _ => return None,
    };
    let mib = match name.as_str() {
        "virt-launcher-monitor" => constants.monitor,
        "virt-launcher" => constants.launcher,
        "virtlogd" => constants.virtlogd,
        "virtqemud" | "libvirtd" => constants.libvirt,
        _ => return None,
    };
    Some(mib * MIB)
}

pub(super) fn tasks(report: &Report, guest: &GuestRam, release: KubeVirt, in_pod: bool) -> Vec<TaskUse> {
    let page_size = report.page_size();
    let mut tasks: Vec<TaskUse> = report
        .tasks
        .iter()
        .map(|task| TaskUse {
            pid: task.pid,
            comm: task.comm.clone(),
            role: role::of_process(&task.comm),
            rss: task.rss.saturating_mul(page_size),
            swap: task.swapents.saturating_mul(page_size),
            page_tables: task.pgtables,
            oom_score_adj: task.oom_score_adj,
            budget: budget(&task.comm, guest.size, release, in_pod),
        })
        .collect();
    tasks.sort_by_key(|task| (Reverse(task.rss), task.pid));
    tasks
}
