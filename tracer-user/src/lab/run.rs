//! A run of the lab from beginning to end.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::actor::spec::Backend;
use super::cleanup;
use super::scenario::{self, Scenario, Setting};
use super::stage::{Outcome, Stage};
use super::tree::{self, Hierarchy, Identity, Tree};
use super::truth::Entry;
use crate::cli::exit::{ExitError, Status};
use crate::units::Bytes;

/// What to run, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenario.
    pub scenario: Scenario,
    /// Limit of the container, bytes.
    pub limit: Option<u64>,
    /// Growth of whoever is to blame, bytes per second.
    pub rate: Option<u64>,
    /// What backs guest RAM.
    pub backend: Backend,
    /// Where to keep the recording, the report and the truth.
    pub keep: Option<PathBuf>,
    /// JSON on standard output instead of text.
    pub json: bool,
    /// Trace it, too.
    pub trace: bool,
}

/// What the lab itself knows about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Size of guest RAM.
    pub guest_ram: u64,
    /// Limit of the container.
    pub limit: u64,
    /// What should come of it.
    pub expect: super::plan::Expect,
    /// Process that the kernel killed.
    pub killed: Option<String>,
    /// Growth of the container's kernel memory by the kernel's own count, where nothing was killed.
    pub kernel_growth: Option<u64>,
    /// What the actors allocated.
    pub allocated: Vec<Entry>,
}

/// Runs a scenario.
///
/// # Errors
/// When it cannot be played or traced, or when a check of the report against the truth fails.
pub fn run(options: &Options) -> anyhow::Result<()> {
    cleanup::catch_signals()?;
    let hierarchy = Hierarchy::find()?;
    tree::sweep(&hierarchy, &std::env::temp_dir());
    let folder = tempfile::Builder::new()
        .prefix(&format!("{}{}-", tree::PREFIX, std::process::id()))
        .tempdir()
        .context("no temporary folder")?;
    let setting = Setting {
        limit: options.limit,
        rate: options.rate,
        backend: options.backend,
        identity: Identity::random()?,
        version: hierarchy.version,
        folder: folder.path().to_owned(),
    };
    let plan =
        scenario::plan(options.scenario, &setting).map_err(|error| ExitError::new(Status::Usage, error.to_string()))?;
    let tree = Tree::create(&hierarchy, &setting.identity, plan.limit)?;
    let mut stage = Stage::start(&tree, &plan)?;
    let before = tree.kernel_memory();
    let outcome = stage.play()?;
    let killed = match outcome {
        Outcome::Survived => None,
        Outcome::Killed(name) => Some(name),
    };
    let kernel_growth = match (&killed, before, tree.kernel_memory()) {
        (None, Some(before), Some(after)) => Some(after.saturating_sub(before)),
        _ => None,
    };
    let played = Played {
        guest_ram: plan.guest_ram,
        limit: plan.limit,
        expect: plan.expect.clone(),
        killed,
        kernel_growth,
        allocated: stage.truth().entries(),
    };
    print_truth(options, &played)?;
    let died = played.killed.as_deref() == Some("qemu");
    anyhow::ensure!(
        died == plan.expect.kill,
        "expected {}, got {}",
        if plan.expect.kill { "a kill" } else { "no kill" },
        played.killed.as_deref().unwrap_or("none")
    );
    Ok(())
}

fn print_truth(options: &Options, played: &Played) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, played)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "limit {}, guest RAM {}, killed: {}",
        Bytes(played.limit),
        Bytes(played.guest_ram),
        played.killed.as_deref().unwrap_or("nothing")
    )?;
    if let Some(growth) = played.kernel_growth {
        writeln!(out, "kernel memory grew by {}", Bytes(growth))?;
    }
    for entry in &played.allocated {
        let Entry { key, bytes, exact } = entry;
        writeln!(
            out,
            "{:<10} {:<22} {:<10} {:<9} {:>11}{}",
            key.process,
            key.role.to_string(),
            key.kind,
            key.region,
            Bytes(*bytes),
            if *exact { "" } else { " at least" }
        )?;
    }
    Ok(())
}
