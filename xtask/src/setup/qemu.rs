//! QEMU and the few other tools that a VM is made with.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::tools::{self, Tool};
use crate::process::find;

const TOOLS: [Tool; 3] = [
    Tool {
        programs: &["qemu-system-x86_64"],
        package: "qemu-system-x86",
    },
    Tool {
        programs: &["mkfs.ext4"],
        package: "e2fsprogs",
    },
    Tool {
        programs: &["ldd"],
        package: "libc-bin",
    },
];

/// Installs the tools that are missing where that is possible: as root, with apt.
///
/// # Errors
/// Names the packages to install by hand.
pub fn ensure() -> Result<()> {
    tools::ensure("the VM lab", &TOOLS)
}

/// The emulator.
///
/// # Errors
/// When it is not installed.
pub fn emulator() -> Result<PathBuf> {
    find("qemu-system-x86_64").context("qemu-system-x86_64 is missing: run `cargo xtask setup`")
}
