//! VM and VMI manifests, YAML or JSON, as KubeVirt and Harvester write them.

mod document;
mod vm;

use serde::Deserialize;

use super::Error;
use super::vm::Vm;
use document::{Document, Scalar};

/// The largest manifest that is read.
pub const MAX_BYTES: usize = 4 << 20;
/// How deep brackets may stand in each other. Manifests stay below 50; the parser's time grows with the square of it.
const MAX_DEPTH: usize = 1000;
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
    if depth(text) > MAX_DEPTH {
        return Err(Error::Rejected(
            "the manifest is not valid: it is nested too deeply".to_owned(),
        ));
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

/// At least as deep as lists and maps in brackets stand in each other: those in texts count as well.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        deepest = deepest.max(depth);
    }
    deepest
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
            .map(|text| vm::size(&text, RESERVED))
            .transpose()
            .map_err(at)?,
        hotplug: annotation(HOTPLUG).is_some_and(|text| text.eq_ignore_ascii_case("true")),
        vm: vm::vm(&spec).map_err(at)?,
        name,
    });
    Ok(())
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
