//! Pods, their processes and threads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::role::Role;

/// A VM pod (or libvirt machine) is watched, or something about it changed. The last one counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Number of the pod within the recording.
    pub pod: u32,
    /// Kubernetes namespace; empty for a libvirt machine or a bare cgroup.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Pod uid; empty where there is none.
    pub pod_uid: String,
    /// cgroup id of the memcg with the lowest limit on the path from QEMU's container to the root.
    pub memcg: u64,
    /// Its path below the memory controller's root.
    pub cgroup: String,
    /// Its limit; absent when there is none.
    pub limit: Option<u64>,
    /// Size of guest RAM that is charged to the pod; 0 while no QEMU was found.
    pub guest_ram: u64,
    /// Size of guest RAM in huge pages of hugetlbfs, which no memcg is charged for: not part of `guest_ram`.
    #[serde(default)]
    pub guest_hugetlb: u64,
    /// Process id of the QEMU; 0 while none was found.
    pub qemu_pid: u32,
    /// What QEMU's command line says of the VM; absent while no QEMU was found, and in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<VmShape>,
    /// Every memcg of the pod that is watched.
    pub memcgs: Vec<Memcg>,
    /// The pod's cgroup is gone.
    #[serde(default)]
    pub gone: bool,
}

impl Pod {
    /// Its name as people know it. Comes from the pod: escape it before it is printed.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.namespace.as_str(), self.vm.as_str()) {
            ("", "") => self.cgroup.clone(),
            ("", vm) => vm.to_owned(),
            (namespace, vm) => format!("{namespace}/{vm}"),
        }
    }
}

/// What of a VM KubeVirt's budget depends on, as far as QEMU's command line says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct VmShape {
    /// vCPUs at boot; 0 where it does not say.
    pub vcpus: u32,
    /// iothreads.
    pub iothreads: u32,
    /// Devices of the host that are passed through (VFIO).
    pub host_devices: u32,
    /// It has a graphics device.
    pub graphics: bool,
    /// It has a TPM.
    pub tpm: bool,
}

/// A watched memcg of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memcg {
    /// cgroup id.
    pub id: u64,
    /// Path below the memory controller's root.
    pub path: String,
    /// Lies at or below the pod's limiting memcg, so what is charged to it counts against that limit.
    pub counted: bool,
}

/// A process was seen, or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time, nanoseconds since boot (as exact as its source: /proc gives 10 ms steps).
    pub start_ns: u64,
    /// Number of its pod; absent for processes outside (kernel threads, others' workers).
    pub pod: Option<u32>,
    /// cgroup id of its memcg.
    pub memcg: u64,
    /// Name of its main thread.
    pub comm: String,
    /// What it is: a short name from its executable and command line (`qemu`, `virtqemud`, `kworker`).
    pub name: String,
    /// Role of the process as a whole: `helper NAME`, `main-loop` for QEMU, `kernel NAME`, `other NAME`.
    pub role: Role,
    /// Resident anonymous, file and shared memory when first seen, bytes.
    pub rss: u64,
    /// The anonymous and shared part of it: mapped files are mostly charged to others. Absent in older recordings.
    #[serde(default)]
    pub rss_anon: Option<u64>,
    /// It started before the tracer attached.
    pub before_attach: bool,
    /// It is gone.
    #[serde(default)]
    pub exited: bool,
}

/// A thread was seen, or changed its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// `start_boottime`, nanoseconds: with the thread id the identity of a thread.
    pub start_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Number of its pod; absent for threads outside.
    pub pod: Option<u32>,
    /// Its name.
    pub comm: String,
    /// Its role.
    pub role: Role,
    /// It is gone.
    #[serde(default)]
    pub exited: bool,
}
