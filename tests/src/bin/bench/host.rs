//! Times on this host.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::{BackendChoice, Options, Record, Tracer};
use headroom::recording::event::Body;
use headroom_tests::memory::{PAGE, Pages};
use headroom_tests::recording::events;
use headroom_tests::{Memcg, Recorder, Run, simulate};
use nix::sys::utsname::uname;
use tracer_common::Watched;
use xtask::bench::Figure;
use xtask::bench::host::{Host, Rate, Report, cpu_model};

/// Rounds in which each set-up is measured once.
const ROUNDS: usize = 15;
/// Pages of a measurement: some 10 ms.
const FAULTS: usize = 16_384;
/// How long the collector is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Records a second to be made.
const RATES: [usize; 4] = [100, 1_000, 10_000, 50_000];
/// Hours of a busy pod in the recordings that are reported on.
const HOURS: [u64; 2] = [1, 6];
/// How long records are counted for that.
const COUNTED: Duration = Duration::from_secs(3);
/// Bytes that an account gathers before it emits: a page, so that each is a record.
const GRANULARITY: u32 = 4 << 10;
/// The same, as the command line has it.
const GRANULARITY_WORDS: &str = "4KiB";
/// How often the process that makes records does so.
const STEP: Duration = Duration::from_millis(10);

/// Sums up by thread what headroom's tracepoint backend sums up, with the same tracepoints.
const SCRIPT: &str = "rawtracepoint:mod_memcg_lruvec_state { @lruvec[tid, arg1] = sum((int64)(int32)arg2); }\n\
                      rawtracepoint:mod_memcg_state { @memcg[tid, arg1] = sum((int64)(int32)arg2); }";

/// Measures all, with bpftrace run by these words, and prints what came of it.
pub fn measure(bpftrace: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host {
        kernel: uname()?.release().to_string_lossy().into_owned(),
        cpu: cpu_model()?,
        cpus: std::thread::available_parallelism()?.get(),
        faults: faults(bpftrace)?,
        ..Host::default()
    };
    host.attach = attach(folder.path())?;
    for asked in RATES {
        let file = folder.path().join(format!("{asked}.jsonl.zst"));
        host.rates.push(rate(asked, &file)?);
    }
    for hours in HOURS {
        let file = folder.path().join(format!("{hours}h.jsonl.zst"));
        simulate::write(&file, hours)?;
        host.reports.push(report(hours, &file)?);
    }
    println!("{}", serde_json::to_string(&host)?);
    Ok(())
}

/// Page faults without and with tracers, one after the other in each round.
fn faults(bpftrace: &[&str]) -> Result<Vec<(Figure, Option<Figure>)>> {
    let group = Memcg::create()?;
    let other = Memcg::create()?;
    let procs = |group: &Path| fs::write(group.join("cgroup.procs"), "0").context("cannot change groups");
    procs(group.path())?;
    let result = rounds(&group, &other, bpftrace);
    procs(group.path().parent().context("a group has a parent")?)?;
    let times = result?;
    let mut figures = Vec::new();
    for (name, list) in &times {
        let figure = Figure::of(name, "anon", "fault", list).context("no rounds")?;
        let pairs: Vec<f64> = list.iter().zip(&times[0].1).map(|(time, base)| time / base).collect();
        let ratio = (*name != "none")
            .then(|| Figure::of(name, "anon", "ratio", &pairs))
            .flatten();
        figures.push((figure, ratio));
    }
    Ok(figures)
}

fn rounds(group: &Memcg, other: &Memcg, bpftrace: &[&str]) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let pages = Pages::small(FAULTS * PAGE)?;
    let mut times = ["none", "unwatched", "watched", "bpftrace"].map(|name| (name, Vec::new()));
    for _ in 0..ROUNDS {
        for (name, list) in &mut times {
            let mut tracer = None;
            let mut peer = None;
            match *name {
                "none" => {}
                "bpftrace" => peer = Some(Bpftrace::start(bpftrace)?),
                _ => {
                    let options = Options {
                        backend: BackendChoice::Tracepoint,
                        cgroup_v1: !group.is_v2(),
                        ..Options::default()
                    };
                    let mut attached = Tracer::attach(Path::new("/"), options)?;
                    let watched = if *name == "watched" { group } else { other };
                    attached.watch(watched.id()?, Watched { qemu_tgid: 0, pod: 0 })?;
                    tracer = Some(attached);
                }
            }
            list.push(fault_time(&pages)?);
            if let Some(tracer) = tracer {
                let counted = tracer
                    .accounts()
                    .iter()
                    .any(|(_, account)| account.charged as usize >= FAULTS * PAGE);
                ensure!(counted == (*name == "watched"), "{name}: counted: {counted}");
            }
            drop(peer);
        }
    }
    Ok(times.into())
}

/// Nanoseconds of a fault: the fastest of some batches.
fn fault_time(pages: &Pages) -> Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        pages.touch(0..FAULTS * PAGE);
        best = best.min(begun.elapsed());
        pages.give_back(0..FAULTS * PAGE)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(best.as_nanos() as f64 / FAULTS as f64)
}

/// bpftrace with its script; ended when dropped.
struct Bpftrace(Child);

impl Bpftrace {
    fn start(words: &[&str]) -> Result<Self> {
        let (program, arguments) = words.split_first().context("no bpftrace was named")?;
        let child = Command::new(program)
            .args(arguments)
            .args(["-q", "-e", SCRIPT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bpftrace")?;
        let mut this = Self(child);
        let begun = Instant::now();
        while this.links()? < 2 {
            ensure!(this.0.try_wait()?.is_none(), "bpftrace ended");
            ensure!(begun.elapsed() < Duration::from_secs(60), "bpftrace does not attach");
            sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    fn links(&self) -> Result<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.0.id()))?.flatten();
        let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(links
            .filter(|link| link.ends_with("anon_inode:bpf_link") || link.ends_with("anon_inode:bpf-raw-tracepoint"))
            .count())
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// From the start of `headroom record` until it says that it is attached.
fn attach(folder: &Path) -> Result<Option<Figure>> {
    let group = Memcg::create()?;
    let mut times = Vec::new();
    for number in 0..7 {
        let begun = Instant::now();
        let mut recorder = Recorder::start(&group.target(), folder.join(format!("attach-{number}")), &[])?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        recorder.interrupt()?;
    }
    Ok(Figure::of("record", "start", "attached", &times))
}

/// The collector while records come at a rate.
fn rate(asked: usize, file: &Path) -> Result<Rate> {
    let group = Memcg::create()?;
    let worker = Pace::start(asked, &group)?;
    let records = records_per_second(&group)?;
    let recorder = &mut Recorder::start(&group.target(), file, &["--granularity", GRANULARITY_WORDS])?;
    sleep(Duration::from_secs(2));
    let before = cpu_time(recorder.pid())?;
    let begun = Instant::now();
    sleep(WATCHED);
    let took = cpu_time(recorder.pid())? - before;
    let watched = begun.elapsed();
    let resident = resident(recorder.pid())?;
    drop(worker);
    recorder.interrupt()?;
    let (events, _) = events(file)?;
    let Some(Body::Footer(footer)) = events.last().map(|event| &event.body) else {
        bail!("the recording has no end");
    };
    ensure!(footer.loss.lost_bytes == 0, "{:?}", footer.loss);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let size = fs::metadata(file)?.len() as f64;
    Ok(Rate {
        records,
        full: footer.loss.ring_full,
        cpu: 100.0 * took.as_secs_f64() / watched.as_secs_f64(),
        resident,
        bytes: size / (WATCHED.as_secs_f64() + 2.0),
    })
}

/// How many records a second the kernel side makes of what goes on in a group.
fn records_per_second(group: &Memcg) -> Result<f64> {
    let options = Options {
        backend: BackendChoice::Tracepoint,
        cgroup_v1: !group.is_v2(),
        granularity: GRANULARITY,
        ..Options::default()
    };
    let mut tracer = Tracer::attach(Path::new("/"), options)?;
    tracer.watch(group.id()?, Watched { qemu_tgid: 0, pod: 0 })?;
    tracer.drain(|_| ());
    let begun = Instant::now();
    let mut records = 0_u32;
    while begun.elapsed() < COUNTED {
        sleep(STEP);
        tracer.drain(|record| records += u32::from(matches!(record, Record::Charge(..))));
    }
    Ok(f64::from(records) / begun.elapsed().as_secs_f64())
}

/// A process that makes about this many records a second; ended when dropped.
struct Pace(Child);

impl Pace {
    fn start(records: usize, group: &Memcg) -> Result<Self> {
        // A page is a record when it is charged, and one when it is given back.
        let pages = records.div_ceil(2).to_string();
        let mut work = Command::new(env::current_exe()?);
        work.args(["pace", &pages]).stdin(Stdio::null());
        group.join(&mut work)?;
        Ok(Self(work.spawn().context("cannot start the work")?))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Ends a process that has done its work.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Time that a process took on CPUs.
fn cpu_time(pid: u32) -> Result<Duration> {
    // Its threads' times in nanoseconds, which `stat` rounds. kernel: Documentation/scheduler/sched-stats.rst
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let time: u64 = text.split(' ').next().context("schedstat is empty")?.parse()?;
        sum += time;
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory that is resident, MiB.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = word.context("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

fn report(hours: u64, file: &Path) -> Result<Report> {
    let begun = Instant::now();
    let path = file.to_str().context("the path is text")?;
    let run = Run::headroom(["report", path, "--format", "json"])?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(run.status == Some(0), "{}", run.stderr);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let size = fs::metadata(file)?.len() as f64 / f64::from(1 << 20);
    Ok(Report { hours, size, seconds })
}

/// Touches pages at a rate and gives them back, until it is ended.
pub fn pace(pages_per_second: usize) -> Result<()> {
    let steps = usize::try_from(Duration::from_secs(1).as_millis() / STEP.as_millis())?;
    let each = pages_per_second.div_ceil(steps);
    let pages = Pages::small(each * PAGE)?;
    let begun = Instant::now();
    for step in 1.. {
        pages.touch(0..each * PAGE);
        pages.give_back(0..each * PAGE)?;
        sleep((STEP * step).saturating_sub(begun.elapsed()));
    }
    Ok(())
}
