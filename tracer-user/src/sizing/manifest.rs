//! VM and VMI manifests, YAML or JSON, as KubeVirt and Harvester write them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use super::quantity::Quantity;
use super::vm::Vm;

/// The largest manifest that is read.
pub const MAX_BYTES: usize = 4 << 20;
const RESERVED: &str = "harvesterhci.io/reservedMemory";
const HOTPLUG: &str = "harvesterhci.io/enableCPUAndMemoryHotplug";

/// A VM found in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `namespace/name`.
    pub name: String,
    /// Whether it is a VirtualMachine, which Harvester still changes, or an instance, which it has changed.
    pub is_instance: bool,
    /// What the arithmetic takes.
    pub vm: Vm,
    /// Harvester's Reserved Memory annotation.
    pub reserved: Option<u64>,
    /// Harvester's hotplug annotation.
    pub hotplug: bool,
}

#[derive(Deserialize)]
struct Document {
    kind: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    #[serde(default)]
    items: Vec<Document>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Scalar>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    template: Option<Box<Template>>,
    domain: Option<Domain>,
    architecture: Option<String>,
    liveness_probe: Option<Probe>,
    readiness_probe: Option<Probe>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
struct Template {
    spec: Spec,
}

#[derive(Deserialize)]
struct Probe {
    exec: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    container_disk: Option<IgnoredAny>,
    downward_metrics: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Domain {
    #[serde(default)]
    resources: Resources,
    memory: Option<Memory>,
    cpu: Option<Cpu>,
    #[serde(default)]
    devices: Devices,
    launch_security: Option<LaunchSecurity>,
}

#[derive(Default, Deserialize)]
struct Resources {
    #[serde(default)]
    requests: Amounts,
    #[serde(default)]
    limits: Amounts,
}

#[derive(Default, Deserialize)]
struct Amounts {
    memory: Option<Scalar>,
    cpu: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    guest: Option<Scalar>,
    hugepages: Option<IgnoredAny>,
    reserved_overhead: Option<ReservedOverhead>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReservedOverhead {
    added_overhead: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    #[serde(default)]
    sockets: u32,
    #[serde(default)]
    cores: u32,
    #[serde(default)]
    threads: u32,
    #[serde(default)]
    dedicated_cpu_placement: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Devices {
    autoattach_graphics_device: Option<bool>,
    autoattach_serial_console: Option<bool>,
    log_serial_console: Option<bool>,
    #[serde(rename = "gpus")]
    gpus: Option<Vec<IgnoredAny>>,
    host_devices: Option<Vec<IgnoredAny>>,
    interfaces: Option<Vec<Interface>>,
    tpm: Option<Tpm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Interface {
    sriov: Option<IgnoredAny>,
    passt: Option<IgnoredAny>,
    passt_binding: Option<IgnoredAny>,
    ports: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Tpm {
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct LaunchSecurity {
    sev: Option<IgnoredAny>,
    snp: Option<IgnoredAny>,
}

/// A quantity or annotation as YAML may give it: text or a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(i64),
    Real(f64),
    Switch(bool),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
        }
    }
}

/// The VMs and instances in a manifest of one or several documents.
///
/// # Errors
/// What is wrong with the text, in one line; also when it holds no VM.
pub fn read(text: &str) -> Result<Vec<Found>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Rejected(format!(
            "the manifest is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    let mut found = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let document = Option::<Document>::deserialize(document)
            .map_err(|error| Error::Rejected(format!("the manifest is not valid: {}", one_line(&error.to_string()))))?;
        if let Some(document) = document {
            collect(document, &mut found)?;
        }
    }
    if found.is_empty() {
        return Err(Error::Rejected(
            "the manifest holds no VirtualMachine and no VirtualMachineInstance".to_owned(),
        ));
    }
    Ok(found)
}

fn one_line(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

fn collect(document: Document, found: &mut Vec<Found>) -> Result<(), Error> {
    for item in document.items {
        collect(item, found)?;
    }
    let is_instance = match document.kind.as_deref() {
        Some("VirtualMachine") => false,
        Some("VirtualMachineInstance") => true,
        _ => return Ok(()),
    };
    let metadata = document.metadata;
    let name = if metadata.namespace.is_empty() {
        metadata.name
    } else {
        format!("{}/{}", metadata.namespace, metadata.name)
    };
    let spec = match document.spec {
        Some(spec) if is_instance => Some(spec),
        Some(spec) => spec.template.map(|template| template.spec),
        None => None,
    };
    let (Some(spec), name) = (spec, one_line(&name)) else {
        return Err(Error::Rejected("a VM in the manifest has no spec".to_owned()));
    };
    let annotations = metadata.annotations.unwrap_or_default();
    let annotation = |key| {
        annotations
            .get(key)
            .map(Scalar::text)
            .filter(|text: &String| !text.is_empty())
    };
    let at = |error: Error| Error::Rejected(format!("{name}: {error}"));
    found.push(Found {
        is_instance,
        reserved: annotation(RESERVED)
            .map(|text| size(&text, RESERVED))
            .transpose()
            .map_err(at)?,
        hotplug: annotation(HOTPLUG).is_some_and(|text| text.eq_ignore_ascii_case("true")),
        vm: vm(&spec).map_err(at)?,
        name,
    });
    Ok(())
}

fn parse(text: &str, field: &str) -> Result<Quantity, Error> {
    text.parse()
        .map_err(|error| Error::Rejected(format!("{field}: {error}")))
}

fn size(text: &str, field: &str) -> Result<u64, Error> {
    parse(text, field)?
        .size()
        .map_err(|error| Error::Rejected(format!("{field}: {error}")))
}

fn optional(scalar: Option<&Scalar>, field: &str) -> Result<Option<u64>, Error> {
    scalar.map(|scalar| size(&scalar.text(), field)).transpose()
}

fn vm(spec: &Spec) -> Result<Vm, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::{GIB, MIB};

    const VM: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: web
  namespace: shop
  annotations: {harvesterhci.io/reservedMemory: 256Mi}
spec:
  template:
    spec:
      domain:
        cpu: {cores: 2, sockets: 2, threads: 1, maxSockets: 8}
        devices:
          tpm: {}
          hostDevices: [{name: a, deviceName: b}]
          interfaces: [{name: default, masquerade: {}}]
        resources: {limits: {cpu: '4', memory: 2Gi}, requests: {cpu: 250m}}
      livenessProbe: {exec: {command: [true]}}
      volumes: [{name: d, containerDisk: {image: x}}]
";

    #[test]
    fn reads_a_harvester_vm_and_skips_other_documents() {
        let text = format!("---\nkind: ConfigMap\n---\n{VM}---\n");
        let found = read(&text).unwrap();
        assert_eq!(found.len(), 1);
        let vm = &found[0].vm;
        assert_eq!(
            (found[0].name.as_str(), found[0].reserved),
            ("shop/web", Some(256 * MIB))
        );
        assert_eq!((vm.vcpus, vm.limit, vm.request), (4, Some(2 * GIB), None));
        assert!(vm.tpm && !vm.cpu_guaranteed && !found[0].is_instance);
        assert_eq!((vm.host_devices, vm.exec_probes, vm.container_disks), (1, 1, 1));
    }

    #[test]
    fn reads_an_instance_in_json() {
        let text = r#"{"kind":"VirtualMachineInstance","metadata":{"name":"a"},"spec":{"domain":
            {"devices":{},"memory":{"guest":"1Gi","hugepages":{"pageSize":"2Mi"}},"resources":{}}}}"#;
        let found = read(text).unwrap();
        assert!(found[0].is_instance && found[0].vm.hugepages);
        assert_eq!((found[0].vm.guest, found[0].vm.vcpus), (Some(GIB), 1));
    }

    #[test]
    fn hostile_manifests_get_one_line() {
        let bomb = (1..12).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            format!(
                "{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n",
                n - 1
            )
        });
        let cases = [
            "[".repeat(100_000),
            format!("kind: VirtualMachine\nspec: {}", "{template: ".repeat(5000)),
            VM.replace("cores: 2", "cores: 1000000000000000000000000000000"),
            VM.replace("cores: 2", "cores: -2"),
            VM.replace("cores: 2", "cores: 4000000000"),
            VM.replace("memory: 2Gi", "memory: -2Gi"),
            VM.replace("memory: 2Gi", "memory: 1e40"),
            format!("{bomb}{}", VM.replace("apiVersion: kubevirt.io/v1", "apiVersion: *a11")),
            "x".repeat(MAX_BYTES + 1),
            "kind: Pod".to_owned(),
            String::new(),
        ];
        for case in cases {
            match read(&case) {
                Err(error) => assert!(!error.to_string().contains('\n')),
                // The bomb is in fields that no VM has: it is read over.
                Ok(found) => assert_eq!(found.len(), 1, "{}", &case[..40]),
            }
        }
    }
}
