//! The first process of headroom's VMs: mounts, loads modules, runs the plan's commands, brings files back, powers off.
//!
//! Whatever goes wrong is told to the host, which takes silence for failure.

mod commands;
mod kernel_log;
mod modules;
mod mounts;
mod network;
mod port;
mod results;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::utsname::uname;
use nix::unistd::{getpid, sync};
use port::Port;
use xtask::vm::protocol::{Message, PLAN, Plan, RESULTS};

fn main() -> Result<()> {
    if getpid().as_raw() != 1 {
        bail!("vm-init is the first process of a VM; see `cargo xtask vm`");
    }
    if let Err(error) = work() {
        // The last resort is the console, where the host's report quotes it.
        eprintln!("vm-init: {error:#}");
    }
    sync();
    reboot(RebootMode::RB_POWER_OFF).context("cannot power off")?;
    Ok(())
}

/// Opens the port as soon as there can be one, and sends it all that follows.
fn work() -> Result<()> {
    mounts::base()?;
    let port = Port::open()?;
    match plan(&port) {
        Ok(()) => port.send(&Message::Done),
        Err(error) => port.send(&Message::Failed(format!("{error:#}"))),
    }?;
    port.drain()
}

/// khugepaged makes huge pages of a process's memory when it likes to: runs with it cannot be compared to each other.
///
/// kernel: mm/khugepaged.c scan_sleep_millisecs_store (5.10 to 7.3)
fn put_khugepaged_to_sleep() -> Result<()> {
    let file = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
    fs::write(file, "3600000").with_context(|| format!("cannot write {file}"))
}

fn plan(port: &Port) -> Result<()> {
    let path = Path::new("/").join(PLAN);
    let plan = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let plan: Plan = serde_json::from_slice(&plan).context("cannot read the plan")?;
    modules::load(&plan.modules)?;
    mounts::cgroup(plan.cgroup)?;
    if plan.scratch_disk {
        mounts::scratch()?;
    }
    network::loopback_up()?;
    put_khugepaged_to_sleep()?;
    // What is recorded here names the host that it was recorded on.
    fs::write("/proc/sys/kernel/hostname", "headroom-vm").context("cannot set the host's name")?;
    fs::create_dir_all(RESULTS).context("cannot make the folder for results")?;
    let system = uname().context("cannot ask for the kernel's release")?;
    port.send(&Message::Up {
        release: system.release().to_string_lossy().into_owned(),
    })?;
    for command in &plan.commands {
        let status = commands::run(command, &plan.environment, port)?;
        port.send(&Message::Ended(status))?;
    }
    kernel_log::save()?;
    results::write()
}
