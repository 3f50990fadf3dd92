//! A VM pod at a glance: what it may use, what it uses, and what runs in it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Node;
use super::guest_ram::How;
use super::pods::{Container, VmPod};
use super::{process, roles};
use crate::recording::event::VmShape;
use crate::role::Role;

/// A VM pod. Sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// `namespace/vm`, or the most telling of what there is.
    pub label: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Pod uid.
    pub pod_uid: String,
    /// Path of the limiting memcg below the memory controller's root.
    pub cgroup: String,
    /// Its cgroup id.
    pub cgroup_id: u64,
    /// Its limit.
    pub limit: Option<u64>,
    /// Its usage.
    pub usage: Option<u64>,
    /// Its highest usage.
    pub peak: Option<u64>,
    /// Guest RAM, when a QEMU was found.
    pub guest_ram: Option<GuestRam>,
    /// usage - resident guest RAM; absent while guest RAM is not found.
    pub overhead: Option<u64>,
    /// limit - guest RAM: what overhead may grow to. Negative when the limit cannot even hold guest RAM.
    pub budget: Option<i64>,
    /// limit - usage.
    pub headroom: Option<u64>,
    /// memory.stat of the limiting memcg by kind.
    pub stat: BTreeMap<&'static str, u64>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Process id of QEMU.
    pub qemu_pid: Option<u32>,
    /// What QEMU's command line says of the VM.
    pub shape: Option<VmShape>,
    /// Page cache that reclaim could take.
    pub reclaimable_file: Option<u64>,
    /// Processes.
    pub processes: Vec<Process>,
}

/// Guest RAM of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GuestRam {
    /// What the VM was given.
    pub size: u64,
    /// The part of it in huge pages that the memcg is not charged for.
    pub hugetlb: u64,
    /// The resident part of what is charged.
    pub resident: Option<u64>,
    /// How it was found.
    pub how: How,
}

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// What it is.
    pub name: String,
    /// Name of its main thread.
    pub comm: String,
    /// Its role.
    pub role: Role,
    /// Resident memory.
    pub rss: u64,
    /// The anonymous and shared part of it.
    pub rss_anon: u64,
    /// Its threads, the main one included.
    pub threads: Vec<Thread>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            pid: 0,
            name: String::new(),
            comm: String::new(),
            role: Role::Other(String::new()),
            rss: 0,
            rss_anon: 0,
            threads: Vec::new(),
        }
    }
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its role.
    pub role: Role,
}

/// Looks at a pod now. Reads QEMU's smaps once.
#[must_use]
pub fn of(node: &Node, pod: &VmPod) -> Overview {
    let sample = pod.limiting.sample();
    let usage = sample.as_ref().map(|sample| sample.usage);
    let guest_ram = pod.guest.as_ref().map(|guest| GuestRam {
        size: guest.size,
        hugetlb: guest.hugetlb,
        resident: pod
            .qemu
            .and_then(|pid| node.guest_resident(pid, guest))
            .map(|resident| resident.pages),
        how: guest.how,
    });
    let resident = guest_ram.as_ref().and_then(|guest| guest.resident);
    let charged = pod.guest.as_ref().map(super::GuestRam::charged_size);
    Overview {
        label: pod.label(),
        namespace: pod.namespace.clone(),
        vm: pod.vm.clone(),
        pod_uid: pod.pod_uid.clone(),
        cgroup: pod.limiting.path.clone(),
        cgroup_id: pod.limiting.id,
        limit: pod.limit,
        usage,
        peak: sample.as_ref().and_then(|sample| sample.peak),
        overhead: usage
            .zip(resident)
            .map(|(usage, resident)| usage.saturating_sub(resident)),
        budget: pod.limit.zip(charged).map(|(limit, charged)| {
            limit.saturating_sub(charged).cast_signed() - charged.saturating_sub(limit).cast_signed()
        }),
        shape: pod.shape(),
        reclaimable_file: sample.as_ref().map(|sample| sample.reclaimable_file),
        headroom: pod.limit.zip(usage).map(|(limit, usage)| limit.saturating_sub(usage)),
        stat: sample
            .into_iter()
            .flat_map(|sample| sample.stat)
            .map(|(kind, bytes)| (kind.as_str(), bytes))
            .collect(),
        guest_ram,
        containers: pod.containers.clone(),
        qemu_pid: pod.qemu,
        processes: pod
            .processes
            .iter()
            .map(|member| process_of(node, &member.process))
            .collect(),
    }
}

fn process_of(node: &Node, process: &process::Process) -> Process {
    Process {
        pid: process.pid,
        name: process.name.clone(),
        comm: process.comm.clone(),
        role: roles::process_role(process),
        rss: process.rss.total(),
        rss_anon: process.rss.anon.saturating_add(process.rss.shmem),
        threads: node
            .threads(process.pid)
            .into_iter()
            .map(|thread| Thread {
                tid: thread.tid,
                role: roles::thread_role(process, thread.tid, &thread.comm),
                comm: thread.comm,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::test_tree::Tree;

    #[test]
    fn overhead_is_what_is_not_guest_ram_and_the_budget_what_it_may_be() {
        let tree = Tree::v1();
        let qemu = "/usr/bin/qemu-system-x86_64";
        let object = "memory-backend-ram,id=pc.ram,size=64M";
        tree.process(
            11,
            b"qemu-system-x86",
            Some(qemu),
            &[qemu, "-name", "guest=a_b", "-object", object],
        );
        tree.thread(11, 12, b"CPU 0/KVM");
        let line = "7f0000000000-7f0004000000 rw-p 00000000 00:00 0 \n";
        tree.proc_file(11, "maps", line);
        tree.proc_file(11, "smaps", format!("{line}Rss: 1024 kB\nVmFlags: rd wr dc\n"));
        tree.group(
            "/kubepods/poda0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0",
            3 << 20,
            Some(60 << 20),
            &[11],
        );
        let node = Node::new(tree.root()).unwrap();
        let overview = of(&node, &node.pods()[0]);
        assert_eq!((overview.label.as_str(), overview.qemu_pid), ("a/b", Some(11)));
        assert_eq!((overview.overhead, overview.headroom), (Some(2 << 20), Some(57 << 20)));
        assert_eq!(overview.budget, Some(-(4 << 20)));
        let roles: Vec<String> = overview.processes[0]
            .threads
            .iter()
            .map(|thread| thread.role.to_string())
            .collect();
        assert_eq!(roles, ["main-loop", "vcpu 0"]);
        assert_eq!(serde_json::to_value(&overview).unwrap()["guest_ram"]["how"], "backends");
    }
}
