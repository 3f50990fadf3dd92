//! Stacks of charges: which code path grows, by name, and that what they stand for is what was charged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom::recording::event::{Body, Event};
use headroom_tests::readers::pprof;
use headroom_tests::recording::{charge_sums, events, footer, footer_sums};
use headroom_tests::{Memcg, Recorder, Run, Scenario, Worker, recording};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tracer_common::Region;
use xtask::setup;
use xtask::vm::Vm;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const MIB: u64 = 1 << 20;
/// What the stand-in for virtqemud leaks through, and how much of it at least before the kernel kills.
const LEAK: &str = "leak_domain_stats";
const LEAKED: u64 = 100 * MIB;

fn export(file: &Path, format: &str, folder: &TempDir) -> Result<PathBuf> {
    let out = folder.path().join(format);
    let (file, shown) = (file.display().to_string(), out.display().to_string());
    let run = Run::headroom(["export", &file, "--format", format, "-o", &shown])?;
    ensure!(run.status == Some(0), "{run:?}");
    Ok(out)
}

/// The lines of folded stacks: frames, outermost first, and bytes.
fn folded(file: &Path) -> Result<Vec<(Vec<String>, u64)>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().map(|line| {
        let (frames, bytes) = line.rsplit_once(' ').context("a line ends in a number")?;
        Ok((frames.split(';').map(str::to_owned).collect(), bytes.parse()?))
    });
    lines.collect()
}

/// Bytes by what `key` makes of a line's frames, the most first.
fn largest(lines: &[(Vec<String>, u64)], key: impl Fn(&[String]) -> String) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (frames, bytes) in lines {
        *sums.entry(key(frames)).or_default() += bytes;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sums
}

/// The innermost function that is not the kernel's.
fn innermost(frames: &[String]) -> String {
    let user = frames.iter().rev().find(|frame| !frame.ends_with("_[k]"));
    user.cloned().unwrap_or_default()
}

/// The leak is found by the name of its function, in every form.
fn expect_leak(file: &Path) -> Result<()> {
    let folder = tempdir()?;
    let report = recording::report(file)?;
    let pod = &report["pods"][0];
    let (events, _) = events(file)?;
    let leaked = truth_of_samples(&events);
    ensure!(leaked >= LEAKED, "only {leaked} bytes have stacks");

    let path = &pod["by_code_path"]["paths"][0];
    let function = path["user"][0].as_str().unwrap_or_default();
    ensure!(function.ends_with(LEAK), "{}", pod["by_code_path"]["paths"]);
    ensure!(path["process"] == "virtqemud", "{path}");
    let bytes = path["charged"].as_u64().unwrap_or_default();
    ensure!(
        bytes >= LEAKED && bytes * 10 >= leaked * 8,
        "{bytes} of {leaked}: {path}"
    );
    ensure!(
        path["kernel"].as_array().is_some_and(|frames| frames.len() >= 3),
        "the kernel's functions have names, too: {path}"
    );

    let lines = folded(&export(file, "folded", &folder)?)?;
    let top = largest(&lines, innermost);
    ensure!(top.first().is_some_and(|(name, _)| name.ends_with(LEAK)), "{top:?}");
    let (frames, _) = lines.iter().max_by_key(|(_, bytes)| *bytes).context("no line")?;
    ensure!(frames[0] == "lab/vm1" && frames[1].contains("virtqemud"), "{frames:?}");
    ensure!(frames[2] == "rpc-virtqemud", "{frames:?}");
    ensure!(frames.iter().any(|frame| frame.ends_with("_[k]")), "{frames:?}");
    ensure!(
        !lines
            .iter()
            .any(|(frames, _)| frames.iter().any(|frame| frame.starts_with("bpf_prog"))),
        "the probe itself is on no code path"
    );

    let page = std::fs::read_to_string(html(file, &folder)?)?;
    let title = page
        .split("<title>")
        .find(|part| part.contains(LEAK))
        .context("no such frame")?;
    let share = title
        .split_once(" bytes, ")
        .and_then(|(_, rest)| rest.split_once('%'))
        .context("no share")?
        .0;
    ensure!(share.parse::<f64>()? > 80.0, "{share}% of the flame graph");
    Ok(())
}

fn html(file: &Path, folder: &TempDir) -> Result<PathBuf> {
    let out = folder.path().join("report.html");
    let (file, shown) = (file.display().to_string(), out.display().to_string());
    let run = Run::headroom(["report", &file, "--format", "html", "-o", &shown])?;
    ensure!(run.status == Some(0), "{run:?}");
    Ok(out)
}

/// Bytes that have a stack.
fn truth_of_samples(events: &[Event]) -> u64 {
    let charged = events.iter().filter_map(|event| match &event.body {
        Body::StackCharge(charge) => Some(charge.charged),
        _ => None,
    });
    charged.sum()
}

#[test]
fn a_leak_is_found_by_the_name_of_its_function() -> Result<()> {
    let kept = tempdir()?;
    let folder = kept.path().join("leak");
    let shown = folder.display().to_string();
    let run = Run::headroom(["lab", "daemon-leak", "--stacks", "--json", "--keep", &shown])?;
    Scenario::read("daemon-leak", &run.stdout, &run.stderr)?.expect_truth()?;
    let file = folder.join("recording.jsonl.zst");
    expect_leak(&file)?;
    expect_weights(&events(&file)?.0, 64 << 10)?;
    expect_pprof(&export(&file, "pprof", &kept)?)
}

/// What Go's own pprof says of the profile: the leak stands above every function that is not the kernel's.
fn expect_pprof(profile: &Path) -> Result<()> {
    let options = ["-sample_index=charged", "-top", "-cum", "-unit=MB", "-nodecount=200"];
    let said = pprof(&options, profile)?;
    ensure!(said.contains("Type: charged"), "{said}");
    // flat flat% sum% cum cum% name
    let rows: Vec<Vec<&str>> = said
        .lines()
        .skip_while(|line| !line.contains("flat%"))
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let leak = rows
        .iter()
        .find(|row| row.last().is_some_and(|name| name.ends_with(LEAK)));
    let leak = leak.with_context(|| format!("no {LEAK}: {said}"))?;
    let bytes: f64 = leak
        .get(3)
        .and_then(|cum| cum.strip_suffix("MB"))
        .context("in MB")?
        .parse()?;
    ensure!(bytes * MIB as f64 >= LEAKED as f64, "{said}");
    let share: f64 = leak
        .get(4)
        .and_then(|share| share.strip_suffix('%'))
        .context("a share")?
        .parse()?;
    ensure!(share > 80.0, "{said}");
    let said = pprof(&["-tags"], profile)?;
    for wanted in ["pod:", "lab/vm1", "role:", "thread:", "rpc-virtqemud", "kind:", "anon"] {
        ensure!(said.contains(wanted), "no {wanted}: {said}");
    }
    Ok(())
}

/// By account: what it was charged, and what its stacks stand for. Of kinds that nothing moves to or from.
fn weights(events: &[Event]) -> BTreeMap<(u64, u32, u64, &'static str), (u64, u64)> {
    let mut accounts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for event in events {
        match &event.body {
            Body::Charge(charge) if charge.region == Region::Overhead => {
                let key = (charge.memcg, charge.tid, charge.start_ns, charge.kind.as_str());
                accounts.entry(key).or_default().0 += charge.charged;
            }
            Body::StackCharge(charge) => {
                let key = (charge.memcg, charge.tid, charge.start_ns, charge.kind.as_str());
                accounts.entry(key).or_default().1 += charge.charged;
            }
            _ => {}
        }
    }
    accounts.retain(|(.., kind), _| *kind == "anon");
    accounts
}

/// Over every account, stacks stand for what was charged, within one step.
fn expect_weights(events: &[Event], granularity: u64) -> Result<()> {
    let accounts = weights(events);
    for (account, (charged, sampled)) in &accounts {
        ensure!(
            charged.abs_diff(*sampled) <= granularity,
            "{account:?} was charged {charged}, its stacks stand for {sampled}"
        );
    }
    let large = accounts
        .values()
        .filter(|(charged, _)| *charged > 10 * granularity)
        .count();
    ensure!(large > 0, "nothing was charged: {accounts:?}");
    Ok(())
}

/// Records eight threads that charge as fast as they can, with these rings.
fn storm(options: &[&str]) -> Result<Vec<Event>> {
    let group = Memcg::create()?;
    let folder = tempdir()?;
    let mut worker = Worker::start(STORM, &group, "storm 8 3")?;
    let file = folder.path().join("storm.jsonl.zst");
    let mut recorder = Recorder::start(&group.target(), file, options)?;
    worker.go()?;
    worker.numbers()?;
    recorder.interrupt()?;
    let (events, state) = events(&recorder.file)?;
    ensure!(state == State::Complete, "the recording is {state:?}");
    let footer = footer(&events)?;
    ensure!(
        charge_sums(&events) == footer_sums(footer),
        "records and maps differ: {footer:?}"
    );
    ensure!(footer.loss.lost_bytes == 0, "lost: {:?}", footer.loss);
    Ok(events)
}

#[test]
fn stacks_of_a_storm_stand_for_every_byte_that_was_charged() -> Result<()> {
    let events = storm(&["--stacks", "--stack-ring", "64MiB"])?;
    let loss = footer(&events)?.loss;
    ensure!(loss.stacks_dropped == 0 && loss.stacks_unknown == 0, "{loss:?}");
    expect_weights(&events, 64 << 10)?;
    let mut defined = Vec::new();
    for event in &events {
        match &event.body {
            Body::Stack(stack) => defined.push(stack.stack),
            Body::StackCharge(charge) => ensure!(defined.contains(&charge.stack), "{charge:?} before its stack"),
            _ => {}
        }
    }
    println!("{} stacks stand for {} bytes", defined.len(), truth_of_samples(&events));
    Ok(())
}

#[test]
fn stacks_that_do_not_fit_are_counted_and_cost_no_byte() -> Result<()> {
    let events = storm(&["--stacks", "--stack-ring", "4KiB", "--granularity", "4KiB"])?;
    let loss = footer(&events)?.loss;
    ensure!(loss.stacks_dropped > 1000, "{loss:?}");
    for (account, (charged, sampled)) in weights(&events) {
        ensure!(
            sampled <= charged + 4096,
            "{account:?} was charged {charged}, its stacks stand for {sampled}"
        );
    }
    println!("{loss:?}");
    Ok(())
}

#[test]
fn without_stacks_nothing_is_said_of_them() -> Result<()> {
    let folder = tempdir()?;
    let group = Memcg::create()?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("plain.jsonl.zst"), &[])?;
    let mut worker = Worker::start(STORM, &group, "storm 1 1")?;
    worker.go()?;
    worker.wait()?;
    recorder.interrupt()?;
    let (events, _) = events(&recorder.file)?;
    let stacks = |event: &&Event| matches!(event.body, Body::Stack(_) | Body::Frame(_) | Body::StackCharge(_));
    ensure!(events.iter().find(stacks).is_none(), "not asked for");
    let report: Value = recording::report(&recorder.file)?;
    ensure!(report["pods"][0].get("by_code_path").is_none(), "{report}");
    let page = std::fs::read_to_string(html(&recorder.file, &folder)?)?;
    ensure!(!page.contains("Code paths"), "an empty section");
    ensure!(std::fs::read_to_string(export(&recorder.file, "folded", &folder)?)?.is_empty());
    Ok(())
}

#[test]
fn a_leak_counted_by_function_probes_is_found_by_name() -> Result<()> {
    let run = Vm::new("stacks")
        .kernel("6.12")
        .timeout(Duration::from_secs(420))
        .command([
            "/bin/headroom",
            "lab",
            "daemon-leak",
            "--stacks",
            "--json",
            "--keep",
            "/tmp/leak",
        ])
        .command([
            "/bin/headroom",
            "export",
            "/tmp/leak/recording.jsonl.zst",
            "--format",
            "jsonl",
            "-o",
            "/results/leak",
        ])
        .boot()?;
    run.expect_success()?;
    let scenario = Scenario::read("daemon-leak", &run.commands[0].stdout(), &run.commands[0].stderr())?;
    scenario.expect_truth()?;
    let backend = &scenario.report()["backends"]["place_anon"];
    ensure!(
        backend.as_str().is_some_and(|backend| backend.starts_with("fentry")),
        "{backend}"
    );
    let folder = tempdir()?;
    let file = folder.path().join("leak.jsonl.zst");
    std::fs::write(&file, packed(run.file("leak"))?)?;
    expect_leak(&file)?;
    expect_weights(&events(&file)?.0, 64 << 10)
}

/// Lines as a recording's frame, by zstd itself.
fn packed(lines: PathBuf) -> Result<Vec<u8>> {
    setup::observers()?;
    let output = Command::new("zstd").args(["-qc"]).arg(lines).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(output.stdout)
}
