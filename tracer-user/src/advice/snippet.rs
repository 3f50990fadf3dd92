//! Commands that apply advice, ready to be pasted.

use serde::Serialize;

use super::reserve::Holding;
use crate::sizing::spec::Basis;

/// A change, as a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// What it changes.
    pub changes: &'static str,
    /// The command.
    pub command: String,
    /// What it stands for, where a name could not be put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

impl Snippet {
    /// The same, marked where it is computed for a VM that is only assumed.
    pub(super) fn of(mut self, basis: Basis) -> Self {
        if basis == Basis::Assumed {
            self.note = self.note.or(Some("computed for a VM that is assumed: see the notes"));
        }
        self
    }
}

/// Longest name of a Kubernetes object.
const MAX_NAME: usize = 253;
/// Longest label, which a namespace is.
const MAX_LABEL: usize = 63;

/// Whether a shell may see it: a DNS-1123 label (RFC 1123 section 2.1), as a namespace is.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(inner);
    text.len() <= MAX_LABEL
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
}

/// Labels with dots between, as a VM's name is.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

/// Who a command is about.
struct Target<'a> {
    namespace: &'a str,
    vm: &'a str,
    note: Option<&'static str>,
}

fn target<'a>(namespace: &'a str, vm: &'a str) -> Target<'a> {
    if is_label(namespace) && is_subdomain(vm) {
        return Target {
            namespace,
            vm,
            note: None,
        };
    }
    Target {
        namespace: "NAMESPACE",
        vm: "VM",
        note: Some("the recording holds no Kubernetes name: put in the VM's own"),
    }
}

/// Harvester's ratio, for every VM of the cluster.
pub(super) fn harvester_ratio(ratio: &Holding) -> Snippet {
    Snippet {
        changes: "Harvester's ratio, for every VM of the cluster",
        command: format!(
            "kubectl patch settings.harvesterhci.io additional-guest-memory-overhead-ratio --type merge -p \
             '{{\"value\":\"{}\"}}'",
            ratio.value
        ),
        note: None,
    }
}

/// KubeVirt's ratio, for every VM of the cluster.
pub(super) fn kubevirt_ratio(ratio: &Holding) -> Snippet {
    Snippet {
        changes: "KubeVirt's ratio, for every VM of the cluster (without Harvester)",
        command: format!(
            "kubectl patch kubevirt kubevirt -n kubevirt --type merge -p \
             '{{\"spec\":{{\"configuration\":{{\"additionalGuestMemoryOverheadRatio\":\"{}\"}}}}}}'",
            ratio.value
        ),
        note: None,
    }
}

/// Harvester's Reserved Memory.
pub(super) fn reserved(namespace: &str, vm: &str, reserved: &Holding) -> Snippet {
    let target = target(namespace, vm);
    Snippet {
        changes: "Harvester's Reserved Memory of this VM, from its next start",
        command: format!(
            "kubectl annotate vm {} -n {} --overwrite harvesterhci.io/reservedMemory={}",
            target.vm, target.namespace, reserved.value
        ),
        note: target.note,
    }
}

/// KubeVirt's reserved overhead.
pub(super) fn added(namespace: &str, vm: &str, added: &Holding) -> Snippet {
    let target = target(namespace, vm);
    Snippet {
        changes: "KubeVirt's reservedOverhead of this VM (1.8 and later), from its next start",
        command: format!(
            "kubectl patch vm {} -n {} --type merge -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"domain\":{{\
             \"memory\":{{\"reservedOverhead\":{{\"addedOverhead\":\"{}\"}}}}}}}}}}}}}}'",
            target.vm, target.namespace, added.value
        ),
        note: target.note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(value: &str) -> Holding {
        Holding {
            value: value.to_owned(),
            guest: 0,
            limit: 0,
            costs_node: 0,
            costs_guest: 0,
        }
    }

    #[test]
    fn names_that_are_none_never_reach_a_shell() {
        for (namespace, vm) in [
            ("default", "a; rm -rf /"),
            ("$(id)", "vm1"),
            ("", "vm1"),
            ("default", "-n"),
            ("default", "Vm1"),
            ("default", "vm1\n"),
            ("default", "a..b"),
            ("a.b", "vm1"),
        ] {
            let snippet = reserved(namespace, vm, &holding("256Mi"));
            assert!(
                snippet.note.is_some() && snippet.command.contains("vm VM -n NAMESPACE "),
                "{snippet:?}"
            );
        }
        let snippet = reserved("shop", "web.1", &holding("256Mi"));
        assert_eq!(
            snippet.command,
            "kubectl annotate vm web.1 -n shop --overwrite harvesterhci.io/reservedMemory=256Mi"
        );
        assert_eq!(snippet.note, None);
        let long = "a".repeat(64);
        assert!(!is_label(&long) && is_label(&long[1..]) && !is_subdomain(&"a.".repeat(127)));
    }

    #[test]
    fn patches_are_json() {
        let commands = [
            harvester_ratio(&holding("1.75")),
            kubevirt_ratio(&holding("1.75")),
            added("shop", "web", &holding("300Mi")),
        ];
        let values: Vec<serde_json::Value> = commands
            .iter()
            .map(|snippet| serde_json::from_str(snippet.command.split('\'').nth(1).unwrap()).unwrap())
            .collect();
        assert_eq!(values[0]["value"], "1.75");
        assert_eq!(
            values[1]["spec"]["configuration"]["additionalGuestMemoryOverheadRatio"],
            "1.75"
        );
        let memory = &values[2]["spec"]["template"]["spec"]["domain"]["memory"];
        assert_eq!(memory["reservedOverhead"]["addedOverhead"], "300Mi");
    }
}
