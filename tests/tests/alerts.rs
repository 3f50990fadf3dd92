//! Forecasts and alerts of a running tracer: early where something grows, none where nothing is wrong.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::{Alert, AlertKind, Body, Event};
use headroom_tests::recording::{events, report};
use headroom_tests::{Memcg, Recorder, Run, SmallDisk, Worker, headroom};
use serde_json::Value;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const LIMIT: u64 = 96 << 20;
const MIB: u64 = 1 << 20;
/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Part of the time from the first growth to the kill that a warning must leave.
const LEAD: f64 = 0.7;
/// All kinds of alerts, as an operator might want them.
const THRESHOLDS: [&str; 6] = [
    "--alert-eta",
    "5m",
    "--alert-headroom",
    "16MiB",
    "--alert-rate",
    "12MiB/s",
];

/// Plays a scenario of the lab beside a recorder of everything. Gives what the lab knows, the number of its pod in the
/// recording, and the recording's events.
fn play(scenario: &[&str], recorder: &mut Recorder) -> Result<(Value, u32, Vec<Event>)> {
    let lab = headroom()?
        .arg("lab")
        .args(scenario)
        .args(["--no-trace", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let cgroup = format!("/headroom-lab-{}/", lab.id());
    let output = lab.wait_with_output()?;
    ensure!(output.status.success(), "the lab failed: {output:?}");
    recorder.interrupt()?;
    let (events, state) = events(&recorder.file)?;
    ensure!(state == State::Complete, "{state:?}");
    let number = events.iter().find_map(|event| match &event.body {
        Body::Pod(pod) if pod.cgroup.contains(&cgroup) => Some(pod.pod),
        _ => None,
    });
    let number = number.with_context(|| format!("no pod below {cgroup} was seen"))?;
    Ok((serde_json::from_slice(&output.stdout)?, number, events))
}

/// Alerts of a pod, with their times.
fn alerts(events: &[Event], pod: u32) -> Vec<(u64, &Alert)> {
    let found = events.iter().filter_map(|event| match &event.body {
        Body::Alert(alert) if alert.pod == pod => Some((event.t, alert)),
        _ => None,
    });
    found.collect()
}

fn kill(events: &[Event], pod: u32) -> Option<u64> {
    let found = events.iter().find(|event| match &event.body {
        Body::Oom(oom) => oom.pod == Some(pod),
        _ => false,
    });
    found.map(|event| event.t)
}

/// When the lab says that overhead of a process began to grow, CLOCK_BOOTTIME nanoseconds.
fn onset(lab: &Value, process: &str) -> Result<u64> {
    let entries = lab["truth"]["allocated"].as_array().context("a list")?;
    let of = |entry: &&Value| entry["process"] == process && entry["region"] == "overhead";
    let first = entries.iter().filter(of).filter_map(|entry| entry["first_t"].as_u64());
    first
        .min()
        .with_context(|| format!("{process} allocated nothing: {lab}"))
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[test]
fn a_leak_in_a_vm_pod_is_told_early_with_its_driver() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::everything(folder.path().join("r.jsonl.zst"), &["--alert-eta", "5m"])?;
    let (lab, pod, events) = play(&["daemon-leak", "--rate", "6MiB/s"], &mut recorder)?;
    let kill = kill(&events, pod).context("no kill")?;
    let told = alerts(&events, pod);
    let Some((t, alert)) = told.first().copied() else {
        anyhow::bail!("no alert in {} events", events.len());
    };
    ensure!(
        told.len() == 1 && alert.raised && alert.alert == AlertKind::Eta,
        "{told:?}"
    );
    let driver = alert.driver.as_ref().context("nobody drives it")?;
    ensure!(
        driver.process == "virtqemud" && driver.role.to_string() == "helper virtqemud",
        "{driver:?}"
    );
    let onset = onset(&lab, "virtqemud")?;
    let lead = share(kill.saturating_sub(t), kill - onset);
    ensure!(lead >= LEAD, "told at {lead} of the time before the kill");

    let said = recorder.said.iter().find(|line| line.contains("alert: lab/vm1: "));
    let said = said.with_context(|| format!("not said: {:?}", recorder.said))?;
    ensure!(
        said.contains("within 5 min") && said.ends_with("driven by virtqemud, helper virtqemud"),
        "{said}"
    );
    // What the recording holds is what the report says, not a second computation.
    let Some(Body::Header(header)) = events.first().map(|event| &event.body) else {
        anyhow::bail!("no header");
    };
    ensure!(header.forecasts, "the header says that nothing was forecast");
    let report = report(&recorder.file)?;
    let pods = report["pods"].as_array().context("pods")?;
    let pod = pods.iter().find(|pod| !pod["oom"].as_array().is_none_or(Vec::is_empty));
    let pod = pod.context("the kill is in the report")?;
    ensure!(
        pod["alerts"][0]["alert"] == "eta" && pod["alerts"][0]["raised"] == true,
        "{pod}"
    );
    ensure!(!pod["forecasts"].as_array().is_none_or(Vec::is_empty), "{pod}");
    Ok(())
}

#[test]
fn a_guest_that_fills_its_ram_alarms_nobody() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::everything(folder.path().join("r.jsonl.zst"), &THRESHOLDS)?;
    let (lab, pod, events) = play(&["guest-only", "--rate", "24MiB/s"], &mut recorder)?;
    let guest = |event: &Event| match &event.body {
        Body::Sample(sample) if sample.pod == pod => sample.guest_resident,
        _ => None,
    };
    let most = events.iter().filter_map(guest).max().unwrap_or(0);
    let size = lab["truth"]["guest_ram"].as_u64().context("a size")?;
    // The last sample may be a second old, or two where the recorder waits for its turn: each is 24 MiB.
    ensure!(share(most, size) > 0.84, "the guest filled {most} of {size}");
    let told = alerts(&events, pod);
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

#[test]
fn page_cache_that_comes_and_goes_alarms_nobody() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    // Where the recording is, too: a disk, whose page cache is no shared memory.
    let file = folder.path().join("backup.raw");
    let mut recorder = Recorder::start(&group.target(), folder.path().join("r.jsonl.zst"), &THRESHOLDS)?;
    // Three teeth below the limit, then one that beats against it.
    for (mib, teeth) in [(56, 3), (200, 1)] {
        let work = format!("cache {} 20 {mib} {teeth}", file.display());
        let mut worker = Worker::start(STORM, &group, &work)?;
        worker.go()?;
        for _ in 0..teeth {
            worker.numbers()?;
        }
        worker.end()?;
        fs::remove_file(&file)?;
    }
    recorder.interrupt()?;
    let (events, _) = events(&recorder.file)?;
    let samples: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Sample(sample) => Some(sample),
            _ => None,
        })
        .collect();
    let most = samples.iter().map(|sample| sample.usage).max().unwrap_or(0);
    ensure!(most > LIMIT - 4 * MIB, "usage never came near the limit: {most}");
    let falls = samples
        .windows(2)
        .filter(|pair| pair[1].usage + 24 * MIB < pair[0].usage);
    ensure!(falls.count() >= 2, "no saw-tooth");
    let told: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.body, Body::Alert(_)))
        .collect();
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

#[test]
fn an_alert_ends_when_there_is_headroom_again_and_can_come_back() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let options = ["--alert-headroom", "64MiB"];
    let mut recorder = Recorder::start(&group.target(), folder.path().join("r.jsonl.zst"), &options)?;
    for _ in 0..2 {
        let mut worker = Worker::start(STORM, &group, "grow 20")?;
        worker.go()?;
        // Beyond the threshold for longer than it takes to the next sample.
        while worker.numbers()?.1 < 68 * MIB {}
        worker.end()?;
        sleep(Duration::from_secs(8));
    }
    recorder.interrupt()?;
    let (events, _) = events(&recorder.file)?;
    let told: Vec<(AlertKind, bool)> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Alert(alert) => Some((alert.alert, alert.raised)),
            _ => None,
        })
        .collect();
    let once = [(AlertKind::Headroom, true), (AlertKind::Headroom, false)];
    ensure!(told == [once, once].concat(), "{told:?}");
    let over = recorder
        .said
        .iter()
        .filter(|line| line.contains("over: headroom is below 64.0 MiB"));
    ensure!(over.count() == 2, "{:?}", recorder.said);
    Ok(())
}

#[test]
fn a_watcher_keeps_what_led_to_an_alert() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &["--alert-headroom", "48MiB"])?;
    let mut worker = Worker::start(STORM, &group, "grow 20")?;
    worker.go()?;
    while worker.numbers()?.1 < 64 * MIB {}
    watcher.await_line("headroom: incident ")?;
    worker.end()?;
    watcher.interrupt()?;
    let found: Vec<_> = fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
    ensure!(found.len() == 1, "{found:?}");
    let mark: Value = serde_json::from_slice(&fs::read(found[0].path().join("incident.json"))?)?;
    ensure!(mark["trigger"] == "alert", "{mark}");
    let (events, state) = events(&found[0].path().join("recording.jsonl.zst"))?;
    ensure!(state == State::Complete, "{state:?}");
    let raised = events
        .iter()
        .any(|event| matches!(&event.body, Body::Alert(alert) if alert.raised));
    ensure!(raised, "the alert is not in its incident");
    let page = fs::read_to_string(found[0].path().join("report.html"))?;
    ensure!(
        page.contains("less than 48.0 MiB of headroom"),
        "the page does not tell of it"
    );
    Ok(())
}

#[test]
fn a_full_disk_behind_standard_error_stops_no_recording() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount("4k")?;
    let full = disk.path().join("said");
    fs::write(&full, [b'x'; 4096])?;
    let file = folder.path().join("r.jsonl.zst");
    let mut recorder = headroom()?
        .args([
            "record",
            &group.target(),
            "-v",
            "--alert-headroom",
            "80MiB",
            "--duration",
            "12s",
            "-o",
        ])
        .arg(&file)
        .stdout(File::options().append(true).open(&full)?)
        .stderr(File::options().append(true).open(&full)?)
        .spawn()?;
    await_file(&file)?;
    let mut worker = Worker::start(STORM, &group, "grow 20")?;
    worker.go()?;
    while worker.numbers()?.1 < 40 * MIB {}
    let status = recorder.wait()?;
    ensure!(status.success() && fs::metadata(&full)?.len() == 4096, "{status}");
    let (events, state) = events(&file)?;
    ensure!(state == State::Complete, "{state:?}");
    ensure!(
        events.iter().any(|event| matches!(event.body, Body::Alert(_))),
        "no alert"
    );
    Ok(())
}

fn await_file(file: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        ensure!(Instant::now() < deadline, "{} does not come", file.display());
        sleep(Duration::from_millis(20));
    }
    // Attaching follows.
    sleep(Duration::from_secs(1));
    Ok(())
}

#[test]
fn thresholds_that_mean_nothing_are_refused() -> Result<()> {
    for (options, words) in [
        (&["--alert-eta", "0s"][..], "--alert-eta must be more than 0"),
        (&["--alert-headroom", "0"], "--alert-headroom must be more than 0"),
        (&["--alert-rate", "0MiB/s"], "--alert-rate must be more than 0"),
        (&["--on-alert", "true"], "--on-alert needs a threshold"),
    ] {
        for command in ["record", "watch"] {
            let run = Run::headroom([command].iter().chain(options))?;
            run.expect_one_line(2, &[words])?;
        }
    }
    Ok(())
}
