//! Programs that come as packages of the system.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use super::step;
use crate::process::{capture, find};

/// A program, by the names it has on one system or another, and the Debian package that has it.
pub(super) struct Tool {
    pub programs: &'static [&'static str],
    pub package: &'static str,
}

impl Tool {
    fn is_missing(&self) -> bool {
        self.programs.iter().all(|program| find(program).is_none())
    }
}

/// Installs the tools that are missing where that is possible: as root, with apt. `what` is what needs them.
///
/// # Errors
/// Names the packages to install by hand.
pub(super) fn ensure(what: &str, tools: &[Tool]) -> Result<()> {
    let missing = || tools.iter().filter(|tool| tool.is_missing());
    let packages: Vec<&str> = missing().map(|tool| tool.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = format!(
        "install by hand: `apt-get install {}` or your system's counterpart",
        packages.join(" ")
    );
    if !geteuid().is_root() || find("apt-get").is_none() {
        let programs: Vec<&str> = missing().filter_map(|tool| tool.programs.first().copied()).collect();
        bail!("{what} needs {}; {by_hand}", programs.join(", "));
    }
    install(what, &packages).with_context(|| by_hand.clone())?;
    match missing().next() {
        Some(tool) => bail!("{} is still missing; {by_hand}", tool.package),
        None => Ok(()),
    }
}

fn install(what: &str, packages: &[&str]) -> Result<()> {
    step(what, format_args!("apt-get install {}", packages.join(" ")));
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
    step(what, "apt-get update");
    capture(apt_get().arg("update"))?;
    capture(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
    .map(drop)
}
