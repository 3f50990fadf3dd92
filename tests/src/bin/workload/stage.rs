//! A workload in a memcg of its own, under `headroom record`, compared at each standstill.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::{Body, Event};
use headroom_tests::conserve::apart::told_apart;
use headroom_tests::conserve::settle::{cpus, is_still, settle, stat_is_off_by};
use headroom_tests::conserve::{Check, Document, Figures, Phase, Sums};
use headroom_tests::recording::{charge_sums, events, footer, footer_sums, mark, missed_runs};
use headroom_tests::{Memcg, Recorder, Run, Worker};
use serde_json::Value;
use tracer_common::Kind;

use crate::memory::{MIB, PAGE};
use crate::work::{self, Workload};

/// What the kernel may hold charged in advance, per CPU. kernel: MEMCG_CHARGE_BATCH (64 from 5.16 on, 32 before)
pub const STOCK: u64 = 64 * PAGE as u64;
/// What the actor's program itself needs: its stack, heap and data.
const PROGRAM: u64 = MIB as u64;

/// Where a workload is played.
pub struct Stage {
    /// What is recorded.
    pub group: Memcg,
    /// Groups below it, where a workload wants some. The actor runs in the first one.
    pub below: Vec<Memcg>,
    /// A folder on a disk.
    pub folder: PathBuf,
    /// Its process id, once it runs.
    pub actor: u32,
    recording: PathBuf,
    backend: String,
    /// Whether pages are followed, by the recording's header.
    follows: bool,
    /// Kinds of kernel memory that the recorder tells apart.
    apart: Vec<Kind>,
    /// Bytes that the records may be off by, since the kernel left runs of programs out and this was told: each of these
    /// would have counted a page.
    pub told_missed: i64,
    /// What there was before it was attached.
    before: Figures,
    document: Document,
}

/// Says `ready`, and waits for the word to begin: the actor's side of the stage.
pub fn begin() -> Result<()> {
    say("ready")
}

/// Tells what the actor holds now, in bytes by kind, and waits until that has been compared.
pub fn standstill(name: &str, truth: &[(&str, usize)]) -> Result<()> {
    let truth: Vec<String> = truth.iter().map(|(kind, bytes)| format!(" {kind}={bytes}")).collect();
    say(&format!("{name}{}", truth.concat()))
}

fn say(line: &str) -> Result<()> {
    println!("{line}");
    io::stdout().flush().context("nobody listens")?;
    let mut word = String::new();
    ensure!(io::stdin().read_line(&mut word)? > 0, "nobody leads");
    Ok(())
}

/// Plays a workload.
pub fn play(name: &str, backend: &str) -> Result<Document> {
    let folder = tempfile::tempdir()?;
    let recordings = tempfile::tempdir_in("/run")?;
    // It gives up what it holds in the folder before that goes.
    let mut workload = work::find(name)?;
    let mut stage = Stage {
        group: Memcg::create()?,
        below: Vec::new(),
        folder: folder.path().to_owned(),
        actor: 0,
        recording: recordings.path().join("workload.jsonl.zst"),
        backend: String::new(),
        follows: false,
        apart: Vec::new(),
        told_missed: 0,
        before: Figures::default(),
        document: Document {
            workload: name.to_owned(),
            kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
            backend: backend.to_owned(),
            ..Document::default()
        },
    };
    stage.document.cgroup = if stage.group.is_v2() { "v2" } else { "v1" }.to_owned();
    if let Some(reason) = workload.prepare(&mut stage)? {
        stage.document.not_here = Some(reason);
        stage.document.ok = true;
        return Ok(stage.document);
    }
    if !stage.below.is_empty() {
        // Making them charged the group, of which memory.stat has to tell first.
        stage.before = settle(&stage.group, &[])?;
    }
    let options = [&["--backend", backend], workload.options()].concat();
    let mut recorder = Recorder::start(&stage.group.target(), &stage.recording, &options)?;
    let status = stage.lead(workload.as_mut(), name)?;
    workload.ended(&mut stage, status)?;
    recorder.interrupt()?;
    stage.finish(workload.as_ref())
}

impl Stage {
    /// Leads the actor through its standstills to its end.
    fn lead(&mut self, workload: &mut dyn Workload, name: &str) -> Result<ExitStatus> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["act", name]).current_dir(&self.folder);
        let mut worker = Worker::of(&mut command, self.below.first().unwrap_or(&self.group))?;
        self.actor = worker.pid();
        worker.go()?;
        while let Some(line) = worker.next_line()? {
            let (phase, truth) = told(&line)?;
            self.compare(&phase, &truth)?;
            workload.after(self, &phase)?;
            worker.go()?;
        }
        let status = worker.wait()?;
        self.compare("ended", &BTreeMap::new())?;
        Ok(status)
    }

    /// Waits for a standstill, and compares.
    pub fn compare(&mut self, phase: &str, truth: &BTreeMap<String, u64>) -> Result<()> {
        let below: Vec<&Memcg> = self.below.iter().collect();
        let (figures, events) = loop {
            let figures = settle(&self.group, &below)?;
            mark(phase, 1)?;
            let events = self.events()?;
            // What the kernel gave back meanwhile, as the address space of a process that a CPU still had loaded when it
            // ended, would be in one of them only.
            if is_still(&figures, &self.group, &below)? {
                break (figures, events);
            }
        };
        if self.backend.is_empty() {
            self.backend = backend(&events)?;
            self.follows = follows(&events);
            let expected = self.backend != "tracepoint" && self.cannot_follow()?.is_none();
            self.check(Check {
                name: "pages are followed".to_owned(),
                expected: expected.to_string(),
                got: self.follows.to_string(),
                ok: self.follows == expected,
            });
            self.apart = told_apart(backends(&events)?);
        }
        self.told_missed = signed(missed_runs(&events) * PAGE as u64);
        let sums = Sums::of(&events);
        self.check_figures(phase, &figures, &sums)?;
        self.check_truth(phase, truth, &sums)?;
        if self.follows && sums.not_followed == 0 {
            self.check_live(phase, &figures, &sums)?;
        }
        self.document.phases.push(Phase {
            name: phase.to_owned(),
            recorded: sums.net.iter().map(|(kind, net)| (kind.to_string(), *net)).collect(),
            kernel: figures
                .kinds
                .iter()
                .map(|(kind, bytes)| ((*kind).to_owned(), *bytes))
                .chain([("usage".to_owned(), figures.usage)])
                .collect(),
            truth: truth.clone(),
        });
        Ok(())
    }

    /// Compares the recording with the kernel's own figures.
    fn check_figures(&mut self, phase: &str, figures: &Figures, sums: &Sums) -> Result<()> {
        let groups = 1 + self.below.len() as u64;
        let off = self.stat_is_off_by()?;
        // From 6.16 on a CPU has a stock for each of several groups. kernel: mm/memcontrol.c NR_MEMCG_STOCK
        let stock = signed(STOCK * cpus()? * groups) + self.told_missed;
        // A page that is only in the swap cache is charged, but counts as neither anonymous nor shared any more.
        let swap_cache = signed(figures.kinds.get("swap_cache").copied().unwrap_or(0));
        for (name, kind) in [("anon", Kind::Anon), ("file", Kind::File), ("shmem", Kind::Shmem)] {
            let expected = signed(figures.kinds.get(name).copied().unwrap_or(0));
            let mut check = Check::bytes(format!("{phase}: {name}"), expected, sums.of_kind(kind), off);
            let over = sums.of_kind(kind) - expected;
            if kind != Kind::File && swap_cache > 0 && (-off..=swap_cache + off).contains(&over) {
                check.expected = format!("{expected} and of {swap_cache} in the swap cache what is not mapped");
                check.ok = true;
            }
            self.check(check);
            if self.backend != "tracepoint" {
                let unplaced = sums.unplaced.get(&kind).copied().unwrap_or(0);
                let name = format!("{phase}: {name} without a place");
                let mut check = Check::bytes(name, 0, unplaced, self.told_missed);
                if kind == Kind::Anon && swap_cache > 0 && (0..=swap_cache).contains(&unplaced) {
                    check.expected = format!("up to {swap_cache} that was read ahead");
                    check.ok = true;
                }
                self.check(check);
            }
        }
        let sock = sums.of_kind(Kind::Sock);
        if let Some(expected) = figures.kinds.get("sock") {
            self.check(Check::bytes(format!("{phase}: sock"), signed(*expected), sock, stock));
        }
        if let Some(expected) = figures.kinds.get("kernel") {
            self.check(Check::bytes(
                format!("{phase}: kernel"),
                signed(*expected),
                sums.kernel(),
                stock,
            ));
        }
        for kind in self.apart.clone() {
            let Some(now) = figures.kinds.get(kind.as_str()) else {
                continue;
            };
            let before = self.before.kinds.get(kind.as_str()).copied().unwrap_or(0);
            let expected = signed(*now) - signed(before);
            let tolerance = if kind == Kind::Slab {
                objects_off(groups)? + self.told_missed
            } else {
                off
            };
            let name = format!("{phase}: {kind}");
            self.check(Check::bytes(name, expected, sums.of_kind(kind), tolerance));
        }
        // v1 counts socket buffers apart.
        let counted = if self.group.is_v2() {
            sums.all()
        } else {
            sums.all() - sock
        };
        self.check(Check::bytes(
            format!("{phase}: usage"),
            signed(figures.usage),
            counted,
            2 * stock,
        ));
        Ok(())
    }

    /// Compares what accounts hold with the kernel's own figures and with what was charged and not given back.
    fn check_live(&mut self, phase: &str, figures: &Figures, sums: &Sums) -> Result<()> {
        let held = |kinds: &[Kind]| kinds.iter().filter_map(|kind| sums.live.get(kind)).sum::<i64>();
        let kmem = sums.of_kind(Kind::Kmem) + sums.of_kind(Kind::Vmalloc);
        let (most, live) = (kmem + sums.of_kind(Kind::Slab).max(0), held(&[Kind::Kmem]));
        self.check(Check {
            name: format!("{phase}: kmem held, by its accounts"),
            // vmalloc areas stay kmem there, and so does what is too large for a slab.
            expected: format!("{kmem} and up to {most}"),
            got: live.to_string(),
            ok: (kmem - self.told_missed..=most + self.told_missed).contains(&live),
        });
        for (name, kinds, live) in [
            ("anon", &[Kind::Anon][..], held(&[Kind::Anon])),
            ("file", &[Kind::File], held(&[Kind::File])),
            ("shmem", &[Kind::Shmem], held(&[Kind::Shmem])),
            ("hugetlb", &[Kind::Hugetlb], held(&[Kind::Hugetlb])),
            ("pagetable", &[Kind::Pagetable], held(&[Kind::Pagetable])),
            ("kernel_stack", &[Kind::KernelStack], held(&[Kind::KernelStack])),
            (
                "secondary_pagetable",
                &[Kind::SecondaryPagetable],
                held(&[Kind::SecondaryPagetable]),
            ),
        ] {
            let placed = |kind: &Kind| sums.of_kind(*kind) - sums.unplaced.get(kind).copied().unwrap_or(0);
            let net = kinds.iter().map(placed).sum();
            self.check(Check::bytes(
                format!("{phase}: {name} held, by its accounts"),
                net,
                live,
                self.told_missed,
            ));
        }
        let swap_cache = figures.kinds.get("swap_cache").copied().unwrap_or(0);
        if swap_cache == 0 {
            let off = self.stat_is_off_by()?;
            for (name, kind) in [("anon", Kind::Anon), ("file", Kind::File), ("shmem", Kind::Shmem)] {
                let expected = signed(figures.kinds.get(name).copied().unwrap_or(0));
                self.check(Check::bytes(
                    format!("{phase}: {name} held"),
                    expected,
                    held(&[kind]),
                    off,
                ));
            }
        }
        Ok(())
    }

    /// Bytes by which a figure of memory.stat and the records may differ.
    fn stat_is_off_by(&self) -> Result<i64> {
        let groups = 1 + self.below.len() as u64;
        Ok(signed(stat_is_off_by()? * groups) + self.told_missed)
    }

    /// Whether pages are followed here.
    pub const fn follows(&self) -> bool {
        self.follows
    }

    /// Whether the recorder tells a kind of kernel memory apart.
    pub fn tells_apart(&self, kind: Kind) -> bool {
        self.apart.contains(&kind)
    }

    /// Compares the recording with what the actor says. What its program needs itself is anonymous.
    fn check_truth(&mut self, phase: &str, truth: &BTreeMap<String, u64>, sums: &Sums) -> Result<()> {
        for (name, bytes) in truth {
            let kind = Kind::from_name(name).with_context(|| format!("the actor tells of {name}"))?;
            let spare = signed(if kind == Kind::Anon { PROGRAM } else { 0 });
            let name = format!("{phase}: {name} by the actor");
            let got = sums.of_kind(kind);
            self.check(Check::told(name, signed(*bytes), spare, got, self.told_missed));
        }
        Ok(())
    }

    /// Why function probes cannot follow pages here, if so: with v1 it takes a probe of its own to see them swapped out.
    /// kernel: mem_cgroup_swapout(), of which 5.10 does not let a trampoline have the argument
    pub fn cannot_follow(&self) -> Result<Option<String>> {
        if self.group.is_v2() {
            return Ok(None);
        }
        self.lacks("uncharge_swapped_out")
    }

    /// Why the backend that was asked for has nothing to see this with, if so: what `headroom doctor` says of a probe.
    pub fn lacks(&self, probe: &str) -> Result<Option<String>> {
        let run = Run::headroom(["doctor", "--json", "--backend", &self.document.backend])?;
        let findings: Value = serde_json::from_str(&run.stdout).with_context(|| format!("doctor: {}", run.stderr))?;
        let probes = findings["probes"].as_array().context("doctor lists no probes")?;
        let found = probes.iter().find(|entry| entry["probe"] == probe);
        let found = found.with_context(|| format!("doctor does not know {probe}"))?;
        Ok(found["reason"].as_str().map(str::to_owned))
    }

    /// Adds a finding.
    pub fn check(&mut self, check: Check) {
        self.document.checks.push(check);
    }

    /// What has been recorded so far.
    pub fn events(&self) -> Result<Vec<Event>> {
        Ok(events(&self.recording)?.0)
    }

    /// What the kernel counts apart, as told by the last standstill.
    pub fn last(&self) -> Option<&Phase> {
        self.document.phases.last()
    }

    /// Looks at the whole recording.
    fn finish(mut self, workload: &dyn Workload) -> Result<Document> {
        let (events, state) = events(&self.recording)?;
        ensure!(state == State::Complete, "the recording is {state:?}");
        let footer = footer(&events)?;
        let records = charge_sums(&events);
        self.check(Check {
            name: "records equal the maps".to_owned(),
            expected: "yes".to_owned(),
            got: if records == footer_sums(footer) { "yes" } else { "no" }.to_owned(),
            ok: records == footer_sums(footer),
        });
        let lost = i64::try_from(footer.loss.lost_bytes)?;
        self.check(Check::bytes("lost".to_owned(), 0, lost, 0));
        self.document.missed_runs = footer.loss.missed_runs;
        workload.finish(&mut self, &events)?;
        self.document.backend = self.backend;
        self.document.ok = self.document.checks.iter().all(|check| check.ok);
        Ok(self.document)
    }
}

/// A standstill's line: its name, and words of `kind=bytes`.
fn told(line: &str) -> Result<(String, BTreeMap<String, u64>)> {
    let (numbers, name): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
    let truth = numbers.into_iter().map(|word| {
        let (kind, bytes) = word.split_once('=').with_context(|| format!("no truth: {word}"))?;
        Ok((kind.to_owned(), bytes.parse()?))
    });
    Ok((name.join(" "), truth.collect::<Result<_>>()?))
}

/// Whether pages are followed, by the recording's header.
fn follows(events: &[Event]) -> bool {
    events.iter().any(|event| match &event.body {
        Body::Header(header) => header.live.as_ref().is_some_and(|live| live.on),
        _ => false,
    })
}

/// The largest object of a slab, with the pointer that says whose it is, bytes.
/// kernel: KMALLOC_MAX_CACHE_SIZE, mm/memcontrol.c obj_full_size() (5.10 to 7.3)
const LARGEST_OBJECT: u64 = 2 * PAGE as u64 + 8;

/// Bytes by which objects may differ from memory.stat: each CPU keeps those of a group until they are more than a page, and
/// the first one whatever its size.
/// kernel: mm/memcontrol.c mod_objcg_state(), later `__account_obj_stock()`: "even for large object" (5.13 to 7.3)
fn objects_off(groups: u64) -> Result<i64> {
    // Reclaimable ones and others.
    Ok(signed(2 * (LARGEST_OBJECT * cpus()? + stat_is_off_by()?) * groups))
}

/// What each probe got, by the recording's header.
pub fn backends(events: &[Event]) -> Result<&BTreeMap<String, String>> {
    let header = events.iter().find_map(|event| match &event.body {
        Body::Header(header) => Some(header),
        _ => None,
    });
    Ok(&header.context("the recording has no header")?.backends)
}

/// What counts the charges, by the recording's header.
pub fn backend(events: &[Event]) -> Result<String> {
    let backends = backends(events)?;
    let counts = ["uncharge_folio", "lruvec_stat"]
        .iter()
        .find_map(|probe| backends.get(*probe));
    let word = counts.and_then(|text| text.split(' ').next());
    word.map(str::to_owned)
        .with_context(|| format!("nothing counts: {backends:?}"))
}

pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A setting of the kernel that is another only as long as this lives: a workload that does not come to its end leaves
/// those after it the machine that they expect.
pub struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    /// Sets it, and sets it back to what it was before when dropped.
    pub fn until_dropped(path: &'static str, value: &str, before: &str) -> Result<Self> {
        set(path, value)?;
        Ok(Self {
            path,
            before: before.to_owned(),
        })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = set(self.path, &self.before) {
            eprintln!("workload: {error:#}");
        }
    }
}

/// Writes a file of the kernel.
pub fn set(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, value).with_context(|| format!("cannot write '{value}' to {}", path.display()))
}
