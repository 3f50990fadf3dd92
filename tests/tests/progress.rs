//! Long work says on a terminal how far it is, and nowhere else.

use anyhow::{Result, ensure};
use headroom_tests::{Run, Tmux, headroom, simulate};
use tempfile::tempdir;

/// Runs `headroom` in a window that stays open behind it.
fn window(arguments: &str) -> Result<Tmux> {
    let program = headroom()?.get_program().display().to_string();
    Tmux::open(
        (100, 20),
        &format!("'{program}' {arguments}; echo ended $?; sleep 1000"),
    )
}

#[test]
fn reading_a_large_recording_shows_a_bar() -> Result<()> {
    let folder = tempdir()?;
    let path = folder.path().join("busy.jsonl.zst");
    simulate::write(&path, 1)?;
    let out = folder.path().join("out").display().to_string();
    let file = path.display().to_string();
    for command in [
        format!("report '{file}' -o '{out}'"),
        format!("export '{file}' --format csv --interval 1m -o '{out}' --force"),
    ] {
        let terminal = window(&command)?;
        terminal.wait("how much is read", |screen| {
            screen.contains("busy.jsonl.zst: ") && screen.contains(" MiB of ") && screen.contains("%, ")
        })?;
        let screen = terminal.wait_for("ended 0")?;
        ensure!(!screen.contains("MiB of"), "the bar stays: {screen}");
    }
    let run = Run::headroom([
        "export",
        &file,
        "--format",
        "csv",
        "--interval",
        "1m",
        "-o",
        &out,
        "--force",
    ])?;
    ensure!(run.status == Some(0) && run.stderr.is_empty(), "{run:?}");
    Ok(())
}

#[test]
fn the_lab_says_what_it_is_doing() -> Result<()> {
    let terminal = window("lab guest-only --no-trace")?;
    terminal.wait_for("playing the scenario: usage ")?;
    let screen = terminal.wait_for("ended ")?;
    ensure!(!screen.contains("playing"), "the line stays: {screen}");
    Ok(())
}
