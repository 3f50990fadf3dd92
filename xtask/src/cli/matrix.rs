//! `cargo xtask matrix`: everything on every kernel, and docs/kernels.md of it.

use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use xtask::build::{Binaries, vm_binaries};
use xtask::matrix::result::{CellResult, VM, commit};
use xtask::matrix::{cells, table};
use xtask::vm::Vm;
use xtask::vm::suite::{CYCLES, Cell, REAL, STAND_INS, WORKLOADS};

/// Run the workloads and the lab on every kernel, cgroup version and backend, and write docs/kernels.md.
///
/// Two VMs run side by side; all of it takes hours. What is asked for alone replaces only its own results, which are
/// kept in docs/kernels, each as soon as its VM has ended: with --missing an interrupted run goes on where it stopped.
/// Example: cargo xtask matrix --kernel 6.1 --group workloads
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Matrix {
    /// Only this kernel line; may be given several times.
    #[arg(long)]
    kernel: Vec<String>,
    /// Only this backend; may be given several times.
    #[arg(long)]
    backend: Vec<String>,
    /// Only this group of runs; may be given several times.
    #[arg(long, value_parser = ["workloads", "cycles", "lab", "real"])]
    group: Vec<String>,
    /// Only this version of memory cgroups, v1 or v2.
    #[arg(long, value_parser = ["v1", "v2"])]
    cgroup: Option<String>,
    /// Only what has not been run to its end, or differed.
    #[arg(long)]
    missing: bool,
    /// Only write the document, from the results that are kept.
    #[arg(long)]
    table: bool,
}

/// How many VMs run at a time.
const SIDE_BY_SIDE: usize = 2;

/// A VM to boot for a cell.
struct Job {
    cell: Cell,
    group: &'static str,
    names: Vec<String>,
}

impl Matrix {
    pub fn run(self) -> Result<()> {
        let mut jobs = self.jobs();
        ensure!(self.table || !jobs.is_empty(), "there is no such cell");
        if self.missing {
            for job in &mut jobs {
                if let Some(kept) = CellResult::load(&job.cell)? {
                    job.names.retain(|name| !kept.agreed(job.group, name));
                }
            }
            jobs.retain(|job| !job.names.is_empty());
        }
        let mut failed = 0;
        if !self.table {
            let binaries = vm_binaries()?;
            let commit = commit()?;
            let total = jobs.len();
            let queue = Mutex::new(jobs);
            let results = Mutex::new(());
            thread::scope(|scope| -> Result<()> {
                let workers: Vec<_> = (0..SIDE_BY_SIDE)
                    .map(|_| scope.spawn(|| work(&queue, &results, &binaries, &commit, total)))
                    .collect();
                for worker in workers {
                    failed += worker.join().map_err(|_| anyhow!("a run panicked"))??;
                }
                Ok(())
            })?;
        }
        let mut kept = Vec::new();
        for cell in cells() {
            kept.push(CellResult::load(&cell)?.unwrap_or_else(|| CellResult::new(&cell)));
        }
        table::write(&kept)?;
        if failed > 0 {
            bail!("{failed} runs differed: docs/kernels.md says where");
        }
        Ok(())
    }

    fn jobs(&self) -> Vec<Job> {
        let wanted = |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        let mut jobs = Vec::new();
        // The last one is taken first. Cycles, which take longest, come when all else is known.
        for group in ["cycles", "workloads", "lab", "real"] {
            for cell in cells().into_iter().rev() {
                let asked = wanted(&self.kernel, &cell.kernel) && wanted(&self.backend, &cell.backend);
                let version = cell.cgroup.to_string();
                if asked && wanted(&self.group, group) && wanted(self.cgroup.as_slice(), &version) {
                    let names = names(group);
                    jobs.push(Job { cell, group, names });
                }
            }
        }
        jobs
    }
}

/// Runs jobs until there are none; returns how many runs differed.
fn work(
    queue: &Mutex<Vec<Job>>,
    results: &Mutex<()>,
    binaries: &Binaries,
    commit: &str,
    total: usize,
) -> Result<usize> {
    let mut failed = 0;
    loop {
        let (job, left) = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(job) = queue.pop() else {
                return Ok(failed);
            };
            (job, queue.len())
        };
        let vm = machine(&job, binaries);
        let what = format!(
            "{} {} {} {}",
            job.cell.kernel, job.cell.cgroup, job.cell.backend, job.group
        );
        eprintln!("matrix: {} of {total}: {what}", total - left);
        let run = vm.boot();
        if let Err(error) = &run {
            eprintln!("matrix: {what}: {error:#}");
        }
        let _one_at_a_time = results.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = CellResult::load(&job.cell)?.unwrap_or_else(|| CellResult::new(&job.cell));
        result.take(job.group, &job.names, commit, run);
        result.save()?;
        let differ = result
            .groups
            .get(job.group)
            .into_iter()
            .flatten()
            .filter(|outcome| !outcome.ok && (outcome.name == VM || job.names.contains(&outcome.name)));
        for outcome in differ {
            failed += 1;
            eprintln!("matrix: {what}: {} differs: {:?}", outcome.name, outcome.differ);
        }
    }
}

/// What a group runs.
fn names(group: &str) -> Vec<String> {
    let scenarios: &[&[&str]] = match group {
        "workloads" => return WORKLOADS.map(str::to_owned).to_vec(),
        "cycles" => return vec![CYCLES.to_owned()],
        "lab" => &STAND_INS,
        _ => &REAL,
    };
    scenarios.iter().map(|words| words.join(" ")).collect()
}

/// The VM of a job.
fn machine(job: &Job, binaries: &Binaries) -> Vm {
    let what = format!("matrix-{}", job.group);
    match job.group {
        "workloads" | "cycles" => {
            let names: Vec<&str> = job.names.iter().map(String::as_str).collect();
            job.cell.workloads(&what, binaries, &names)
        }
        _ => {
            let scenarios: Vec<Vec<&str>> = job.names.iter().map(|name| name.split(' ').collect()).collect();
            let scenarios: Vec<&[&str]> = scenarios.iter().map(Vec::as_slice).collect();
            job.cell.lab(&what, &scenarios)
        }
    }
}
