//! A VM, as far as its memory overhead depends on it.

use serde::Serialize;

use super::Error;

/// What the arithmetic takes. Memory is in bytes.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the VM's specification"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// `domain.memory.guest`.
    pub guest: Option<u64>,
    /// `domain.resources.requests.memory`.
    pub request: Option<u64>,
    /// `domain.resources.limits.memory`.
    pub limit: Option<u64>,
    /// sockets x cores x threads.
    pub vcpus: u64,
    /// `dedicatedCpuPlacement`.
    pub dedicated_cpu: bool,
    /// Whether the CPU request equals the CPU limit, which with equal memory asks for Guaranteed QoS.
    pub cpu_guaranteed: bool,
    /// `autoattachGraphicsDevice: false`.
    pub no_graphics: bool,
    /// An arm64 guest.
    pub arm64: bool,
    /// GPUs and host devices.
    pub host_devices: u64,
    /// SR-IOV interfaces.
    pub sriov: u64,
    /// A downward metrics volume.
    pub downward_metrics: bool,
    /// Liveness and readiness probes that run a command, at most 2.
    pub exec_probes: u64,
    /// A TPM device.
    pub tpm: bool,
    /// SEV or SEV-ES.
    pub sev: bool,
    /// SEV-SNP.
    pub sev_snp: bool,
    /// Passt interfaces: the old binding without ports, or the core binding since 1.8.
    pub passt: u64,
    /// The memory that network binding plugins ask for.
    pub binding_memory: u64,
    /// `memory.reservedOverhead.addedOverhead`.
    pub added_overhead: u64,
    /// Guest RAM from hugepages.
    pub hugepages: bool,
    /// KubeVirt sets the limit itself, as it does in a namespace with a memory quota (feature gate
    /// AutoResourceLimitsGate): this ratio of the pod's request, in thousandths. Not with a limit or dedicated CPUs.
    pub auto_limit: Option<u32>,
    /// Without the guest-console-log container.
    pub no_console_log: bool,
    /// Volumes that are container disks.
    pub container_disks: u64,
}

impl Vm {
    /// Whether KubeVirt gives it the Guaranteed QoS class. kubevirt: staging/src/kubevirt.io/api/core/v1/types.go
    /// WantsToHaveQOSGuaranteed
    #[must_use]
    pub fn wants_guaranteed(&self) -> bool {
        let (request, limit) = (self.request.unwrap_or(0), self.limit.unwrap_or(0));
        self.cpu_guaranteed && limit != 0 && (request == 0 || request == limit)
    }

    /// Its guest memory: as given, else its request, else its limit. kubevirt: pkg/defaults/defaults.go setGuestMemory
    ///
    /// # Errors
    /// [`Error::Rejected`] when it has none of them.
    pub fn guest_memory(&self) -> Result<u64, Error> {
        [self.guest, self.request, self.limit]
            .into_iter()
            .flatten()
            .find(|bytes| *bytes > 0)
            .ok_or_else(|| Error::Rejected("the VM has no memory: give its guest memory, request or limit".to_owned()))
    }
}
