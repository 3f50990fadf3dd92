//! What runs on this node: cgroups, VM pods, processes, threads, guest RAM. The only room that reads /proc and
//! /sys/fs/cgroup, always below a root path, so that a fixture tree can stand in for a node.
//!
//! Whatever comes from a pod is hostile and fleeting: reads are bounded, odd bytes are kept as replacement
//! characters, and what vanished between two reads is `None`, never an error.

use std::path::{Path, PathBuf};

pub mod bounded;
pub mod cgroup;
pub mod code;
pub mod guest_ram;
pub mod identity;
pub mod kmsg;
#[cfg(test)]
mod live_tests;
pub mod maps;
pub mod memory_stat;
mod namespace;
pub mod open_files;
pub mod overview;
pub mod own;
pub mod pod_path;
pub mod pods;
pub mod privileges;
pub mod process;
pub mod qemu_args;
pub mod roles;
mod syslog;
pub mod target;
#[cfg(test)]
mod test_tree;

pub use cgroup::{CgroupVersion, Hierarchy, Memcg};
pub use guest_ram::{GuestRam, Resident};
pub use own::{OwnMeter, OwnUsage};
pub use pods::VmPod;
pub use process::{Process, Thread};
pub use target::{Target, TargetError};

/// A node, seen through the root of its file system: `/` for the one headroom runs on.
#[derive(Clone, Debug)]
pub struct Node {
    root: PathBuf,
    hierarchy: Hierarchy,
    /// Where our cgroup namespace begins in the hierarchy.
    namespace: String,
}

/// Why the node could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file that every node has could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No mounted cgroup hierarchy has the memory controller.
    #[error("no cgroup hierarchy with the memory controller is mounted (looked in {0})")]
    NoMemoryController(PathBuf),
}

impl Node {
    /// The node whose file system has this root.
    ///
    /// # Errors
    /// When no hierarchy with the memory controller is mounted there.
    pub fn new(root: &Path) -> Result<Self, NodeError> {
        let mut node = Self {
            root: root.to_owned(),
            hierarchy: Hierarchy::find(root)?,
            namespace: "/".to_owned(),
        };
        let own = node.told_memcg_path("self");
        node.namespace = namespace::root(root, &node.hierarchy, own.as_deref());
        Ok(node)
    }

    /// Where the memory controller is mounted.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Path of a file below this node's /proc.
    #[must_use]
    pub fn proc(&self, relative: &str) -> PathBuf {
        self.root.join("proc").join(relative)
    }

    /// The memcg at this path below the memory controller's root (`/kubepods.slice/...`); `None` when there is none.
    #[must_use]
    pub fn memcg(&self, path: &str) -> Option<Memcg> {
        self.hierarchy.memcg(path)
    }
}
