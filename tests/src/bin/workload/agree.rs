//! The same work seen by every backend at once: what they record must agree, kind by kind.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use headroom_tests::conserve::settle::{cpus, settle};
use headroom_tests::conserve::{Check, Document, Phase, Sums};
use headroom_tests::recording::{events, mark, missed_runs};
use headroom_tests::{Memcg, Recorder, Worker};
use tracer_common::Kind;

use crate::memory::PAGE;
use crate::stage::{STOCK, backend, signed};

/// Every backend; the first is what the others are held against.
const BACKENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// Workloads that need nothing made ready.
const PLAYED: [&str; 5] = ["anon", "shmem", "fork", "kernel", "socket"];
/// Kinds that are counted page by page, and by every backend in the same way.
const PAGES: [Kind; 3] = [Kind::Anon, Kind::File, Kind::Shmem];
/// Kinds of kernel memory that every backend tells apart.
const APART: [Kind; 4] = [Kind::Pagetable, Kind::KernelStack, Kind::Vmalloc, Kind::Sock];

/// Plays workloads one after the other, and compares at each standstill.
pub fn check() -> Result<Document> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let recordings = tempfile::tempdir_in("/run")?;
    let mut document = Document {
        workload: "agree".to_owned(),
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        cgroup: if group.is_v2() { "v2" } else { "v1" }.to_owned(),
        backend: BACKENDS.join(", "),
        ..Document::default()
    };
    let start = |name: &&str| {
        let file = recordings.path().join(format!("{name}.jsonl.zst"));
        Recorder::start(&group.target(), file, &["--backend", name])
    };
    let mut recorders = BACKENDS.iter().map(start).collect::<Result<Vec<_>>>()?;
    for name in PLAYED {
        let mut command = Command::new(env::current_exe()?);
        command.args(["act", name]).current_dir(folder.path());
        let mut worker = Worker::of(&mut command, &group)?;
        worker.go()?;
        while let Some(line) = worker.next_line()? {
            let words = line.split_whitespace().filter(|word| !word.contains('='));
            let phase = words.collect::<Vec<_>>().join(" ");
            compare(&format!("{name}, {phase}"), &group, &recorders, &mut document)?;
            worker.go()?;
        }
        ensure!(worker.wait()?.success(), "{name} failed");
    }
    for recorder in &mut recorders {
        recorder.interrupt()?;
    }
    document.ok = document.checks.iter().all(|check| check.ok);
    Ok(document)
}

fn compare(phase: &str, group: &Memcg, recorders: &[Recorder], document: &mut Document) -> Result<()> {
    settle(group, &[])?;
    mark(phase, BACKENDS.len())?;
    let stock = signed(STOCK * cpus()?);
    let page = i64::try_from(PAGE)?;
    let recorded: Vec<Recorded> = recorders
        .iter()
        .zip(BACKENDS)
        .map(|(recorder, name)| Recorded::of(&recorder.file, name))
        .collect::<Result<_>>()?;
    let first = recorded.first().context("there are backends")?;
    document.missed_runs = recorded.iter().map(|recorded| recorded.missed).sum();
    for (other, name) in recorded.iter().zip(BACKENDS).skip(1) {
        // Runs that the kernel left out are counted; each of these would have counted a page.
        let told = signed(first.missed + other.missed) * page;
        // While a thread reads BPF maps, which takes long where it is preempted, and in interrupts of a kprobe's program,
        // the kernel runs no kprobe's program on that CPU. Of the others, one may see a thread end that another does not.
        let (missed, ends) = if name == "kprobe" {
            (64 * page, stock)
        } else {
            (0, 16 * page)
        };
        let pages = PAGES.iter().map(|kind| (kind, missed + told));
        let apart = APART.iter().map(|kind| (kind, ends + told));
        for (kind, tolerance) in pages.chain(apart) {
            let text = format!("{phase}: {kind} by {name}");
            let (expected, got) = (first.sums.of_kind(*kind), other.sums.of_kind(*kind));
            let check = Check::bytes(text, expected, got, tolerance);
            document.checks.push(check);
        }
        let text = format!("{phase}: all kernel memory by {name}");
        let check = Check::bytes(text, first.sums.kernel(), other.sums.kernel(), stock + told);
        document.checks.push(check);
    }
    let kinds = |(recorded, name): (&Recorded, &str)| -> Vec<(String, i64)> {
        let net = recorded.sums.net.iter();
        net.map(|(kind, bytes)| (format!("{kind} by {name}"), *bytes)).collect()
    };
    document.phases.push(Phase {
        name: phase.to_owned(),
        recorded: recorded.iter().zip(BACKENDS).flat_map(kinds).collect(),
        kernel: BTreeMap::new(),
        truth: BTreeMap::new(),
    });
    Ok(())
}

/// What a recorder has written.
struct Recorded {
    sums: Sums,
    /// Runs of programs that the kernel left out.
    missed: u64,
}

impl Recorded {
    /// Reads it, once it is certain what counts for it.
    fn of(file: &Path, name: &str) -> Result<Self> {
        let (events, _) = events(file)?;
        let counts = backend(&events)?;
        ensure!(counts == name, "{counts} counts where {name} was to");
        Ok(Self {
            sums: Sums::of(&events),
            missed: missed_runs(&events),
        })
    }
}
