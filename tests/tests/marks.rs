//! Marks, and windows of the day: what a backup cost, and nothing attached when nobody asked for it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::Body;
use headroom_tests::recording::{events, footer};
use headroom_tests::{Memcg, Recorder, Run, Worker, headroom};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// How much usage may differ from what a process touched: batches, page tables, what one step takes.
const SLACK: i64 = 4 << 20;

/// A folder for sockets that no other recorder uses.
fn run_folder(folder: &TempDir) -> Result<PathBuf> {
    let run = folder.path().join("run");
    fs::create_dir(&run)?;
    fs::set_permissions(&run, Permissions::from_mode(0o700))?;
    Ok(run)
}

fn with_run(run: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = headroom()?;
    command.env("HEADROOM_RUN", run).args(arguments);
    Ok(command)
}

fn mark(run: &Path, arguments: &[&str]) -> Result<Run> {
    Run::of(with_run(run, &["mark"])?.args(arguments))
}

fn report(file: &Path, options: &[&str]) -> Result<Value> {
    let file = file.display().to_string();
    let run = Run::headroom(["report", &file, "--json"].iter().chain(options))?;
    ensure!(run.status == Some(0), "{run:?}");
    Ok(serde_json::from_str(&run.stdout)?)
}

/// What a process held at a time, at least and at most.
fn held(steps: &[(u64, u64)], t: u64) -> Result<(i64, i64)> {
    let before = steps.iter().rfind(|(at, _)| *at <= t).map_or(0, |(_, bytes)| *bytes);
    let after = steps.iter().find(|(at, _)| *at >= t).context("it ended too early")?.1;
    Ok((i64::try_from(before)?, i64::try_from(after)?))
}

/// A recording with the marks `backup-begins` and `backup-ends`.
struct Marked {
    file: PathBuf,
    /// What the process that grew held, and when.
    steps: Vec<(u64, u64)>,
    /// When the marks were made.
    begin: u64,
    end: u64,
}

/// Marks a recording of a process that grows, and looks at what is told of that.
fn marked(folder: &TempDir) -> Result<Marked> {
    let run = run_folder(folder)?;
    let group = Memcg::create()?;
    let file = folder.path().join("marks.jsonl.zst");
    let target = group.target();
    let path = file.display().to_string();
    let mut recorder = Recorder::spawn(&mut with_run(&run, &["record", &target, "-o", &path])?, &file)?;
    recorder.await_attached()?;
    let mut worker = Worker::start(STORM, &group, "grow 40")?;
    worker.go()?;
    sleep(Duration::from_millis(1500));
    let told = mark(&run, &["backup-begins"])?;
    ensure!(
        told.status == Some(0) && told.stdout == "marked in 1 recording\n",
        "{told:?}"
    );
    sleep(Duration::from_secs(2));
    let told = mark(&run, &["backup-ends", &target])?;
    ensure!(told.status == Some(0), "{told:?}");
    sleep(Duration::from_secs(1));
    worker.end()?;
    let mut steps = Vec::new();
    while let Ok(step) = worker.numbers() {
        steps.push(step);
    }
    // Another pod's mark is none of this recording's.
    let other = Memcg::named("other")?;
    mark(&run, &["elsewhere", &other.target()])?.expect_one_line(1, &["none of this pod"])?;
    recorder.interrupt()?;
    ensure!(fs::read_dir(&run)?.count() == 0, "a socket is left");
    mark(&run, &["late"])?.expect_one_line(1, &["nothing is recorded"])?;

    let (events, state) = events(&file)?;
    ensure!(state == State::Complete, "{state:?}");
    let marks: Vec<(u64, String, Option<u32>)> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Mark(mark) => Some((event.t, mark.text.clone(), mark.pod)),
            _ => None,
        })
        .collect();
    let [(begin, first, None), (end, second, Some(0))] = marks.as_slice() else {
        anyhow::bail!("{marks:?}");
    };
    ensure!(first == "backup-begins" && second == "backup-ends", "{marks:?}");
    Ok(Marked {
        file,
        steps,
        begin: *begin,
        end: *end,
    })
}

#[test]
fn what_happened_between_two_marks_is_one_command() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let marked = marked(&folder)?;
    let (file, path) = (&marked.file, marked.file.display().to_string());
    let part = report(file, &["--from", "backup-begins", "--to", "backup-ends"])?;
    let pod = &part["pods"][0];
    let (from, to) = (held(&marked.steps, marked.begin)?, held(&marked.steps, marked.end)?);
    let grown = pod["overhead"]["growth"].as_i64().context("growth")?;
    ensure!(
        (to.0 - from.1 - SLACK..=to.1 - from.0 + SLACK).contains(&grown) && grown > 40 << 20,
        "{grown} is not between {} and {}",
        to.0 - from.1,
        to.1 - from.0
    );
    ensure!(pod["culprit"]["process"] == "storm", "{}", pod["culprit"]);
    ensure!(
        pod["culprit"]["bytes"]
            .as_i64()
            .is_some_and(|bytes| (bytes - grown).abs() < SLACK),
        "{pod}"
    );
    let all = report(file, &[])?;
    ensure!(all["pods"][0]["marks"].as_array().map(Vec::len) == Some(2), "{all}");
    ensure!(all["loss"]["disagreements"] == 0, "{}", all["loss"]);
    let rest = report(file, &["--from", "backup-ends"])?;
    ensure!(rest["loss"]["disagreements"] == 0, "{}", rest["loss"]);

    let text = Run::headroom(["report", &path])?.stdout;
    ensure!(
        text.contains(": backup-begins\n") && text.contains(": backup-ends\n"),
        "{text}"
    );
    let page = Run::headroom(["report", &path, "--format", "html"])?.stdout;
    ensure!(
        page.contains(r#""label":"backup-begins""#),
        "the mark is not on the timeline"
    );
    Run::headroom(["report", &path, "--from", "lunch"])?
        .expect_one_line(1, &["no mark 'lunch'", "'backup-begins', 'backup-ends'"])?;
    Ok(())
}

#[test]
fn a_mark_that_says_nothing_or_goes_nowhere_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run_folder(&folder)?;
    mark(&run, &[""])?.expect_one_line(2, &["1 to 256 characters"])?;
    mark(&run, &[&"x".repeat(257)])?.expect_one_line(2, &["257"])?;
    mark(&run, &["x", "pid:4194304"])?.expect_one_line(4, &["4194304"])?;
    mark(&folder.path().join("none"), &["x"])?.expect_one_line(1, &["nothing is recorded"])
}

/// Descriptors of BPF objects and perf events: what a process holds in the kernel while it traces.
fn attached(recorder: &Recorder) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", recorder.pid()))? {
        let leads_to = fs::read_link(entry?.path()).unwrap_or_default();
        let leads_to = leads_to.to_string_lossy();
        count += usize::from(leads_to.contains("bpf") || leads_to.contains("perf_event"));
    }
    Ok(count)
}

/// A window that begins after `wait`, and the time at which it does.
fn window(wait: i64, length: i64) -> Result<(String, Timestamp)> {
    let start = Timestamp::from_second(Timestamp::now().as_second() + wait)?;
    let end = start + SignedDuration::from_secs(length);
    let time = |at: Timestamp| at.strftime("%H:%M:%S").to_string();
    Ok((format!("{}-{},UTC", time(start), time(end)), start))
}

#[test]
fn a_window_is_recorded_from_its_start_to_its_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run_folder(&folder)?;
    let group = Memcg::create()?;
    let file = folder.path().join("night.jsonl.zst");
    let (window, start) = window(25, 8)?;
    let path = file.display().to_string();
    let arguments = ["record", &group.target(), "--window", &window, "-o", &path];
    let mut recorder = Recorder::spawn(&mut with_run(&run, &arguments)?, &file)?;
    recorder.await_line("waiting until")?;
    ensure!(attached(&recorder)? == 0, "something is attached before the window");
    ensure!(Timestamp::now() < start, "this machine is too slow to wait");
    recorder.await_attached()?;
    ensure!(attached(&recorder)? > 5, "nothing is attached in the window");
    ensure!(Timestamp::now() >= start, "attached before the window");
    let status = recorder.wait()?;
    ensure!(status.success(), "{status}: {:?}", recorder.said);
    let late = Timestamp::now().duration_since(start).as_secs();
    ensure!((8..40).contains(&late), "ended {late} s after the start");
    let (events, state) = events(&file)?;
    ensure!(
        state == State::Complete && footer(&events)?.ended == "window over",
        "{state:?}"
    );
    Ok(())
}

#[test]
fn a_recording_begins_at_its_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run_folder(&folder)?;
    let group = Memcg::create()?;
    let file = folder.path().join("at.jsonl.zst");
    let start = Timestamp::from_second(Timestamp::now().as_second() + 20)?;
    let (at, path) = (start.strftime("%H:%M:%S,UTC").to_string(), file.display().to_string());
    let arguments = ["record", &group.target(), "--at", &at, "--duration", "2s", "-o", &path];
    let mut recorder = Recorder::spawn(&mut with_run(&run, &arguments)?, &file)?;
    recorder.await_line("waiting until")?;
    ensure!(attached(&recorder)? == 0, "something is attached before its time");
    ensure!(Timestamp::now() < start, "this machine is too slow to wait");
    recorder.await_attached()?;
    ensure!(Timestamp::now() >= start, "attached before its time");
    ensure!(recorder.wait()?.success(), "{:?}", recorder.said);
    let (_, state) = events(&file)?;
    ensure!(state == State::Complete, "{state:?}");
    Ok(())
}

#[test]
fn watch_leaves_nothing_in_the_kernel_between_windows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run_folder(&folder)?;
    let incidents = folder.path().join("incidents");
    let (window, _) = window(1, 20)?;
    let path = incidents.display().to_string();
    let mut watcher = Recorder::spawn(
        &mut with_run(&run, &["watch", "--window", &window, "-o", &path])?,
        &incidents,
    )?;
    watcher.await_attached()?;
    ensure!(attached(&watcher)? > 5, "nothing is attached in the window");
    watcher.await_line("window over; detached")?;
    watcher.said.retain(|line| !line.contains("waiting until"));
    watcher.await_line("waiting until")?;
    ensure!(attached(&watcher)? == 0, "something is attached behind the window");
    ensure!(fs::read_dir(&run)?.count() == 0, "who could take a mark now?");
    watcher.interrupt()?;
    Ok(())
}

#[test]
fn a_time_that_is_none_is_refused() -> Result<()> {
    for (arguments, words) in [
        (["record", "--window", "22:00"], "22:00-02:00"),
        (["watch", "--window", "22:00-02:00,Mars/Olympus"], "Mars/Olympus"),
        (["record", "--at", "soon"], "soon"),
    ] {
        let run = Run::headroom(arguments)?;
        ensure!(run.status == Some(2) && run.stderr.contains(words), "{run:?}");
    }
    Ok(())
}
