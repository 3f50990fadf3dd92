//! Roles by name alone: a log gives no executable, no command line and, for the invoker, no process.

use crate::role::Role;

/// Role of a process of the task table, and of the main thread of one.
#[must_use]
pub fn of_process(comm: &str) -> Role {
    if is_qemu(comm) {
        return Role::MainLoop;
    }
    match comm {
        "virt-launcher-m" | "virt-launcher-monitor" => Role::Helper("virt-launcher-monitor".into()),
        "virt-launcher" | "virtqemud" | "libvirtd" | "virtlogd" | "virt-tail" | "swtpm" | "virtiofsd" | "qemu-img"
        | "virt-freezer" | "virt-probe" | "pause" | "container-disk" => Role::Helper(comm.into()),
        _ if comm.starts_with("passt") => Role::Helper("passt".into()),
        _ => Role::Other(comm.into()),
    }
}

/// QEMU's process, by its name.
#[must_use]
pub fn is_qemu(comm: &str) -> bool {
    comm.starts_with("qemu-system") || comm == "qemu-kvm"
}

/// Role of any thread.
#[must_use]
pub fn of_thread(comm: &str) -> Role {
    if let Some(vcpu) = vcpu(comm) {
        return Role::Vcpu(vcpu);
    }
    if let Some(name) = comm.strip_prefix("IO ") {
        return Role::IoThread(name.into());
    }
    let kernel = [
        "kworker/",
        "khugepaged",
        "kswapd",
        "kcompactd",
        "ksmd",
        "oom_reaper",
        "ksoftirqd/",
    ];
    let migration = [
        "mig/",
        "multifd",
        "live_migration",
        "postcopy/",
        "return path",
        "bg_snapshot",
    ];
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| comm.starts_with(prefix));
    match comm {
        "worker" => Role::BlockWorker,
        "call_rcu" => Role::Rcu,
        "vnc_worker" => Role::Vnc,
        "rpc-virtqemud" | "prio-rpc-virtqe" => Role::Helper("virtqemud".into()),
        "rpc-libvirtd" | "prio-rpc-libvir" => Role::Helper("libvirtd".into()),
        _ if comm.starts_with("vhost-") => Role::Vhost,
        _ if starts(&["iou-wrk-", "iou-sqp-"]) => Role::IoUring,
        _ if comm.starts_with("kvm") => Role::Kvm,
        _ if starts(&migration) => Role::Migration,
        _ if starts(&kernel) => Role::Kernel(comm.split('/').next().unwrap_or(comm).into()),
        _ => of_process(comm),
    }
}

/// `CPU 3/KVM`, `CPU 3/TCG`
fn vcpu(comm: &str) -> Option<u32> {
    let (number, kind) = comm.strip_prefix("CPU ")?.split_once('/')?;
    // A three-digit number leaves no room for the whole word.
    ["KVM", "TCG", "MSHV", "HVF"]
        .iter()
        .any(|full| full.starts_with(kind))
        .then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_roles() {
        for (comm, role) in [
            ("CPU 11/KVM", "vcpu 11"),
            ("IO iothread1", "iothread iothread1"),
            ("worker", "block-worker"),
            ("qemu-system-x86", "main-loop"),
            ("qemu-kvm", "main-loop"),
            ("virt-launcher-m", "helper virt-launcher-monitor"),
            ("rpc-virtqemud", "helper virtqemud"),
            ("kworker/3:1", "kernel kworker"),
            ("vhost-1234", "vhost"),
            ("memhold", "other memhold"),
            ("CPU x/KVM", "other CPU x/KVM"),
        ] {
            assert_eq!(of_thread(comm).to_string(), role);
        }
    }
}
