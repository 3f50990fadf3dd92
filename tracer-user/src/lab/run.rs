//! A run of the lab from beginning to end.

use std::fs;
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::actor::spec::Backend;
use super::cleanup;
use super::compare::{self, compare};
use super::foreseen::{Foreseen, foreseen};
use super::output::{self, Document};
use super::plan::Plan;
use super::real::{self, Accel, Cache, Qemu};
use super::scenario::{self, Scenario, Setting};
use super::stage::{Outcome, Stage};
use super::trace::{self, Recorder, TraceError};
use super::tree::{self, Hierarchy, Identity, Tree};
use super::truth::Entry;
use crate::cli::exit::{ExitError, Status};
use crate::node;
use crate::probe::BackendChoice;

/// Name of the recording, in the lab's own folder and where it is kept.
const RECORDING: &str = "recording.jsonl.zst";

/// What to run, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenario.
    pub scenario: Scenario,
    /// Limit of the container, bytes.
    pub limit: Option<u64>,
    /// Size of guest RAM, bytes.
    pub guest: Option<u64>,
    /// Growth of whoever is to blame, bytes per second.
    pub rate: Option<u64>,
    /// What backs guest RAM.
    pub backend: Backend,
    /// Where to keep the recording, the report and the truth.
    pub keep: Option<PathBuf>,
    /// JSON on standard output instead of text.
    pub json: bool,
    /// A real QEMU instead of a stand-in, run how.
    pub real: Option<(Accel, Cache)>,
    /// Trace it, too, and what counts the charges then.
    pub trace: Option<BackendChoice>,
    /// Record stacks, too.
    pub stacks: bool,
}

/// What the lab itself knows about a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Played {
    /// Size of guest RAM.
    pub guest_ram: u64,
    /// Limit of the container.
    pub limit: u64,
    /// What should come of it; absent where the reader chose the limit or the guest.
    pub expect: Option<super::plan::Expect>,
    /// Processes that the kernel killed.
    pub killed: Vec<String>,
    /// Growth of the container's kernel memory by the kernel's own count, where nothing was killed.
    pub kernel_growth: Option<u64>,
    /// Growth of the container's anonymous memory and page cache by the kernel's own count, where nothing was killed.
    pub user_growth: Option<i64>,
    /// Bytes per CPU by which that count may be off.
    pub user_growth_off_by: u64,
    /// Growth of a real QEMU's resident guest RAM by smaps, where nothing was killed.
    pub resident_growth: Option<u64>,
    /// Guest RAM is charged to the container. That in huge pages of hugetlbfs is not, unless the kernel is told to.
    pub guest_charged: bool,
    /// QEMU was a real one: what it allocates for itself is not known.
    pub real: bool,
    /// What the actors allocated.
    pub allocated: Vec<Entry>,
}

impl Played {
    /// What the kernel killed, in words.
    pub(super) fn killed_words(&self) -> String {
        if self.killed.is_empty() {
            "nothing".to_owned()
        } else {
            self.killed.join(", ")
        }
    }

    /// Bytes of a region and of these kinds that the actors touched.
    pub(super) fn touched(&self, region: &str, kinds: &[&str]) -> u64 {
        self.allocated
            .iter()
            .filter(|entry| entry.key.region == region && kinds.contains(&entry.key.kind.as_str()))
            .map(|entry| entry.bytes)
            .sum()
    }
}

/// Who is told what the lab is doing.
pub type Say<'a> = &'a dyn Fn(&str);

/// Runs a scenario.
///
/// # Errors
/// When it cannot be played or traced.
pub fn run(options: &Options, say: Say<'_>) -> anyhow::Result<Run> {
    say("setting up the pod");
    cleanup::catch_signals()?;
    let hierarchy = Hierarchy::find()?;
    tree::sweep(&hierarchy, &std::env::temp_dir());
    let folder = tempfile::Builder::new()
        .prefix(&format!("{}{}-", tree::PREFIX, std::process::id()))
        .tempdir()
        .context("no temporary folder")?;
    let setting = Setting {
        limit: options.limit,
        guest: options.guest,
        rate: options.rate,
        backend: options.backend,
        identity: Identity::random()?,
        version: hierarchy.version,
        hugetlb_charged: node::Hierarchy::find(Path::new("/")).is_ok_and(|found| found.hugetlb_accounting),
        folder: folder.path().to_owned(),
        qemu: real_qemu(options, folder.path())?,
    };
    let plan =
        scenario::plan(options.scenario, &setting).map_err(|error| ExitError::new(Status::Usage, error.to_string()))?;
    play(options, &plan, &hierarchy, &setting, say)
}

fn real_qemu(options: &Options, folder: &Path) -> anyhow::Result<Option<Qemu>> {
    let Some((accel, cache)) = options.real else {
        return Ok(None);
    };
    let message = format!(
        "no {} in PATH: install qemu-system-x86, or leave --real out",
        real::PROGRAM
    );
    let qemu = Qemu::find(accel, cache).ok_or_else(|| ExitError::new(Status::Unsupported, message))?;
    Qemu::prepare(folder).context("cannot write the guest's files")?;
    Ok(Some(qemu))
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    played: Played,
    /// The report, as data and to be read, when there was a tracer.
    report: Option<(Value, Vec<u8>)>,
    foreseen: Option<Foreseen>,
}

fn play(options: &Options, plan: &Plan, hierarchy: &Hierarchy, setting: &Setting, say: Say<'_>) -> anyhow::Result<Run> {
    let tree = Tree::create(hierarchy, &setting.identity, plan.limit)?;
    let mut stage = Stage::start(&tree, plan, say)?;
    let file = setting.folder.join(RECORDING);
    say("attaching the probes");
    let recorder = options
        .trace
        .map(|backend| Recorder::start(&tree.relative(), &file, backend, options.stacks))
        .transpose()
        .map_err(with_status)?;
    // Only what is held page by page is compared with it to the byte.
    let exact = options.real.is_none() && recorder.is_some() && trace::follows_pages(&file);
    let user_memory = || match exact {
        true => tree.settled_user_memory(),
        false => Ok(tree.user_memory()),
    };
    let before = (tree.kernel_memory(), stage.guest_resident(), user_memory()?);
    say("playing the scenario");
    let killed = match stage.play()? {
        Outcome::Survived => Vec::new(),
        Outcome::Killed(names) => names,
    };
    let growth = |before: Option<u64>, after: Option<u64>| {
        let growth = after?.saturating_sub(before?);
        killed.is_empty().then_some(growth)
    };
    let kernel_growth = growth(before.0, tree.kernel_memory());
    let resident_growth = growth(before.1, stage.guest_resident());
    let user_growth = match killed.as_slice() {
        [] => before.2.zip(user_memory()?),
        _ => None,
    };
    let allocated = stage.truth().entries();
    let played = Played {
        guest_ram: plan.guest_ram,
        limit: plan.limit,
        expect: plan.expect.clone(),
        killed,
        kernel_growth,
        resident_growth,
        user_growth_off_by: Tree::user_memory_off_by(),
        user_growth: user_growth.map(|(before, after)| after.cast_signed() - before.cast_signed()),
        guest_charged: setting.guest_charged(),
        real: options.real.is_some(),
        allocated,
    };
    let (report, foreseen) = match recorder {
        Some(recorder) => {
            say("waiting for the end of the recording");
            // A kill that the plan does not have may have happened; the recorder ends by itself then, too.
            recorder.finish(tree.oom_kills() > 0).map_err(with_status)?;
            say("making the report");
            keep(options, &file, &played)?;
            let report = (trace::report_json(&file)?, trace::report_text(&file)?);
            if let Some(folder) = &options.keep {
                fs::write(folder.join("report.json"), serde_json::to_vec_pretty(&report.0)?)?;
            }
            let foreseen = foreseen(&file, &played).context("cannot read the recording back")?;
            (Some(report), Some(foreseen))
        }
        None => (None, None),
    };
    Ok(Run {
        played,
        report,
        foreseen,
    })
}

/// Exit statuses of `headroom record` are the lab's own: a node that cannot trace cannot run the lab.
fn with_status(error: TraceError) -> anyhow::Error {
    match &error {
        TraceError::Failed { status, .. } if status.code() == Some(Status::Unsupported as i32) => {
            ExitError::new(Status::Unsupported, error.to_string()).into()
        }
        _ => error.into(),
    }
}

/// Keeps what there is before anything is concluded from it.
fn keep(options: &Options, file: &Path, played: &Played) -> anyhow::Result<()> {
    let Some(folder) = &options.keep else { return Ok(()) };
    let failed = || format!("cannot keep the recording in {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    fs::copy(file, folder.join(RECORDING)).with_context(failed)?;
    fs::write(folder.join("truth.json"), serde_json::to_vec_pretty(played)?).with_context(failed)
}

/// Prints what came of a run.
///
/// # Errors
/// When a check of the report against the truth fails.
pub fn conclude(options: &Options, run: &Run) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let checks = match &run.report {
        Some((report, _)) => compare(&run.played, report, cpus),
        None => vec![compare::killed(&run.played)],
    };
    let ok = checks.iter().all(|check| check.ok);
    let mut out = std::io::stdout().lock();
    if options.json {
        let document = Document {
            schema: Document::SCHEMA,
            scenario: options.scenario.name(),
            truth: &run.played,
            report: run.report.as_ref().map(|(report, _)| report),
            foreseen: run.foreseen.as_ref(),
            checks: &checks,
            ok,
        };
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        match &run.report {
            Some((_, text)) => out.write_all(text)?,
            None => output::truth(&mut out, &run.played)?,
        }
        writeln!(out)?;
        output::checks(&mut out, &checks)?;
    }
    out.flush()?;
    let wrong = checks.iter().filter(|check| !check.ok).count();
    anyhow::ensure!(ok, "{wrong} of {} checks differ from the truth", checks.len());
    Ok(())
}
