//! QEMU and the few other tools that a VM is made with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use super::step;
use crate::process::{capture, find};

/// A program of the VM lab and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 3] = [
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        program: "mkfs.ext4",
        package: "e2fsprogs",
    },
    Tool {
        program: "ldd",
        package: "libc-bin",
    },
];

/// Installs the tools that are missing where that is possible: as root, with apt.
///
/// # Errors
/// Names the packages to install by hand.
pub fn ensure() -> Result<()> {
    let missing = || TOOLS.iter().filter(|tool| find(tool.program).is_none());
    let packages: Vec<&str> = missing().map(|tool| tool.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = format!(
        "install by hand: `apt-get install {}` or your system's counterpart",
        packages.join(" ")
    );
    if !geteuid().is_root() || find("apt-get").is_none() {
        let programs: Vec<&str> = missing().map(|tool| tool.program).collect();
        bail!("the VM lab needs {}; {by_hand}", programs.join(", "));
    }
    install(&packages).with_context(|| by_hand.clone())?;
    match missing().next() {
        Some(tool) => bail!("{} is still missing; {by_hand}", tool.program),
        None => Ok(()),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    step("qemu", format_args!("apt-get install {}", packages.join(" ")));
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
        command
    };
    let install = || {
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .output()
    };
    // The first try saves the update where the system's lists are fresh.
    if install().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    step("qemu", "apt-get update");
    capture(apt_get().arg("update"))?;
    capture(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
    .map(drop)
}

/// The emulator.
///
/// # Errors
/// When it is not installed.
pub fn emulator() -> Result<PathBuf> {
    find("qemu-system-x86_64").context("qemu-system-x86_64 is missing: run `cargo xtask setup`")
}
