//! The VM pods (and libvirt machines) of this node.

use super::Node;
use super::cgroup::{self, Memcg};
use super::guest_ram::GuestRam;
use super::identity;
use super::pod_path::{self, Top};
use super::process::Process;
use super::qemu_args::QemuArgs;
use crate::recording::event;

/// How deep the search for pods goes below the memory controller's root.
const MAX_DEPTH: usize = 24;
/// Most cgroups that a search visits.
const MAX_CGROUPS: usize = 50_000;

/// What manages a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A virt-launcher pod of KubeVirt.
    Pod,
    /// A libvirt machine of the node itself.
    Machine,
    /// A cgroup that was asked for by its path.
    Cgroup,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Path of its memcg.
    pub cgroup: String,
    /// QEMU (or, before that starts, the launcher) runs in it: KubeVirt's `compute`.
    pub compute: bool,
}

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub process: Process,
    /// cgroup id of its memcg.
    pub memcg: u64,
}

/// A VM pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPod {
    /// What manages it.
    pub kind: Kind,
    /// Kubernetes namespace; empty for a machine or a cgroup.
    pub namespace: String,
    /// VM name; empty when nothing tells it.
    pub vm: String,
    /// Pod uid; empty where there is none.
    pub pod_uid: String,
    /// Its topmost memcg: the pod's, the machine's.
    pub top: Memcg,
    /// The memcg whose limit kills: see [`Memcg::limiting`]. Without a limit, [`VmPod::top`].
    pub limiting: Memcg,
    /// That limit, bytes.
    pub limit: Option<u64>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Every memcg from the top down.
    pub memcgs: Vec<Memcg>,
    /// Every process.
    pub processes: Vec<Member>,
    /// Process id of the QEMU that runs the VM.
    pub qemu: Option<u32>,
    /// Its guest RAM.
    pub guest: Option<GuestRam>,
}

impl VmPod {
    /// What QEMU's command line says of the VM.
    #[must_use]
    pub fn shape(&self) -> Option<event::VmShape> {
        self.qemu_process().map(|qemu| QemuArgs::parse(&qemu.args).shape)
    }

    /// As a recording has it, with this number.
    #[must_use]
    pub fn to_event(&self, number: u32) -> event::Pod {
        event::Pod {
            pod: number,
            namespace: self.namespace.clone(),
            vm: self.vm.clone(),
            pod_uid: self.pod_uid.clone(),
            memcg: self.limiting.id,
            cgroup: self.limiting.path.clone(),
            limit: self.limit,
            guest_ram: self.guest.as_ref().map_or(0, GuestRam::charged_size),
            guest_hugetlb: self.guest.as_ref().map_or(0, |guest| guest.hugetlb),
            qemu_pid: self.qemu.unwrap_or(0),
            shape: self.shape(),
            memcgs: self
                .memcgs
                .iter()
                .map(|memcg| event::Memcg {
                    id: memcg.id,
                    path: memcg.path.clone(),
                    counted: self.limiting.contains(&memcg.path),
                })
                .collect(),
            gone: false,
        }
    }

    /// `namespace/vm`, or the most telling of what there is. Comes from the pod: escape it before it is printed.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.namespace.as_str(), self.vm.as_str(), self.pod_uid.as_str()) {
            ("", "", "") => self.top.path.clone(),
            ("", "", uid) => uid.to_owned(),
            ("", vm, _) => vm.to_owned(),
            (namespace, vm, _) => format!("{namespace}/{vm}"),
        }
    }

    /// The QEMU that runs the VM.
    #[must_use]
    pub fn qemu_process(&self) -> Option<&Process> {
        let qemu = self.qemu?;
        self.processes
            .iter()
            .map(|member| &member.process)
            .find(|process| process.pid == qemu)
    }
}

/// A cgroup that might be the top of a VM pod, with all cgroups below.
struct Found {
    top: Top,
    groups: Vec<Memcg>,
}

impl Node {
    /// All VM pods and libvirt machines, in the order of their cgroup paths. Pods without a VM are left out: a pod
    /// counts when a QEMU or KubeVirt's launcher runs in it.
    #[must_use]
    pub fn pods(&self) -> Vec<VmPod> {
        let mut pods: Vec<VmPod> = self
            .find_tops()
            .into_iter()
            .filter_map(|found| self.vm_pod(found))
            .collect();
        pods.sort_by(|a, b| a.top.path.cmp(&b.top.path));
        pods
    }

    /// The pod as it is now; `None` when its cgroup is gone.
    #[must_use]
    pub fn refresh(&self, pod: &VmPod) -> Option<VmPod> {
        if !pod.top.exists() {
            return None;
        }
        if pod.kind == Kind::Cgroup {
            return self.bare_cgroup(&pod.top);
        }
        let found = Found {
            top: pod_path::top_of(&pod.top.path)?,
            groups: subtree(&pod.top),
        };
        // A pod whose VM has ended is still that pod, until its cgroup goes.
        Some(self.describe(found, pod.kind, &pod.top.path, Some(pod)))
    }

    /// Any memcg as if it were a pod, whether or not a QEMU runs in it. Its limiting memcg may lie above it.
    #[must_use]
    pub fn bare_cgroup(&self, memcg: &Memcg) -> Option<VmPod> {
        if !memcg.exists() {
            return None;
        }
        let found = Found {
            top: pod_path::top_of(&memcg.path).unwrap_or_else(|| Top::Machine(last_component(&memcg.path).to_owned())),
            groups: subtree(memcg),
        };
        Some(self.describe(found, Kind::Cgroup, "/", None))
    }

    /// Every cgroup belongs to the innermost top above it: a node that is itself a pod of another one keeps its
    /// pods apart.
    fn find_tops(&self) -> Vec<Found> {
        let Some(root) = self.memcg("/") else {
            return Vec::new();
        };
        let mut tops: Vec<Found> = Vec::new();
        let mut pending: Vec<(Memcg, usize, Option<usize>)> = vec![(root, 0, None)];
        let mut visited = 0;
        while let Some((memcg, depth, owner)) = pending.pop() {
            visited += 1;
            if visited > MAX_CGROUPS {
                log::warn!("more than {MAX_CGROUPS} cgroups: VM pods beyond them are not seen");
                break;
            }
            let owner = match pod_path::top_of(&memcg.path) {
                Some(top) => {
                    tops.push(Found {
                        top,
                        groups: Vec::new(),
                    });
                    Some(tops.len() - 1)
                }
                None => owner,
            };
            if depth < MAX_DEPTH {
                let children = memcg.children(MAX_CGROUPS);
                pending.extend(children.into_iter().rev().map(|child| (child, depth + 1, owner)));
            }
            if let Some(found) = owner.and_then(|owner| tops.get_mut(owner)) {
                found.groups.push(memcg);
            }
        }
        tops
    }

    fn vm_pod(&self, found: Found) -> Option<VmPod> {
        let (kind, path) = match (&found.top, found.groups.first()?) {
            (Top::Pod(_), top) => (Kind::Pod, top.path.clone()),
            (Top::Machine(_), top) => (Kind::Machine, top.path.clone()),
        };
        let pod = self.describe(found, kind, &path, None);
        let launcher = || pod.processes.iter().any(|member| member.process.is_virt_launcher());
        (pod.qemu.is_some() || launcher()).then_some(pod)
    }

    /// `limits_from`: the outermost memcg whose limit is looked at. For a pod that is its own: the limit of all pods
    /// of a node together says nothing about one VM's budget.
    fn describe(&self, found: Found, kind: Kind, limits_from: &str, before: Option<&VmPod>) -> VmPod {
        let Found { top, groups } = found;
        let processes = self.members(&groups);
        let qemu = identity::main_qemu(processes.iter().map(|member| &member.process));
        let who = identity::identify(kind, &top, processes.iter().map(|member| &member.process), qemu, before);
        let home = qemu
            .map(|process| process.pid)
            .or_else(|| launcher_pid(&processes))
            .and_then(|pid| self.memcg_of_member(pid, &groups, &processes));
        let start = home.unwrap_or(&groups[0]);
        let (limiting, limit) = match start.limiting(limits_from) {
            Some((memcg, limit)) => (memcg, Some(limit)),
            None => (groups[0].clone(), None),
        };
        VmPod {
            kind,
            namespace: who.namespace,
            vm: who.vm,
            pod_uid: who.pod_uid,
            containers: containers(&groups, home),
            guest: qemu.and_then(|process| self.guest_ram(process)),
            qemu: qemu.map(|process| process.pid),
            top: groups[0].clone(),
            limiting,
            limit,
            memcgs: groups.iter().filter(|memcg| memcg.usage().is_some()).cloned().collect(),
            processes,
        }
    }

    fn members(&self, groups: &[Memcg]) -> Vec<Member> {
        let mut members: Vec<Member> = groups
            .iter()
            .flat_map(|memcg| memcg.processes().into_iter().map(|pid| (pid, memcg.id)))
            .filter_map(|(pid, memcg)| {
                let process = self.process(pid)?;
                Some(Member { process, memcg })
            })
            .collect();
        members.sort_by_key(|member| member.process.pid);
        members.dedup_by_key(|member| member.process.pid);
        members
    }

    fn memcg_of_member<'a>(&self, pid: u32, groups: &'a [Memcg], members: &[Member]) -> Option<&'a Memcg> {
        let member = members.iter().find(|member| member.process.pid == pid)?;
        groups.iter().find(|memcg| memcg.id == member.memcg)
    }
}

/// A memcg and all below it, the memcg first.
fn subtree(top: &Memcg) -> Vec<Memcg> {
    let mut groups = Vec::new();
    let mut pending = vec![(top.clone(), 0)];
    while let Some((memcg, depth)) = pending.pop() {
        if depth < MAX_DEPTH && groups.len() < MAX_CGROUPS {
            let children = memcg.children(MAX_CGROUPS);
            pending.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
        }
        groups.push(memcg);
    }
    groups
}

fn launcher_pid(members: &[Member]) -> Option<u32> {
    members
        .iter()
        .map(|member| &member.process)
        .find(|process| process.is_virt_launcher())
        .map(|process| process.pid)
}

fn containers(groups: &[Memcg], home: Option<&Memcg>) -> Vec<Container> {
    groups
        .iter()
        .filter_map(|memcg| {
            Some(Container {
                id: pod_path::container_id(&memcg.path)?.to_owned(),
                cgroup: memcg.path.clone(),
                compute: home.is_some_and(|home| cgroup::contains(&memcg.path, &home.path)),
            })
        })
        .collect()
}

fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
