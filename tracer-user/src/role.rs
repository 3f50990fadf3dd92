//! What a thread is for.

pub mod names;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a thread (or a whole helper process) is for. Written as `vcpu 3`, `iothread iothread1`, `block-worker`,
/// `helper virtqemud`, `kernel khugepaged`, `other foo`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Role {
    /// Runs a virtual CPU.
    Vcpu(u32),
    /// A QEMU iothread, by name.
    IoThread(String),
    /// QEMU's thread pool for block I/O.
    BlockWorker,
    /// QEMU's main loop.
    MainLoop,
    /// Live migration.
    Migration,
    /// The VNC server.
    Vnc,
    /// QEMU's RCU thread.
    Rcu,
    /// A vhost worker.
    Vhost,
    /// An `io_uring` worker.
    IoUring,
    /// A worker of KVM itself.
    Kvm,
    /// A kernel thread that charges on the pod's behalf, by name (`khugepaged`, `kworker`, ...).
    Kernel(String),
    /// A helper daemon of the pod, by name.
    Helper(String),
    /// Anything else keeps its own name.
    Other(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu(n) => write!(f, "vcpu {n}"),
            Self::IoThread(name) => write!(f, "iothread {name}"),
            Self::Kernel(name) => write!(f, "kernel {name}"),
            Self::Helper(name) => write!(f, "helper {name}"),
            Self::Other(name) => write!(f, "other {name}"),
            Self::BlockWorker => f.write_str("block-worker"),
            Self::MainLoop => f.write_str("main-loop"),
            Self::Migration => f.write_str("migration"),
            Self::Vnc => f.write_str("vnc"),
            Self::Rcu => f.write_str("rcu"),
            Self::Vhost => f.write_str("vhost"),
            Self::IoUring => f.write_str("io_uring"),
            Self::Kvm => f.write_str("kvm"),
        }
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.to_string()
    }
}

impl FromStr for Role {
    type Err = std::convert::Infallible;

    /// Never fails: a name that is not one of ours is `other`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (head, tail) = text.split_once(' ').unwrap_or((text, ""));
        Ok(match (head, tail) {
            ("vcpu", n) => n.parse().map_or_else(|_| Self::Other(text.to_owned()), Self::Vcpu),
            ("iothread", name) => Self::IoThread(name.to_owned()),
            ("kernel", name) => Self::Kernel(name.to_owned()),
            ("helper", name) => Self::Helper(name.to_owned()),
            ("other", name) => Self::Other(name.to_owned()),
            ("block-worker", "") => Self::BlockWorker,
            ("main-loop", "") => Self::MainLoop,
            ("migration", "") => Self::Migration,
            ("vnc", "") => Self::Vnc,
            ("rcu", "") => Self::Rcu,
            ("vhost", "") => Self::Vhost,
            ("io_uring", "") => Self::IoUring,
            ("kvm", "") => Self::Kvm,
            _ => Self::Other(text.to_owned()),
        })
    }
}

impl From<String> for Role {
    fn from(text: String) -> Self {
        match text.parse() {
            Ok(role) => role,
        }
    }
}

impl JsonSchema for Role {
    fn schema_name() -> Cow<'static, str> {
        "Role".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a thread or helper process is for: `vcpu N`, `iothread NAME`, `block-worker`, `main-loop`, \
                `migration`, `vnc`, `rcu`, `vhost`, `io_uring`, `kvm`, `kernel NAME`, `helper NAME` or `other NAME`.",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_survives_its_text() {
        for text in [
            "vcpu 11",
            "iothread iothread1",
            "block-worker",
            "helper virtqemud",
            "kernel khugepaged",
            "other x y",
        ] {
            assert_eq!(text.parse::<Role>().map(|role| role.to_string()).as_deref(), Ok(text));
        }
    }
}
