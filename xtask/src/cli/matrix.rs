//! `cargo xtask matrix`: everything on every kernel, and docs/kernels.md of it.

use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use xtask::build::{Binaries, binaries};
use xtask::matrix::result::CellResult;
use xtask::matrix::{cells, table};
use xtask::vm::Vm;
use xtask::vm::suite::{CYCLES, Cell, REAL, STAND_INS, WORKLOADS};

/// Run the workloads and the lab on every kernel, cgroup version and backend, and write docs/kernels.md.
///
/// Two VMs run side by side; all of it takes hours. What is asked for alone replaces only its own results, which are
/// kept in target/matrix. Example: cargo xtask matrix --kernel 6.1 --group workloads
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
}

impl Matrix {
    pub fn run(self) -> Result<()> {
        let jobs = self.jobs();
        ensure!(self.table || !jobs.is_empty(), "there is no such cell");
        let mut failed = 0;
        if !self.table {
            let binaries = binaries()?;
            let total = jobs.len();
            let queue = Mutex::new(jobs);
            let results = Mutex::new(());
            thread::scope(|scope| -> Result<()> {
                let workers: Vec<_> = (0..SIDE_BY_SIDE)
                    .map(|_| scope.spawn(|| work(&queue, &results, &binaries, total)))
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
        // The last one is taken first: shorter ones at the end.
        for group in ["lab", "workloads", "real", "cycles"] {
            for cell in cells().into_iter().rev() {
                let asked = wanted(&self.kernel, &cell.kernel) && wanted(&self.backend, &cell.backend);
                if asked && wanted(&self.group, group) {
                    jobs.push(Job { cell, group });
                }
            }
        }
        jobs
    }
}

/// Runs jobs until there are none; returns how many runs differed.
fn work(queue: &Mutex<Vec<Job>>, results: &Mutex<()>, binaries: &Binaries, total: usize) -> Result<usize> {
    let mut failed = 0;
    loop {
        let (job, left) = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(job) = queue.pop() else {
                return Ok(failed);
            };
            (job, queue.len())
        };
        let (vm, names) = machine(&job, binaries);
        let what = format!(
            "{} {:?} {} {}",
            job.cell.kernel, job.cell.cgroup, job.cell.backend, job.group
        );
        eprintln!("matrix: {} of {total}: {what}", total - left);
        let run = vm.boot();
        let _one_at_a_time = results.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = CellResult::load(&job.cell)?.unwrap_or_else(|| CellResult::new(&job.cell));
        result.take(job.group, &names, run);
        result.save()?;
        let differ = result
            .groups
            .get(job.group)
            .into_iter()
            .flatten()
            .filter(|outcome| !outcome.ok);
        for outcome in differ {
            failed += 1;
            eprintln!("matrix: {what}: {} differs: {:?}", outcome.name, outcome.differ);
        }
    }
}

/// The VM of a job, and the names of what it runs.
fn machine(job: &Job, binaries: &Binaries) -> (Vm, Vec<String>) {
    let scenarios: &[&[&str]] = match job.group {
        "workloads" => {
            let vm = job.cell.workloads("matrix", binaries, &WORKLOADS);
            return (vm, WORKLOADS.map(str::to_owned).to_vec());
        }
        "cycles" => {
            let vm = job.cell.workloads("matrix-cycles", binaries, &[CYCLES]);
            return (vm, vec![CYCLES.to_owned()]);
        }
        "lab" => &STAND_INS,
        _ => &REAL,
    };
    let names = scenarios.iter().map(|words| words.join(" ")).collect();
    (job.cell.lab(&format!("matrix-{}", job.group), scenarios), names)
}
