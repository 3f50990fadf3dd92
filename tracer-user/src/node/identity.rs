//! Which VM a pod runs.

use super::pod_path::Top;
use super::pods::{Kind, VmPod};
use super::process::Process;
use super::qemu_args::QemuArgs;

/// What a pod is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Pod uid.
    pub pod_uid: String,
}

/// The QEMU that runs the VM: of several the oldest, and none that libvirt only asks what it can do.
pub fn main_qemu<'a>(processes: impl Iterator<Item = &'a Process>) -> Option<&'a Process> {
    processes
        .filter(|process| process.is_qemu() && !QemuArgs::parse(&process.args).no_machine)
        .min_by_key(|process| (process.start_ns, process.pid))
}

/// Puts together what the cgroup's name, the launcher's command line and QEMU's say. What was known `before` fills
/// what is no longer told.
pub fn identify<'a>(
    kind: Kind,
    top: &Top,
    mut processes: impl Iterator<Item = &'a Process>,
    qemu: Option<&Process>,
    before: Option<&VmPod>,
) -> Identity {
    let mut who = Identity::default();
    let mut fallback = String::new();
    match top {
        Top::Pod(uid) => who.pod_uid.clone_from(uid),
        Top::Machine(name) => fallback.clone_from(name),
    }
    let guest = qemu
        .and_then(|process| QemuArgs::parse(&process.args).name)
        .unwrap_or_default();
    let launcher = processes.find_map(launcher_identity);
    if let Some((namespace, vm)) = launcher {
        (who.namespace, who.vm) = (namespace, vm);
    } else if kind == Kind::Machine {
        who.vm = guest;
    } else if let Some((namespace, vm)) = guest
        .split_once('_')
        .filter(|(namespace, _)| is_kubernetes_name(namespace))
    {
        // kubevirt: pkg/virt-launcher/virtwrap/api/schema.go VMINamespaceKeyFunc joins with '_', which no Kubernetes
        // name contains.
        (who.namespace, who.vm) = (namespace.to_owned(), vm.to_owned());
    } else {
        who.vm = guest;
    }
    if who.vm.is_empty() {
        match before {
            Some(before) => (who.namespace, who.vm) = (before.namespace.clone(), before.vm.clone()),
            None => who.vm = fallback,
        }
    }
    who
}

/// `--name VM --namespace NAMESPACE` of KubeVirt's launcher or its monitor (kubevirt:
/// pkg/virt-controller/services/template.go). Their `--uid` is that of the VMI, not of the pod.
fn launcher_identity(process: &Process) -> Option<(String, String)> {
    if !process.is_virt_launcher() {
        return None;
    }
    let flag = |name: &str| {
        let mut args = process.args.iter();
        while let Some(arg) = args.next() {
            let arg = arg.trim_start_matches('-');
            if arg == name {
                return args.next().cloned();
            }
            if let Some(value) = arg.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value.to_owned());
            }
        }
        None
    };
    Some((flag("namespace")?, flag("name")?))
}

fn is_kubernetes_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
