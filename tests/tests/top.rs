//! `headroom top`, driven in a terminal: keys in, screen out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Event;
use headroom::recording::{Overwrite, Writer};
use headroom_tests::{Memcg, Run, Tmux, Worker};
use xtask::{build, paths};

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const PANICS: &str = env!("CARGO_BIN_EXE_panics");
/// Status of the shell behind `top`, printed once that has ended.
const ENDED: &str = "ended with";

/// A recording made in the lab, with a machine of hostile names added.
fn recording(folder: &Path) -> Result<PathBuf> {
    let fixture = paths::workspace().join("tests/fixtures/top/node.jsonl");
    let path = folder.join("node.jsonl.zst");
    let mut writer = Writer::create(&path, Overwrite::Refuse)?;
    for line in fs::read_to_string(fixture)?.lines() {
        writer.push(&serde_json::from_str::<Event>(line)?)?;
    }
    writer.finish()?;
    Ok(path)
}

/// `headroom top` in a terminal of its own, below a shell that says how it ended.
fn top(size: (u16, u16), environment: &str, arguments: &str) -> Result<Tmux> {
    let headroom = build::binaries()?.headroom();
    let command = format!(
        "env -u RUST_LOG {environment} {} top {arguments}; echo {ENDED} $?; sleep 600",
        headroom.display()
    );
    Tmux::open(size, &command)
}

/// The first line of the screen that contains a text.
fn line<'a>(screen: &'a str, text: &str) -> Result<&'a str> {
    screen
        .lines()
        .find(|line| line.contains(text))
        .with_context(|| format!("no '{text}' in\n{screen}"))
}

/// Whether a recording is shown at a time, all read up to there.
fn shows(screen: &str, time: &str) -> bool {
    screen.contains(time) && !screen.contains("reading ")
}

#[test]
fn a_recording_is_played_with_keys() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = recording(folder.path())?;
    let top = top((80, 24), "LC_ALL=C.UTF-8", &file.display().to_string())?;
    // It stands at the end, after the kill.
    let end = top.wait_for("killed")?;
    ensure!(line(&end, "lab/vm1")?.contains("memhold"), "{end}");
    ensure!(line(&end, "headroom top")?.contains("05:00:3"), "{end}");
    ensure!(
        end.contains('x') && line(&end, "] 0:3")?.contains('|'),
        "no timeline:\n{end}"
    );
    ensure!(top.value("alternate_on")? == "1", "it uses the other screen");

    top.press(&["Home"])?;
    let start = top.wait("the start", |screen| {
        shows(screen, "05:00:00") && !screen.contains("killed")
    })?;
    ensure!(start.contains("0:00 [|"), "{start}");
    top.press(&["Right", "Right", "Right", "Right"])?;
    let later = top.wait("20 s later", |screen| shows(screen, "05:00:20 UTC"))?;
    insta::assert_snapshot!("pods_of_a_recording_at_20_s", later);

    top.press(&["s", "s", "s", "/"])?;
    top.press(&["-l", "lab"])?;
    top.press(&["Enter"])?;
    let filtered = top.wait_for("filter:lab")?;
    ensure!(!filtered.contains("default/quiet"), "{filtered}");
    top.press(&["s", "Enter"])?;
    top.wait_for("CGROUP, PROCESS, THREAD")?;
    top.press(&["Escape"])?;
    let tree = top.wait("the whole tree", |screen| screen.contains("virtlogd"))?;
    insta::assert_snapshot!("tree_of_a_recording_at_20_s", tree);

    top.press(&["Tab", "Tab"])?;
    top.wait("threads", |screen| {
        screen.lines().any(|line| line.starts_with("THREAD"))
    })?;
    top.press(&["?"])?;
    top.wait_for("closes the help")?;
    top.press(&["Escape", "Space"])?;
    top.wait("time passing", |screen| {
        !screen.contains("PAUSED") && screen.contains("05:00:2")
    })?;
    top.press(&["q"])?;
    top.wait_for(&format!("{ENDED} 0"))?;
    ensure!(
        top.value("alternate_on")? == "0" && top.value("cursor_flag")? == "1",
        "the terminal was not given back"
    );
    Ok(())
}

#[test]
fn another_size_is_drawn_anew_and_a_bare_console_gets_ascii_without_colour() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = recording(folder.path())?;
    let top = top((80, 24), "-u LANG LC_ALL=C NO_COLOR=1", &file.display().to_string())?;
    let screen = top.wait_for("killed")?;
    ensure!(screen.is_ascii(), "{screen}");
    // Reverse and bold are no colours.
    let colored = top.colored_screen()?;
    let colors =
        (31..38).any(|color| colored.contains(&format!("[{color}m")) || colored.contains(&format!(";{color}m")));
    ensure!(!colors, "{colored:?}");
    top.resize((120, 30))?;
    let wide = top.wait("a wide screen", |screen| {
        screen
            .lines()
            .next_back()
            .is_some_and(|last| last.starts_with("q quit"))
            && screen.lines().count() == 30
    })?;
    ensure!(line(&wide, "lab/vm1")?.len() > 80, "{wide}");
    top.resize((40, 10))?;
    top.wait("a narrow screen", |screen| {
        screen.lines().count() == 10
            && screen
                .lines()
                .next_back()
                .is_some_and(|last| last.starts_with("q quit"))
    })?;
    top.resize((10, 3))?;
    top.wait_for("too small")?;
    top.resize((80, 24))?;
    top.wait_for("killed").map(drop)
}

#[test]
fn a_signal_gives_the_terminal_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = recording(folder.path())?;
    for signal in ["TERM", "HUP", "INT"] {
        let headroom = build::binaries()?.headroom();
        let command = format!(
            "sh -c 'echo $$ > {pid}; exec {} top {}'; echo {ENDED} $?; stty -a; sleep 600",
            headroom.display(),
            file.display(),
            pid = folder.path().join("pid").display(),
        );
        let top = Tmux::open((80, 24), &command)?;
        top.wait_for("killed")?;
        let pid = fs::read_to_string(folder.path().join("pid"))?;
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse()?);
        nix::sys::signal::kill(pid, format!("SIG{signal}").parse::<nix::sys::signal::Signal>()?)?;
        let after = top.wait(" icanon", |screen| screen.contains(" icanon"))?;
        ensure!(
            after.contains(&format!("{ENDED} 0")) && !after.contains("-echo "),
            "{signal}: {after}"
        );
        ensure!(
            top.value("alternate_on")? == "0" && top.value("cursor_flag")? == "1",
            "{signal}"
        );
    }
    Ok(())
}

#[test]
fn a_panic_gives_the_terminal_back_and_can_be_read() -> Result<()> {
    let top = Tmux::open(
        (80, 24),
        &format!("RUST_BACKTRACE=0 {PANICS}; echo {ENDED} $?; stty -a; sleep 600"),
    )?;
    let after = top.wait(" icanon", |screen| screen.contains(" icanon"))?;
    ensure!(
        after.contains("nothing to draw") && after.contains(&format!("{ENDED} 101")) && !after.contains("-echo "),
        "{after}"
    );
    ensure!(top.value("alternate_on")? == "0" && top.value("cursor_flag")? == "1");
    Ok(())
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = recording(folder.path())?;
    let top = Tmux::open((80, 24), "PS1='shell> ' sh -i")?;
    top.wait_for("shell>")?;
    let headroom = build::binaries()?.headroom();
    top.press(&["-l", &format!("{} top {}", headroom.display(), file.display())])?;
    top.press(&["Enter"])?;
    top.wait_for("GREW MOST")?;
    top.press(&["C-z"])?;
    top.wait("the shell", |screen| {
        screen.contains("topped") && !screen.contains("GREW MOST")
    })?;
    top.press(&["-l", "fg"])?;
    top.press(&["Enter"])?;
    let back = top.wait_for("GREW MOST")?;
    ensure!(back.contains("killed") && !back.contains("shell>"), "{back}");
    top.press(&["q"])?;
    top.wait_for("shell>").map(drop)
}

#[test]
fn without_a_terminal_or_a_recording_it_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = recording(folder.path())?.display().to_string();
    Run::headroom(["top", &file])?.expect_one_line(1, &["needs a terminal", "headroom report"])?;
    let bytes = fs::read(&file)?;
    let damaged = folder.path().join("damaged.jsonl.zst");
    let mut flipped = bytes.clone();
    if let Some(byte) = flipped.get_mut(bytes.len() * 3 / 4) {
        *byte ^= 0x10;
    }
    fs::write(&damaged, flipped)?;
    let top = top((80, 24), "LC_ALL=C.UTF-8", &damaged.display().to_string())?;
    top.wait_for("DAMAGED")?;
    top.press(&["q"])?;
    let end = top.wait_for(&format!("{ENDED} 5"))?;
    ensure!(end.contains("damaged, what could be read was shown"), "{end}");
    Ok(())
}

/// A size on the screen, as in `12.5 MiB`, bytes.
fn size(text: &str) -> Result<f64> {
    let mut words = text.split_whitespace();
    let number: f64 = words.next().context("no number")?.trim_start_matches('+').parse()?;
    let shift = match words.next() {
        Some("B") => 0,
        Some("KiB") => 10,
        Some("MiB") => 20,
        Some("GiB") => 30,
        other => anyhow::bail!("{other:?} is no unit"),
    };
    Ok(number * f64::from(1 << shift))
}

/// What grows in a cgroup shows while it grows, as the kernel and the one who grows see it.
#[test]
fn a_cgroup_is_watched_live() -> Result<()> {
    const MIB: f64 = 1_048_576.0;
    let group = Memcg::create()?;
    group.limit(640 << 20)?;
    let mut worker = Worker::start(STORM, &group, "grow 20")?;
    let top = top(
        (100, 24),
        "LC_ALL=C.UTF-8",
        &format!("{} --interval 200ms", group.target()),
    )?;
    let name = group.target().trim_start_matches("cgroup:/").to_owned();
    top.wait_for(&name)?;
    worker.go()?;
    // Ten seconds of even growth: a rate, and a forecast.
    let mut held = 0;
    for _ in 0..240 {
        held = worker.numbers()?.1;
    }
    let screen = top.wait("growth and a forecast", |screen| {
        line(screen, &name).is_ok_and(|row| row.contains("MiB/s") && row.contains("storm") && row.contains(" s "))
    })?;
    let row = line(&screen, &name)?;
    let rate = row
        .split("/s")
        .next()
        .and_then(|before| before.rsplit("  ").next())
        .context("no rate")?;
    ensure!(
        (size(rate)? / MIB - 20.0).abs() < 4.0,
        "20 MiB/s are shown as {rate}: {row}"
    );
    let headroom = row.split('%').nth(1).context("no headroom")?;
    // It grew on since the screen was taken.
    let left = (640 << 20) - group.usage()?;
    ensure!(
        (size(headroom)? - left as f64).abs() < 60.0 * MIB,
        "{left} B of headroom are shown as {row}"
    );

    top.press(&["Enter"])?;
    let process = format!("{} storm", worker.pid());
    let tree = top.wait_for(&process)?;
    let row = line(&tree, &process)?;
    let growth = row.split_once('+').context("no growth")?.1;
    let seen = size(growth)?;
    ensure!(
        seen > held as f64 * 0.9 && seen < held as f64 + 100.0 * MIB,
        "{held} B are shown as {row}"
    );
    ensure!(row.trim_end().ends_with("other"), "{row}");
    ensure!(line(&tree, "own cpu")?.contains("rss"), "{tree}");

    top.press(&["Space"])?;
    let paused = top.wait_for("PAUSED")?;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    ensure!(
        line(&top.screen()?, &process)? == line(&paused, &process)?,
        "what is paused moved"
    );
    top.press(&["Space"])?;
    top.wait("it going on", |screen| {
        line(screen, &process)
            .is_ok_and(|row| row.split_once('+').and_then(|(_, growth)| size(growth).ok()) > Some(seen))
    })?;
    worker.end()?;
    group.remove()?;
    top.wait_for("not there")?;
    top.press(&["q"])?;
    top.wait_for(&format!("{ENDED} 0")).map(drop)
}
