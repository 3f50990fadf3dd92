//! `headroom watch`: each kill leaves a whole incident folder, whatever happens to the disk or to the watcher.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::{Body, Event};
use headroom_tests::recording::{charge_sums, events, footer, footer_sums, report};
use headroom_tests::{Memcg, Recorder, SmallDisk, Worker, headroom, readers};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// How long after a kill its folder may appear.
const PROMISE: Duration = Duration::from_secs(5);
/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: u64 = 96 << 20;

/// The incident folders in `folder`, the oldest first.
fn incidents(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    found.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("incident-"))
    });
    found.sort();
    Ok(found)
}

fn mark(incident: &Path) -> Result<Value> {
    let path = incident.join("incident.json");
    let text = fs::read(&path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits for an incident that `wanted` picks, and says how long after its kill it was there.
fn await_incident(folder: &Path, wanted: impl Fn(&Value) -> bool) -> Result<(PathBuf, Duration)> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for incident in incidents(folder)? {
            let mark = mark(&incident)?;
            if wanted(&mark) {
                let at: Timestamp = mark["at"].as_str().context("no time")?.parse()?;
                let after = Timestamp::now().duration_since(at);
                return Ok((incident, after.unsigned_abs()));
            }
        }
        sleep(Duration::from_millis(20));
    }
    anyhow::bail!("no incident in {}: {:?}", folder.display(), incidents(folder)?)
}

fn is_in(cgroup: &str) -> impl Fn(&Value) -> bool {
    move |mark| mark["cgroup"].as_str().is_some_and(|path| path.contains(cgroup))
}

/// A process that grows in the group until the kernel kills it.
fn die(group: &Memcg) -> Result<()> {
    let mut worker = Worker::start(STORM, group, "grow 100")?;
    worker.go()?;
    while worker.numbers().is_ok() {}
    Ok(())
}

/// The events, which must be a whole recording whose sums are those of the maps.
fn whole(incident: &Path) -> Result<Vec<Event>> {
    let (events, state) = events(&incident.join("recording.jsonl.zst"))?;
    ensure!(state == State::Complete, "the recording is {state:?}");
    let mut sums = charge_sums(&events);
    let Some(Body::Baseline(baseline)) = events.get(1).map(|event| &event.body) else {
        anyhow::bail!("no baseline: {:?}", events.get(1));
    };
    for total in &baseline.totals {
        let key = (total.memcg, total.kind.as_str(), total.region.as_str());
        let sum = sums.entry(key).or_default();
        sum.0 += total.charged;
        sum.1 += total.uncharged;
    }
    sums.retain(|_, sum| *sum != (0, 0));
    let mut maps = footer_sums(footer(&events)?);
    maps.retain(|_, sum| *sum != (0, 0));
    ensure!(sums == maps, "{sums:?} is not {maps:?}");
    Ok(events)
}

#[test]
fn a_kill_in_a_vm_pod_leaves_its_whole_story() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[], folder.path(), &[])?;
    let mut lab = headroom()?
        .args(["lab", "memhold", "--no-trace"])
        .stdout(Stdio::null())
        .spawn()?;
    let cgroup = format!("/headroom-lab-{}/", lab.id());
    let found = await_incident(folder.path(), is_in(&cgroup));
    ensure!(lab.wait()?.success(), "the lab failed");
    let (incident, after) = found?;
    ensure!(after < PROMISE, "{after:?} after the kill");
    let name = incident.file_name().context("it has a name")?.to_string_lossy();
    ensure!(name.ends_with("-lab-vm1"), "{name}");

    let told: Value = serde_json::from_slice(&fs::read(incident.join("report.json"))?)?;
    let pod = &told["pods"][0];
    ensure!(pod["culprit"]["process"] == "memhold", "{pod}");
    ensure!(told["recording"]["ended"] == "incident", "{}", told["recording"]);
    ensure!(told["loss"]["disagreements"] == 0, "{}", told["loss"]);
    let text = fs::read_to_string(incident.join("report.txt"))?;
    ensure!(text.starts_with("lab/vm1: memhold"), "{text}");
    ensure!(
        mark(&incident)?["verdict"]
            .as_str()
            .is_some_and(|verdict| text.contains(verdict))
    );
    let again = report(&incident.join("recording.jsonl.zst"))?;
    ensure!(
        again["pods"].as_array().is_some_and(|pods| pods.contains(pod)),
        "{again}"
    );

    let histograms = readers::read("histograms.py", &incident.join("histograms.hlog"))?;
    let of_sizes = |histogram: &&Value| {
        let tag = histogram["tag"].as_str().unwrap_or_default();
        tag.starts_with("charge_burst_bytes/") && tag.contains("/lab/vm1/")
    };
    let sizes = histograms.iter().filter(of_sizes);
    let charges: u64 = sizes.filter_map(|histogram| histogram["count"].as_u64()).sum();
    ensure!(
        Some(charges) == pod["charge_sizes"]["count"].as_u64(),
        "{charges} charges: {pod}"
    );

    whole(&incident)?;
    let log = fs::read_to_string(incident.join("kernel.log"))?;
    let killed = format!("Killed process {}", pod["oom"][0]["victim"]["pid"]);
    ensure!(log.contains(&killed), "no '{killed}' in {log}");
    let stat = fs::read_to_string(incident.join("memory.stat"))?;
    let held: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("rss ").or(line.strip_prefix("anon "))?.parse().ok())
        .context("no anon in memory.stat")?;
    let limit = pod["limit"].as_u64().context("no limit")?;
    ensure!(
        held > limit / 2 && held <= limit,
        "{held} of {limit} right after the kill"
    );
    ensure!(incident.join("memory.events").exists() || incident.join("memory.oom_control").exists());

    watcher.signal(Signal::SIGTERM)?;
    let status = watcher.wait()?;
    ensure!(status.success(), "{status}: {:?}", watcher.said);
    Ok(())
}

/// Two kills in one cgroup are two stories, the name of the cgroup is harmless, and what was before `--keep` still counts.
#[test]
fn a_second_kill_is_another_incident() -> Result<()> {
    let group = Memcg::named(" $(x);\u{1b}[31mé")?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &["--keep", "3s"])?;
    let mut worker = Worker::start(STORM, &group, "storm 2 5")?;
    worker.go()?;
    worker.numbers()?;
    for number in 1..=2 {
        die(&group)?;
        await_incident(folder.path(), |_| {
            incidents(folder.path()).is_ok_and(|found| found.len() == number)
        })?;
    }
    let found = incidents(folder.path())?;
    for incident in &found {
        let name = incident.file_name().context("it has a name")?.to_string_lossy();
        ensure!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
            "{name}"
        );
        let events = whole(incident)?;
        let span = events.last().map(|event| event.t).unwrap_or(0) - events[0].t;
        ensure!(span < 7_000_000_000, "{span} ns are kept");
        let told = report(&incident.join("recording.jsonl.zst"))?;
        ensure!(told["pods"][0]["oom"].as_array().map(Vec::len) == Some(1), "{told}");
    }
    let before = |events: &[Event]| match events.get(1).map(|event| &event.body) {
        Some(Body::Baseline(baseline)) => baseline.totals.iter().map(|total| total.charged).sum::<u64>(),
        _ => 0,
    };
    ensure!(
        before(&whole(&found[0])?) > 1 << 20,
        "the storm came before what is kept"
    );
    let kill = |incident: &PathBuf| -> Result<String> {
        let told: Value = serde_json::from_slice(&fs::read(incident.join("report.json"))?)?;
        Ok(told["pods"][0]["oom"][0]["at"].to_string())
    };
    ensure!(kill(&found[0])? != kill(&found[1])?);
    watcher.interrupt()
}

#[test]
fn a_kill_just_before_the_end_is_told() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &[])?;
    die(&group)?;
    sleep(Duration::from_millis(100));
    watcher.signal(Signal::SIGTERM)?;
    ensure!(watcher.wait()?.success(), "{:?}", watcher.said);
    let found = incidents(folder.path())?;
    ensure!(found.len() == 1, "{found:?}: {:?}", watcher.said);
    whole(&found[0]).map(drop)
}

#[test]
fn a_watcher_killed_while_it_writes_leaves_nothing_that_looks_whole() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &[])?;
    die(&group)?;
    let deadline = Instant::now() + PATIENCE;
    while fs::read_dir(folder.path())?.count() == 0 {
        ensure!(Instant::now() < deadline, "nothing is written: {:?}", watcher.said);
        std::hint::spin_loop();
    }
    watcher.signal(Signal::SIGKILL)?;
    ensure!(watcher.wait()?.code().is_none(), "it was to be killed");
    let left: Vec<_> = fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 1 && incidents(folder.path())?.is_empty(), "{left:?}");

    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &[])?;
    ensure!(fs::read_dir(folder.path())?.count() == 0, "what is half is removed");
    die(&group)?;
    let (incident, _) = await_incident(folder.path(), |_| true)?;
    whole(&incident)?;
    watcher.interrupt()
}

#[test]
fn a_full_disk_is_told_and_the_next_kill_is_kept() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let disk = SmallDisk::mount("8k")?;
    let folder = disk.path().join("incidents");
    let mut watcher = Recorder::watch(&[&group.target()], &folder, &[])?;
    die(&group)?;
    watcher.await_line("no space left")?;
    ensure!(fs::read_dir(&folder)?.count() == 0, "nothing half is left");
    disk.resize("64m")?;
    die(&group)?;
    let (incident, _) = await_incident(&folder, |_| true)?;
    whole(&incident)?;
    watcher.interrupt()
}

#[test]
fn the_oldest_incidents_make_room_and_nothing_else_does() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let make = |name: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        fs::create_dir(&path)?;
        fs::write(path.join("recording.jsonl.zst"), vec![0; 4 << 20])?;
        fs::write(path.join("incident.json"), r#"{"schema": "headroom.incident/1"}"#)?;
        Ok(path)
    };
    let oldest = make("incident-20200101T000000Z-a")?;
    let newer = make("incident-20200102T000000Z-a")?;
    let notes = make("incident-20190101T000000Z-a")?;
    fs::write(notes.join("notes.md"), "what we learned")?;
    let other = make("backups")?;
    let options = ["--memory", "1MiB", "--max-disk", "9MiB"];
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &options)?;
    die(&group)?;
    // 8 MiB are there, and a MiB of kernel log may come: one of the old ones is in the way at most.
    let (incident, _) = await_incident(folder.path(), is_in("headroom-test"))?;
    let size: u64 = fs::read_dir(&incident)?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum::<Result<u64>>()?;
    let crowded = size + (8 << 20) + (64 << 10) > 9 << 20;
    ensure!(oldest.exists() != crowded, "{size} bytes came");
    ensure!(newer.exists() && notes.exists() && other.exists());
    watcher.interrupt()?;

    // Now there is no doubt.
    make("incident-20200103T000000Z-a")?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &options)?;
    die(&group)?;
    watcher.await_line("headroom: incident")?;
    watcher.interrupt()?;
    ensure!(!oldest.exists() && notes.exists() && other.exists());
    Ok(())
}

#[test]
fn what_cannot_work_is_told_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |options: &[&str]| {
        let mut command: Command = headroom()?;
        headroom_tests::Run::of(command.arg("watch").arg("-o").arg(folder.path()).args(options))
    };
    run(&["--memory", "1KiB"])?.expect_one_line(2, &["--memory", "1.0 MiB"])?;
    run(&["--max-disk", "64MiB"])?.expect_one_line(2, &["--max-disk", "--memory"])?;
    run(&["no-such-vm"])?.expect_one_line(4, &["no-such-vm"])?;
    let group = Memcg::create()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &[])?;
    run(&["--no-protect"])?.expect_one_line(1, &["another headroom", "--output"])?;
    watcher.interrupt()
}
