//! What an operator does wrong, or a node refuses: one line that says what and why, and the right exit status.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use headroom_tests::work::{COMM, WORK};
use headroom_tests::{Memcg, Run, Worker, headroom};
use xtask::build::binaries;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// nobody
const UNPRIVILEGED: u32 = 65534;

/// `headroom` run by someone who may do nothing.
fn without_root(arguments: &[&str]) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    // The build may be where nobody else may look.
    let program = folder.path().join("headroom");
    fs::copy(binaries()?.headroom(), &program)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(UNPRIVILEGED)
        .gid(UNPRIVILEGED);
    Run::of(&mut command)
}

#[test]
fn without_root_nothing_is_traced() -> Result<()> {
    let group = Memcg::create()?;
    let record = without_root(&["record", &group.target(), "-o", "/dev/null", "--force"])?;
    record.expect_one_line(3, &["cannot trace here", "root"])?;
    without_root(&["lab"])?.expect_one_line(3, &["root"])
}

#[test]
fn doctor_names_what_is_missing_without_root() -> Result<()> {
    let doctor = without_root(&["doctor"])?;
    ensure!(doctor.status == Some(3), "{doctor:?}");
    ensure!(
        doctor.stdout.contains("root") && !doctor.stdout.contains("tracing      works"),
        "{doctor:?}"
    );
    let json: serde_json::Value = serde_json::from_str(&without_root(&["doctor", "--json"])?.stdout)?;
    ensure!(json.is_object(), "{json}");
    Ok(())
}

#[test]
fn an_unknown_target_is_told_with_what_there_is() -> Result<()> {
    for (target, word) in [
        ("no-such-vm", "no-such-vm"),
        ("nowhere/no-such-vm", "nowhere/no-such-vm"),
        ("cgroup:/no/such/group", "/no/such/group"),
        ("pid:999999999", "999999999"),
    ] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("out");
        let run = Run::of(headroom()?.args(["record", target, "-o"]).arg(&file))?;
        run.expect_one_line(4, &[word])?;
        ensure!(!file.exists(), "a file was made for {target}");
        Run::headroom(["pods", target])?.expect_one_line(4, &[word])?;
    }
    Ok(())
}

#[test]
fn wrong_usage_is_status_2() -> Result<()> {
    for arguments in [
        &["record", "--no-such-flag"][..],
        &["record", "--duration", "soon"],
        &["record", "--granularity", "much"],
        &["record", "--ring", "5000"],
        &["record", "pid:none"],
        &["report"],
        &["report", "--format", "poem", "x"],
        &["no-such-command"],
    ] {
        let run = Run::headroom(arguments)?;
        ensure!(run.status == Some(2), "{arguments:?}: {run:?}");
        ensure!(
            run.stdout.is_empty() && !run.stderr.is_empty(),
            "{arguments:?}: {run:?}"
        );
    }
    Ok(())
}

#[test]
fn output_that_cannot_be_written_is_named() -> Result<()> {
    let group = Memcg::create()?;
    let target = group.target();
    let nowhere = Run::headroom(["record", &target, "-o", "/no/such/folder/out"])?;
    nowhere.expect_one_line(1, &["/no/such/folder/out"])?;

    let folder = tempfile::tempdir()?;
    let taken = folder.path().join("taken");
    fs::write(&taken, "precious")?;
    let taken = taken.display().to_string();
    Run::headroom(["record", &target, "-o", &taken])?.expect_one_line(1, &[&taken, "--force"])?;
    ensure!(fs::read_to_string(&taken)? == "precious", "it was overwritten");
    Ok(())
}

#[test]
fn what_is_no_recording_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    let name = file.display().to_string();
    Run::headroom(["report", &name])?.expect_one_line(1, &[&name, "No such file"])?;
    fs::write(&file, "")?;
    Run::headroom(["report", &name])?.expect_one_line(1, &[&name, "empty"])?;
    fs::write(&file, "something else")?;
    Run::headroom(["report", &name])?.expect_one_line(1, &[&name, "not a headroom recording"])
}

/// A pod decides how its processes are called: no terminal may be made to do anything by it.
#[test]
fn names_with_escape_sequences_reach_no_terminal() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(STORM);
    // A QEMU by its name, with a command line that no QEMU would take.
    command
        .arg0("qemu-system-x86_64")
        .args([
            "-name",
            "guest=\u{1b}[31mred\u{7}",
            "-object",
            "{\"qom-type\":\"memory-backend-ram\",\"size\":",
        ])
        .args([
            "-m",
            "99999999999999999999999T",
            "-smp",
            "\u{1b}]0;title\u{7}",
            "-object",
            ",,,=,id=",
        ])
        .env(WORK, "storm 2 1")
        .env(COMM, hex(&CString::new("\u{1b}[2Jevil\n\u{1b}c")?));
    let mut worker = Worker::of(&mut command, &group)?;
    let file = folder.path().join("hostile.jsonl.zst");
    let mut recorder = headroom_tests::Recorder::start(&group.target(), &file, &[])?;
    worker.go()?;
    worker.numbers()?;

    let file = file.display().to_string();
    let mut runs = vec![
        Run::headroom(["pods", &group.target()])?,
        Run::headroom(["pods", "--json", &group.target()])?,
        Run::headroom([
            "pods",
            "--color",
            "always",
            "--threads",
            &format!("pid:{}", worker.pid()),
        ])?,
    ];
    recorder.interrupt()?;
    worker.end()?;
    runs.push(Run::headroom(["report", &file])?);
    runs.push(Run::headroom(["report", "--json", &file])?);
    ensure!(
        runs[3].stdout.contains("evil"),
        "the thread is not reported: {}",
        runs[3].stdout
    );
    for run in &runs {
        ensure!(run.status == Some(0), "{run:?}");
        // Colours are headroom's own escape sequences; a bell, a title or a cleared screen are not.
        for hostile in ["\u{1b}[2J", "\u{1b}]", "\u{1b}c", "\u{1b}[31mred", "\u{7}", "evil\n"] {
            ensure!(!run.stdout.contains(hostile), "{hostile:?} in {:?}", run.stdout);
            ensure!(!run.stderr.contains(hostile), "{hostile:?} in {:?}", run.stderr);
        }
    }
    ensure!(!runs[0].stdout.contains('\u{1b}'), "{:?}", runs[0].stdout);
    let said = recorder.said.join("\n");
    ensure!(!said.contains('\u{1b}'), "{said:?}");
    Ok(())
}

fn hex(text: &CString) -> String {
    text.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
