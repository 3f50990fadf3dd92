//! Instructions that tracing adds to pieces of work, counted in an emulated machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Figures;
use crate::build::binaries;
use crate::vm::Vm;
use crate::{paths, setup};

/// Pieces of work: memory of every kind that is charged.
pub const LOADS: [&str; 8] = ["anon", "thp", "shmem", "file", "small-files", "tcp", "sockets", "fork"];

/// What runs beside the work, headroom's own.
pub const SETUPS: [&str; 7] = ["none", "empty", "unwatched", "guest", "watched", "ledger", "stacks"];

/// The same by others.
const PEERS: [&str; 5] = ["c-unwatched", "c", "bpftrace-unwatched", "bpftrace", "bpftrace-stacks"];

/// The kernel line that the program in C is for: others have other functions.
const C_KERNEL: &str = "6.12";

/// Measures pieces of work under headroom's own set-ups on a kernel.
///
/// # Errors
/// When the machine does not get to its end, or the program in it says that something is not as it should be.
pub fn measure(kernel: &str, loads: &[&str]) -> Result<Figures> {
    run(Vm::new(&format!("bench-{kernel}")), kernel, loads, &SETUPS)
}

/// The same, and others' too.
///
/// # Errors
/// As [`measure`], and when the peers cannot be had.
pub fn measure_with_peers(kernel: &str, loads: &[&str]) -> Result<Figures> {
    let peers = setup::peers()?;
    let mut vm = Vm::new(&format!("bench-peers-{kernel}")).memory_mib(3072);
    for (host, guest) in peers.for_guest()? {
        vm = vm.file(host, &guest);
    }
    if kernel == C_KERNEL {
        let object = paths::target().join("bench/charges.bpf.o");
        let folder = object.parent().context("target/bench has a name")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let source = paths::workspace().join("tests/src/bin/bench/peers/charges.bpf.c");
        peers.compile(&source, &object)?;
        vm = vm.file(object, "/peers/charges.bpf.o");
    }
    let setups: Vec<&str> = SETUPS.into_iter().chain(PEERS).collect();
    let mut figures = run(vm, kernel, loads, &setups)?;
    if kernel != C_KERNEL {
        figures.missing.retain(|missing| !missing.starts_with("c-unwatched"));
        for missing in figures.missing.iter_mut().filter(|missing| missing.starts_with("c:")) {
            *missing = format!("`c`: the program in C is for {C_KERNEL}, whose functions it probes");
        }
    }
    Ok(figures)
}

fn run(vm: Vm, kernel: &str, loads: &[&str], setups: &[&str]) -> Result<Figures> {
    let run = vm
        .kernel(kernel)
        .count_instructions()
        .disk(true)
        .file(binaries()?.bench(), "/bin/bench")
        .env("HEADROOM_BINARIES", "/bin")
        .timeout(Duration::from_secs(3600))
        .command(["/bin/bench", "guest", &loads.join(","), &setups.join(",")])
        .boot()?;
    run.expect_success()?;
    let command = run.commands.first().context("the machine ran nothing")?;
    serde_json::from_slice(&command.stdout).context("what the machine measured")
}
