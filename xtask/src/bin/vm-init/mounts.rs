//! File systems, at the places where a node has them.

use std::fs;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use xtask::vm::protocol::{Cgroup, SCRATCH, SCRATCH_DISK};

/// What every VM has. A folder that is missing is made.
const BASE: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
];

/// Mounts what commands expect of a running system.
pub fn base() -> Result<()> {
    for (kind, target) in BASE {
        mount_at(kind, kind, target, None)?;
    }
    mount_at("tmpfs", "tmpfs", "/dev/shm", None)
}

/// Mounts the memory controller in the version asked for.
pub fn cgroup(version: Cgroup) -> Result<()> {
    match version {
        Cgroup::V1 => {
            mount_at("tmpfs", "tmpfs", "/sys/fs/cgroup", None)?;
            mount_at("cgroup", "cgroup", "/sys/fs/cgroup/memory", Some("memory"))
                .context("this kernel has no v1 memory controller")?;
            // As systemd does. Kernels from 5.11 on know nothing else.
            fs::write("/sys/fs/cgroup/memory/memory.use_hierarchy", "1")
                .context("cannot have groups count what is below")
        }
        Cgroup::V2 => {
            mount_at("cgroup2", "cgroup2", "/sys/fs/cgroup", None)?;
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("cannot enable the memory controller")
        }
    }
}

/// Mounts the disk for files that must have a disk under them: page cache and direct I/O are not those of a tmpfs.
pub fn scratch() -> Result<()> {
    mount_at("ext4", SCRATCH_DISK, SCRATCH, None)
}

fn mount_at(kind: &str, source: &str, target: &str, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
    mount(Some(source), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} at {target}"))
}
