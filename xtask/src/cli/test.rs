//! `cargo xtask test`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::geteuid;
use xtask::process::{cargo, find, run};
use xtask::setup::kernel;
use xtask::{build, paths, setup};

/// Run all checks and tests, those on this host and those in VMs. Needs root.
///
/// Arguments after `--` go to `cargo nextest run` (or `cargo test` where that is not installed), for instance a filter.
#[derive(Debug, Args)]
pub struct Test {
    /// Only the tests, without formatting and lints.
    #[arg(long)]
    no_lint: bool,
    /// Arguments for the test runner.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// The eBPF crate compiles for its own target only; building headroom checks it.
const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "tracer-ebpf"];

impl Test {
    pub fn run(self) -> Result<()> {
        if !geteuid().is_root() {
            bail!(
                "the end-to-end tests make cgroups and load BPF programs: run as root; `cargo test --lib` needs none"
            );
        }
        setup::ebpf()?;
        for line in kernel::LINES {
            setup::vm(line.name)?;
        }
        setup::browser()?;
        setup::observers()?;
        setup::readers()?;
        setup::kubernetes()?;
        if !self.no_lint {
            lint()?;
        }
        step("build");
        // With all targets the binaries share their dependencies' features, and so their builds, with the tests.
        run(cargo().args(["build", "--quiet", "--all-targets"]).args(WORKSPACE)).context("headroom does not build")?;
        build::build_for_vms()?;
        let tests = |mut command: Command| {
            command.env(build::BUILT, paths::binaries());
            command.env(build::BUILT_FOR_VMS, paths::emulated_binaries());
            command
        };
        step("tests");
        if find("cargo-nextest").is_none() {
            return run(tests(cargo())
                .args(["test", "--no-fail-fast"])
                .args(WORKSPACE)
                .args(&self.arguments))
            .context("tests failed");
        }
        // nextest runs no examples in documentation.
        run(tests(cargo()).args(["test", "--quiet", "--doc"]).args(WORKSPACE)).context("documentation tests failed")?;
        run(tests(cargo())
            .args(["nextest", "run"])
            .args(WORKSPACE)
            .args(&self.arguments))
        .context("tests failed")
    }
}

fn lint() -> Result<()> {
    step("fmt");
    run(cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` puts it right")?;
    step("clippy");
    run(cargo()
        .args(["clippy", "--quiet"])
        .args(WORKSPACE)
        .args(["--all-targets", "--", "-D", "warnings"]))
    .context("clippy has complaints")
}

fn step(name: &str) {
    eprintln!("test: {name}");
}
