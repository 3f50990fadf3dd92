//! `--on-alert`: what the command is told, and that nothing it does holds up or outlives the tracer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::Body;
use headroom_tests::recording::events;
use headroom_tests::{Memcg, Recorder, Run, Worker};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const LIMIT: u64 = 96 << 20;
/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A command that outlives the tracer has this long left.
const AT_END: Duration = Duration::from_secs(5);

/// A watched group that runs out of headroom, and a command.
struct Case {
    folder: TempDir,
    group: Memcg,
    script: PathBuf,
}

impl Case {
    /// With a shell script that is run at each alert. `$F` is the case's folder in it.
    fn new(script: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let group = Memcg::create()?;
        group.set_limit(LIMIT)?;
        let path = folder.path().join("tell");
        let text = format!("#!/bin/sh\nF='{}'\n{script}\n", folder.path().display());
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            folder,
            group,
            script: path,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Records, and has the group use up its headroom and keep what it has.
    fn record(&self, command: &str, options: &[&str]) -> Result<(Recorder, Worker)> {
        let options = [&["--alert-headroom", "64MiB", "--on-alert", command], options].concat();
        let recorder = Recorder::start(&self.group.target(), self.file("r.jsonl.zst"), &options)?;
        let mut worker = Worker::start(STORM, &self.group, "grow 20")?;
        worker.go()?;
        while worker.numbers()?.1 < 48 << 20 {}
        Ok((recorder, worker))
    }

    /// A file that the command writes, once it is there and holds so many lines.
    fn await_lines(&self, name: &str, lines: usize) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(self.file(name)).unwrap_or_default();
            if text.lines().count() >= lines {
                return Ok(text.lines().map(str::to_owned).collect());
            }
            ensure!(Instant::now() < deadline, "no {lines} lines in {name}: {text}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Fails unless the recording is whole and holds an alert.
    fn expect_whole(&self) -> Result<()> {
        let (events, state) = events(&self.file("r.jsonl.zst"))?;
        ensure!(state == State::Complete, "{state:?}");
        let raised = |body: &Body| matches!(body, Body::Alert(alert) if alert.raised);
        ensure!(events.iter().any(|event| raised(&event.body)), "no alert");
        Ok(())
    }
}

/// Waits until a process has ended; whoever inherited it may not have waited for it.
fn await_dead(pid: &str) -> Result<()> {
    let stat = Path::new("/proc").join(pid).join("stat");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(&stat).unwrap_or_default();
        let state = text.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still there: {text}");
        sleep(Duration::from_millis(20));
    }
}

fn has(recorder: &Recorder, words: &str) -> Result<()> {
    let said = recorder.said.iter().any(|line| line.contains(words));
    ensure!(said, "no '{words}' in {:?}", recorder.said);
    Ok(())
}

#[test]
fn the_command_learns_everything_from_its_environment_and_no_shell_sees_it() -> Result<()> {
    let case = Case::new(
        r#"for a in "$@"; do echo "$a" >> $F/words; done
        env | grep ^HEADROOM_ | sort > $F/env.part; mv $F/env.part $F/env; cat /proc/self/oom_score_adj > $F/score"#,
    )?;
    let command = format!(
        "{} '$(touch {}/touched)' \"a b\" *",
        case.script.display(),
        case.folder.path().display()
    );
    let before = fs::read_to_string("/proc/self/oom_score_adj")?;
    let (mut recorder, _worker) = case.record(&command, &[])?;
    let variables = case.await_lines("env", 14)?;
    let score = case.await_lines("score", 1)?;
    recorder.interrupt()?;
    let value = |name: &str| -> Result<&str> {
        let found = variables
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("no {name} in {variables:?}"))
    };
    let words = case.await_lines("words", 3)?;
    ensure!(
        words[1..] == ["a b", "*"] && words[0].starts_with("$(touch "),
        "{words:?}"
    );
    ensure!(!case.file("touched").exists(), "a shell saw it");
    ensure!(value("HEADROOM_ALERT")? == "headroom");
    ensure!(value("HEADROOM_THRESHOLD")? == "67108864" && value("HEADROOM_LIMIT_BYTES")? == LIMIT.to_string());
    let left: u64 = value("HEADROOM_HEADROOM_BYTES")?.parse()?;
    ensure!(
        left < 64 << 20 && value("HEADROOM_VALUE")? == left.to_string(),
        "{left}"
    );
    let group = case.group.target();
    ensure!(
        value("HEADROOM_CGROUP")? == group.trim_start_matches("cgroup:"),
        "{variables:?}"
    );
    ensure!(value("HEADROOM_CULPRIT")?.contains("storm"), "{variables:?}");
    ensure!(
        value("HEADROOM_MESSAGE")?.contains("headroom is below 64.0 MiB"),
        "{variables:?}"
    );
    let at: jiff::Timestamp = value("HEADROOM_TIME")?.parse()?;
    ensure!(
        jiff::Timestamp::now().duration_since(at).unsigned_abs() < PATIENCE,
        "{at}"
    );
    // The tracer is protected from the OOM killer; what it starts is not.
    ensure!(score == [before.trim()], "{score:?}, not {before}");
    case.expect_whole()
}

#[test]
fn a_command_that_hangs_is_killed_with_its_group_and_never_runs_twice_at_a_time() -> Result<()> {
    let case = Case::new("sleep 600 & echo $$ $! >> $F/pids; wait")?;
    let options = ["--alert-rate", "1MiB/s", "--on-alert-timeout", "6s"];
    let (mut recorder, _worker) = case.record(&case.script.display().to_string(), &options)?;
    let pids = case.await_lines("pids", 1)?;
    recorder.await_line("the command of an alert was killed")?;
    for pid in pids[0].split(' ') {
        await_dead(pid)?;
    }
    // The other alert came while it hung.
    recorder.await_line("another alert came while the command of the one before ran")?;
    recorder.interrupt()?;
    ensure!(case.await_lines("pids", 1)?.len() == 1);
    case.expect_whole()
}

#[test]
fn what_a_command_leaves_running_ends_with_it() -> Result<()> {
    let case = Case::new("sleep 600 & echo $! > $F/pid; exit 3")?;
    let (mut recorder, _worker) = case.record(&case.script.display().to_string(), &[])?;
    recorder.await_line("the command of an alert failed: exit status 3")?;
    await_dead(&case.await_lines("pid", 1)?[0])?;
    recorder.interrupt()?;
    case.expect_whole()
}

#[test]
fn a_hanging_command_does_not_hold_up_the_end() -> Result<()> {
    let case = Case::new("sleep 600 & echo $$ $! > $F/pids; wait")?;
    let options = ["--on-alert-timeout", "10m"];
    let (mut recorder, _worker) = case.record(&case.script.display().to_string(), &options)?;
    let pids = case.await_lines("pids", 1)?;
    let begun = Instant::now();
    recorder.interrupt()?;
    ensure!(
        begun.elapsed() < AT_END + Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    has(&recorder, "the command of an alert was killed")?;
    for pid in pids[0].split(' ') {
        await_dead(pid)?;
    }
    case.expect_whole()
}

#[test]
fn a_killed_tracer_leaves_no_command_behind() -> Result<()> {
    let case = Case::new("echo $$ > $F/pid; exec sleep 600")?;
    let options = ["--on-alert-timeout", "10m"];
    let (mut recorder, _worker) = case.record(&case.script.display().to_string(), &options)?;
    let pid = case.await_lines("pid", 1)?;
    recorder.signal(Signal::SIGKILL)?;
    recorder.wait()?;
    await_dead(&pid[0])
}

#[test]
fn it_has_no_capabilities_unless_headroom_keeps_its_own() -> Result<()> {
    let case = Case::new("grep CapEff /proc/self/status > $F/caps")?;
    let script = case.script.display().to_string();
    let (mut recorder, _worker) = case.record(&script, &[])?;
    ensure!(case.await_lines("caps", 1)? == ["CapEff:\t0000000000000000"]);
    recorder.interrupt()?;
    case.expect_whole()?;
    let case = Case::new("grep CapEff /proc/self/status > $F/caps")?;
    let script = case.script.display().to_string();
    let (mut recorder, _worker) = case.record(&script, &["--keep-privileges"])?;
    let own = fs::read_to_string("/proc/thread-self/status")?;
    let own = own.lines().find(|line| line.starts_with("CapEff"));
    ensure!(case.await_lines("caps", 1)?.first().map(String::as_str) == own);
    recorder.interrupt()
}

#[test]
fn a_shell_runs_it_where_that_is_asked_for() -> Result<()> {
    let case = Case::new("")?;
    let line = format!("echo \"$HEADROOM_ALERT\" | tr a-z A-Z > {}", case.file("out").display());
    let (mut recorder, _worker) = case.record(&line, &["--on-alert-shell"])?;
    ensure!(case.await_lines("out", 1)? == ["HEADROOM"]);
    recorder.interrupt()?;
    case.expect_whole()
}

#[test]
fn a_command_that_is_gone_by_then_is_told_and_nothing_else() -> Result<()> {
    let case = Case::new("exit 0")?;
    let gone = case.file("gone");
    fs::rename(&case.script, &gone)?;
    let options = ["--alert-headroom", "64MiB", "--on-alert", &gone.display().to_string()];
    let mut recorder = Recorder::start(&case.group.target(), case.file("r.jsonl.zst"), &options)?;
    fs::remove_file(&gone)?;
    let mut worker = Worker::start(STORM, &case.group, "grow 20")?;
    worker.go()?;
    while worker.numbers()?.1 < 48 << 20 {}
    recorder.await_line("the command of an alert cannot be run: No such file")?;
    recorder.interrupt()?;
    case.expect_whole()
}

#[test]
fn a_command_that_cannot_run_is_refused_before_anything_is_traced() -> Result<()> {
    for (command, words) in [
        ("no-such-program-here", "no program 'no-such-program-here'"),
        ("/etc/passwd", "no program '/etc/passwd'"),
        ("sh -c 'exit", "quotation mark"),
        (" ", "empty"),
    ] {
        let run = Run::headroom(["record", "--alert-eta", "5m", "--on-alert", command])?;
        run.expect_one_line(2, &["--on-alert", words])?;
    }
    Ok(())
}
