//! From a specification to what the arithmetic takes.

use super::document::{Cpu, Interface, Scalar, Spec};
use crate::sizing::Error;
use crate::sizing::quantity::Quantity;
use crate::sizing::vm::Vm;

fn parse(text: &str, field: &str) -> Result<Quantity, Error> {
    text.parse()
        .map_err(|error| Error::Rejected(format!("{field}: {error}")))
}

pub(super) fn size(text: &str, field: &str) -> Result<u64, Error> {
    parse(text, field)?
        .size()
        .map_err(|error| Error::Rejected(format!("{field}: {error}")))
}

fn optional(scalar: Option<&Scalar>, field: &str) -> Result<Option<u64>, Error> {
    scalar.map(|scalar| size(&scalar.text(), field)).transpose()
}

/// What the arithmetic takes of a specification.
pub(super) fn vm(spec: &Spec) -> Result<Vm, Error> {
    let domain = spec
        .domain
        .as_ref()
        .ok_or_else(|| Error::Rejected("the spec has no domain".to_owned()))?;
    let devices = &domain.devices;
    let memory = domain.memory.as_ref();
    let cpu_request = cpu(domain.resources.requests.cpu.as_ref())?;
    let cpu_limit = cpu(domain.resources.limits.cpu.as_ref())?;
    let interfaces = devices.interfaces.as_deref().unwrap_or(&[]);
    let probes = [&spec.liveness_probe, &spec.readiness_probe];
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok(Vm {
        guest: optional(memory.and_then(|memory| memory.guest.as_ref()), "memory.guest")?,
        request: optional(domain.resources.requests.memory.as_ref(), "requests.memory")?.filter(|bytes| *bytes > 0),
        limit: optional(domain.resources.limits.memory.as_ref(), "limits.memory")?.filter(|bytes| *bytes > 0),
        vcpus: vcpus(domain.cpu.as_ref(), cpu_limit.or(cpu_request))?,
        dedicated_cpu: domain.cpu.as_ref().is_some_and(|cpu| cpu.dedicated_cpu_placement),
        // KubeVirt fills a missing CPU request in from the limit.
        cpu_guaranteed: cpu_limit.is_some_and(|limit| limit > 0 && cpu_request.is_none_or(|request| request == limit)),
        no_graphics: devices.autoattach_graphics_device == Some(false),
        arm64: spec.architecture.as_deref() == Some("arm64"),
        host_devices: count(devices.gpus.as_ref().map_or(0, Vec::len))
            .saturating_add(count(devices.host_devices.as_ref().map_or(0, Vec::len))),
        sriov: count(interfaces.iter().filter(|interface| interface.sriov.is_some()).count()),
        downward_metrics: spec.volumes.iter().any(|volume| volume.downward_metrics.is_some()),
        exec_probes: count(
            probes
                .iter()
                .filter(|probe| probe.as_ref().is_some_and(|probe| probe.exec.is_some()))
                .count(),
        ),
        tpm: devices.tpm.as_ref().is_some_and(|tpm| tpm.enabled != Some(false)),
        sev: domain
            .launch_security
            .as_ref()
            .is_some_and(|security| security.sev.is_some()),
        sev_snp: domain
            .launch_security
            .as_ref()
            .is_some_and(|security| security.snp.is_some()),
        passt: count(interfaces.iter().filter(|interface| uses_passt(interface)).count()),
        binding_memory: 0,
        added_overhead: optional(
            memory.and_then(|memory| memory.reserved_overhead.as_ref()?.added_overhead.as_ref()),
            "memory.reservedOverhead.addedOverhead",
        )?
        .unwrap_or(0),
        hugepages: memory.is_some_and(|memory| memory.hugepages.is_some()),
        auto_limit: None,
        no_console_log: devices.autoattach_serial_console == Some(false) || devices.log_serial_console == Some(false),
        container_disks: count(
            spec.volumes
                .iter()
                .filter(|volume| volume.container_disk.is_some())
                .count(),
        ),
    })
}

fn uses_passt(interface: &Interface) -> bool {
    let old = interface.passt.is_some() && interface.ports.as_ref().is_none_or(Vec::is_empty);
    old || interface.passt_binding.is_some()
}

fn cpu(scalar: Option<&Scalar>) -> Result<Option<u128>, Error> {
    let Some(scalar) = scalar else { return Ok(None) };
    parse(&scalar.text(), "resources cpu")?
        .milli()
        .map(Some)
        .map_err(|error| Error::Rejected(format!("resources cpu: {error}")))
}

/// kubevirt: pkg/util/hardware/hw_utils.go GetNumberOfVCPUs; without a topology, the CPU limit or request.
fn vcpus(topology: Option<&Cpu>, resources: Option<u128>) -> Result<u64, Error> {
    let given = topology.map_or([0; 3], |cpu| [cpu.sockets, cpu.cores, cpu.threads]);
    if given == [0; 3] {
        let whole = resources.unwrap_or(0).div_ceil(1000);
        return u64::try_from(whole)
            .map(|vcpus| vcpus.max(1))
            .map_err(|_| Error::Overflow("the number of vCPUs"));
    }
    given
        .iter()
        .try_fold(1_u32, |product, count| product.checked_mul((*count).max(1)))
        .map(u64::from)
        .ok_or(Error::Overflow("sockets x cores x threads"))
}
