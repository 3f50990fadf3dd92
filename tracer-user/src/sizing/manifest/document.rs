//! The parts of a manifest that the overhead depends on, as KubeVirt's API spells them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    #[serde(default)]
    pub(super) items: Vec<Document>,
}

#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, Scalar>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) template: Option<Box<Template>>,
    pub(super) domain: Option<Domain>,
    pub(super) architecture: Option<String>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
}

#[derive(Deserialize)]
pub(super) struct Template {
    pub(super) spec: Spec,
}

#[derive(Deserialize)]
pub(super) struct Probe {
    pub(super) exec: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) container_disk: Option<IgnoredAny>,
    pub(super) downward_metrics: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Domain {
    #[serde(default)]
    pub(super) resources: Resources,
    pub(super) memory: Option<Memory>,
    pub(super) cpu: Option<Cpu>,
    #[serde(default)]
    pub(super) devices: Devices,
    pub(super) launch_security: Option<LaunchSecurity>,
}

#[derive(Default, Deserialize)]
pub(super) struct Resources {
    #[serde(default)]
    pub(super) requests: Amounts,
    #[serde(default)]
    pub(super) limits: Amounts,
}

#[derive(Default, Deserialize)]
pub(super) struct Amounts {
    pub(super) memory: Option<Scalar>,
    pub(super) cpu: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) guest: Option<Scalar>,
    pub(super) hugepages: Option<IgnoredAny>,
    pub(super) reserved_overhead: Option<ReservedOverhead>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservedOverhead {
    pub(super) added_overhead: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cpu {
    #[serde(default)]
    pub(super) sockets: u32,
    #[serde(default)]
    pub(super) cores: u32,
    #[serde(default)]
    pub(super) threads: u32,
    #[serde(default)]
    pub(super) dedicated_cpu_placement: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Devices {
    pub(super) autoattach_graphics_device: Option<bool>,
    pub(super) autoattach_serial_console: Option<bool>,
    pub(super) log_serial_console: Option<bool>,
    #[serde(rename = "gpus")]
    pub(super) gpus: Option<Vec<IgnoredAny>>,
    pub(super) host_devices: Option<Vec<IgnoredAny>>,
    pub(super) interfaces: Option<Vec<Interface>>,
    pub(super) tpm: Option<Tpm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Interface {
    pub(super) sriov: Option<IgnoredAny>,
    pub(super) passt: Option<IgnoredAny>,
    pub(super) passt_binding: Option<IgnoredAny>,
    pub(super) ports: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
pub(super) struct Tpm {
    pub(super) enabled: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct LaunchSecurity {
    pub(super) sev: Option<IgnoredAny>,
    pub(super) snp: Option<IgnoredAny>,
}

/// A quantity or annotation as YAML may give it: text or a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Whole(i64),
    Real(f64),
    Switch(bool),
}

impl Scalar {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
        }
    }
}
