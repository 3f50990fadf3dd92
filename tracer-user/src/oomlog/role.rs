//! Roles by name alone: a log gives no executable, no command line and, for the invoker, no process.

use crate::role::{Role, names};

pub use crate::role::names::is_qemu;

/// Kernel threads that run into a pod's limit, or into the machine's.
const KERNEL: [&str; 7] = [
    "kworker/",
    "khugepaged",
    "kswapd",
    "kcompactd",
    "ksmd",
    "oom_reaper",
    "ksoftirqd/",
];

/// Role of a process of the task table, and of the main thread of one.
#[must_use]
pub fn of_process(comm: &str) -> Role {
    if is_qemu(comm) {
        return Role::MainLoop;
    }
    names::helper(comm).unwrap_or_else(|| Role::Other(comm.into()))
}

/// Role of any thread.
#[must_use]
pub fn of_thread(comm: &str) -> Role {
    if let Some(role) = names::qemu_thread(comm) {
        return role;
    }
    match comm {
        // libvirt: src/rpc/virnetserver.c, names of its worker threads
        "rpc-virtqemud" | "prio-rpc-virtqe" => Role::Helper("virtqemud".into()),
        "rpc-libvirtd" | "prio-rpc-libvir" => Role::Helper("libvirtd".into()),
        _ if KERNEL.iter().any(|prefix| comm.starts_with(prefix)) => {
            Role::Kernel(comm.split('/').next().unwrap_or(comm).into())
        }
        _ => of_process(comm),
    }
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
