//! A VM as flags.

use crate::sizing::Error;
use crate::sizing::quantity::Quantity;
use crate::sizing::vm::Vm;

/// The most vCPUs that KubeVirt's topology can say.
const MAX_VCPUS: u64 = u32::MAX as u64;

/// What a manifest tells, so that a flag beside it would be a contradiction.
pub(super) const TOLD_BY_A_MANIFEST: [&str; 21] = [
    "memory",
    "guest",
    "request",
    "limit",
    "cpus",
    "dedicated_cpu",
    "guaranteed",
    "no_graphics",
    "arm64",
    "host_devices",
    "sriov",
    "downward_metrics",
    "exec_probes",
    "tpm",
    "sev",
    "sev_snp",
    "passt",
    "added_overhead",
    "hugepages",
    "no_console_log",
    "container_disks",
];

/// The VM, where no manifest gives it.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, clap::Args)]
pub(super) struct VmFlags {
    /// The VM's memory: its limit, and where nothing else says so its request and guest memory
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    memory: Option<String>,
    /// domain.memory.guest
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    guest: Option<String>,
    /// domain.resources.requests.memory
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    request: Option<String>,
    /// domain.resources.limits.memory
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true, conflicts_with = "memory")]
    limit: Option<String>,
    /// vCPUs: sockets x cores x threads
    #[arg(long, value_name = "N", default_value = "1", value_parser = vcpus, allow_hyphen_values = true)]
    cpus: u64,
    /// dedicatedCpuPlacement
    #[arg(long)]
    dedicated_cpu: bool,
    /// CPU request equal to CPU limit: Guaranteed QoS, if memory's are equal too
    #[arg(long)]
    guaranteed: bool,
    /// autoattachGraphicsDevice: false
    #[arg(long)]
    no_graphics: bool,
    /// An arm64 guest
    #[arg(long)]
    arm64: bool,
    /// GPUs and host devices
    #[arg(long, value_name = "N", default_value_t = 0)]
    host_devices: u64,
    /// SR-IOV interfaces
    #[arg(long, value_name = "N", default_value_t = 0)]
    sriov: u64,
    /// A downward metrics volume
    #[arg(long)]
    downward_metrics: bool,
    /// Liveness and readiness probes that run a command
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=2))]
    exec_probes: u64,
    /// A TPM device
    #[arg(long)]
    tpm: bool,
    /// SEV or SEV-ES
    #[arg(long)]
    sev: bool,
    /// SEV-SNP
    #[arg(long)]
    sev_snp: bool,
    /// Passt interfaces
    #[arg(long, value_name = "N", default_value_t = 0)]
    passt: u64,
    /// What network binding plugins ask for
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    binding_memory: Option<String>,
    /// memory.reservedOverhead.addedOverhead
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    added_overhead: Option<String>,
    /// Guest RAM from hugepages
    #[arg(long)]
    hugepages: bool,
    /// KubeVirt sets the limit itself, in a namespace with a memory quota: this ratio of the pod's request, 2 unless
    /// the namespace's label alpha.kubevirt.io/auto-memory-limits-ratio says otherwise
    #[arg(long, value_name = "RATIO", num_args = 0..=1, default_missing_value = "2", value_parser = auto_limit, conflicts_with_all = ["memory", "limit"])]
    auto_limit: Option<u32>,
    /// Without the guest-console-log container
    #[arg(long)]
    no_console_log: bool,
    /// Container disk volumes
    #[arg(long, value_name = "N", default_value_t = 0)]
    container_disks: u64,
}

impl VmFlags {
    /// Adds to a manifest's VM what depends on the cluster rather than on the VM.
    pub(super) fn add_to(&self, vm: &mut Vm) -> Result<(), Error> {
        if let Some(text) = &self.binding_memory {
            vm.binding_memory = size("--binding-memory", text)?;
        }
        vm.auto_limit = self.auto_limit;
        Ok(())
    }

    /// The VM. Under Harvester `--memory` is the limit alone, from which Harvester makes the rest.
    pub(super) fn read(&self, harvester: bool) -> Result<Vm, Error> {
        let optional = |flag, text: &Option<String>| text.as_deref().map(|text| size(flag, text)).transpose();
        let memory = optional("--memory", &self.memory)?;
        let rest = memory.filter(|_| !harvester);
        Ok(Vm {
            guest: optional("--guest", &self.guest)?.or(rest),
            request: optional("--request", &self.request)?.or(rest),
            limit: optional("--limit", &self.limit)?.or(memory),
            vcpus: self.cpus,
            dedicated_cpu: self.dedicated_cpu,
            cpu_guaranteed: self.guaranteed,
            no_graphics: self.no_graphics,
            arm64: self.arm64,
            host_devices: self.host_devices,
            sriov: self.sriov,
            downward_metrics: self.downward_metrics,
            exec_probes: self.exec_probes,
            tpm: self.tpm,
            sev: self.sev,
            sev_snp: self.sev_snp,
            passt: self.passt,
            binding_memory: optional("--binding-memory", &self.binding_memory)?.unwrap_or(0),
            added_overhead: optional("--added-overhead", &self.added_overhead)?.unwrap_or(0),
            hugepages: self.hugepages,
            auto_limit: self.auto_limit,
            no_console_log: self.no_console_log,
            container_disks: self.container_disks,
        })
    }
}

/// A ratio in thousandths. kubevirt: pkg/virt-controller/services/renderresources.go getMemoryLimitsRatio (main)
fn auto_limit(text: &str) -> Result<u32, String> {
    let error = || "the ratio of an automatic limit is 1 to 1000, as in 2 or 1.25".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.len() > 3 || !(fraction.is_empty() || digits(fraction)) {
        return Err(error());
    }
    let thousandths = format!("{whole}{fraction:0<3}").parse().map_err(|_| error())?;
    (1000..=1_000_000)
        .contains(&thousandths)
        .then_some(thousandths)
        .ok_or_else(error)
}

fn vcpus(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|vcpus| (1..=MAX_VCPUS).contains(vcpus))
        .ok_or_else(|| format!("a VM has 1 to {MAX_VCPUS} vCPUs"))
}

/// A quantity that is a size.
pub(in crate::cli) fn size(flag: &str, text: &str) -> Result<u64, Error> {
    let reject = |error| Error::Rejected(format!("{flag}: {error}"));
    text.parse::<Quantity>().map_err(reject)?.size().map_err(reject)
}

/// A limit as people copy it: a quantity, or the kernel's kB, which are 1024 bytes.
pub(super) fn limit(text: &str) -> Result<u64, Error> {
    match text.strip_suffix("kB") {
        Some(number) => size("the limit", &format!("{}Ki", number.trim())),
        None => size("the limit", text),
    }
}
