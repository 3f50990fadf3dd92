//! What the names of threads and processes say by themselves.
//!
//! Names of QEMU's threads: qemu: accel/*, iothread.c, monitor/monitor.c, util/thread-pool.c, util/rcu.c,
//! ui/vnc-jobs.c, migration/* (6.0 to 10.1; migration threads were renamed to `mig/...` in 9.1).

use super::Role;

/// Helper daemons and short-lived tools that KubeVirt and libvirt start in a VM pod.
const HELPERS: [&str; 19] = [
    "virt-launcher",
    "virt-launcher-monitor",
    "virtqemud",
    "libvirtd",
    "virtlogd",
    "virtlockd",
    "virt-tail",
    "virt-freezer",
    "virt-probe",
    "virt-exporter",
    "container-disk",
    "swtpm",
    "passt",
    "virtiofsd",
    "qemu-img",
    "qemu-nbd",
    "qemu-pr-helper",
    "dnsmasq",
    "pause",
];

/// QEMU's migration threads: exact names up to 9.0, and prefixes.
const MIGRATION: [&str; 8] = [
    "live_migration",
    "return path",
    "bg_snapshot",
    "fault-default",
    "fault-fast",
    "COLO incoming",
    "get_dirtyrate",
    "dirtyrate-stat",
];
const MIGRATION_PREFIXES: [&str; 4] = ["mig/", "multifdsend_", "multifdrecv_", "postcopy/"];

/// Bytes of a name that the kernel keeps of a thread's. kernel: include/linux/sched.h TASK_COMM_LEN, less its NUL
const COMM: usize = 15;

/// A helper by its program's name, or by what the kernel keeps of that.
#[must_use]
pub fn helper(name: &str) -> Option<Role> {
    // passt is started as the variant for this CPU: passt.avx2
    let name = if name.starts_with("passt.") { "passt" } else { name };
    let is_cut = |helper: &str| name.len() == COMM && helper.starts_with(name);
    let known = HELPERS.iter().find(|helper| **helper == name || is_cut(helper));
    known
        .map(|helper| (*helper).to_owned())
        .or_else(|| name.starts_with("hook-sidecar").then(|| name.to_owned()))
        .map(Role::Helper)
}

/// QEMU's process, by its program's name.
#[must_use]
pub fn is_qemu(name: &str) -> bool {
    name.starts_with("qemu-system") || name == "qemu-kvm"
}

/// Workers that are kernel threads on some kernels and threads of QEMU on others (vhost since 6.4, KVM's recovery of
/// huge pages since 6.13).
#[must_use]
pub fn worker(comm: &str) -> Option<Role> {
    if is_numbered(comm, "vhost-") {
        Some(Role::Vhost)
    } else if comm.starts_with("kvm-nx-lpage-re") || comm.starts_with("kvm-pit/") {
        Some(Role::Kvm)
    } else {
        None
    }
}

/// A thread of QEMU, or one that the kernel adds to it, where the name says what it is for.
#[must_use]
pub fn qemu_thread(comm: &str) -> Option<Role> {
    if let Some(role) = worker(comm).or_else(|| vcpu(comm)) {
        return Some(role);
    }
    if let Some(name) = comm.strip_prefix("IO ") {
        return Some(Role::IoThread(name.to_owned()));
    }
    Some(match comm {
        "worker" => Role::BlockWorker,
        "vnc_worker" => Role::Vnc,
        "call_rcu" => Role::Rcu,
        _ if comm.starts_with("worker/") => Role::BlockWorker,
        _ if is_migration(comm) => Role::Migration,
        _ if is_numbered(comm, "iou-wrk-") || is_numbered(comm, "iou-sqp-") => Role::IoUring,
        _ => return None,
    })
}

/// `CPU 3/KVM`, `CPU 3/TCG`.
fn vcpu(comm: &str) -> Option<Role> {
    if comm == "ALL CPUs/TCG" {
        // One thread of the emulator runs every vCPU in turn.
        return Some(Role::Vcpu(0));
    }
    let (number, accelerator) = comm.strip_prefix("CPU ")?.split_once('/')?;
    (matches!(accelerator, "KVM" | "TCG") && is_number(number))
        .then(|| number.parse().ok())?
        .map(Role::Vcpu)
}

fn is_migration(comm: &str) -> bool {
    MIGRATION.contains(&comm) || MIGRATION_PREFIXES.iter().any(|prefix| comm.starts_with(prefix))
}

fn is_numbered(comm: &str, prefix: &str) -> bool {
    comm.strip_prefix(prefix).is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
