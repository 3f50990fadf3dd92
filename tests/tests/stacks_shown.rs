//! Stacks in pages and exports, whatever their functions are called.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::{Body, Event, Frame, Stack, StackCharge};
use headroom::recording::{Overwrite, Writer};
use headroom_tests::readers::pprof;
use headroom_tests::{Browser, Run, Screen, recording};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tracer_common::{Kind, Region};
use xtask::paths;

const MIB: u64 = 1 << 20;
/// A name that wants to be markup, to end its line or its frame, and to act on a terminal.
const HOSTILE: &str = "</title></svg><script>window.owned=1</script>\"'; 7\n{{7*7}}\u{1b}[31m\u{202e}";
/// How it is shown, and in folded stacks, where a semicolon ends a frame.
const SHOWN: &str = "</title></svg><script>window.owned=1</script>\"'; 7\\n{{7*7}}\\x1b[31m\\u{202e}";

/// A recording of the lab with stacks added: of one thread, from a leak and from a function with a hostile name.
fn recorded(folder: &TempDir) -> Result<PathBuf> {
    let fixture = paths::workspace().join("tests/fixtures/recordings/memhold.jsonl.zst");
    let (mut events, _) = recording::events(&fixture)?;
    let charge = events.iter().rev().find_map(|event| match &event.body {
        Body::Charge(charge) if charge.region == Region::Overhead && charge.kind == Kind::Anon => Some(charge.clone()),
        _ => None,
    });
    let charge = charge.context("somebody was charged")?;
    let samples = events
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event.body, Body::Sample(_)));
    let (at, t) = samples
        .map(|(at, event)| (at, event.t))
        .nth(6)
        .context("seven samples")?;
    let frame = |frame, symbol: Option<&str>, module: &str| {
        Body::Frame(Frame {
            frame,
            symbol: symbol.map(str::to_owned),
            module: module.to_owned(),
            build_id: Some("c0ffee".repeat(6)),
            offset: symbol.is_none().then_some(0x1f00),
        })
    };
    let stack = |stack, user: &[u32]| {
        Body::Stack(Stack {
            stack,
            user: user.to_vec(),
            kernel: vec![9],
        })
    };
    let charged = |stack, bytes, region| {
        Body::StackCharge(StackCharge {
            memcg: charge.memcg,
            tid: charge.tid,
            start_ns: charge.start_ns,
            kind: Kind::Anon,
            region,
            stack,
            charged: bytes,
            samples: bytes >> 16,
        })
    };
    let added = [
        frame(1, Some("leak_domain_stats"), "/usr/sbin/virtqemud"),
        frame(2, Some("main"), "/usr/sbin/virtqemud"),
        frame(3, Some(HOSTILE), HOSTILE),
        frame(4, None, "/usr/lib/libc.so.6"),
        frame(9, Some("do_anonymous_page"), "kernel"),
        stack(1, &[1, 2]),
        stack(2, &[3, 2]),
        stack(3, &[4, 2]),
        charged(1, 90 * MIB, Region::Overhead),
        charged(2, 6 * MIB, Region::Overhead),
        charged(3, 4 * MIB, Region::Overhead),
        // No tracer samples guest RAM; a reader leaves it out all the same.
        charged(2, 900 * MIB, Region::Guest),
    ];
    events.splice(at..at, added.map(|body| Event { t, body }));
    let file = folder.path().join("stacks.jsonl.zst");
    let mut writer = Writer::create(&file, Overwrite::Refuse)?;
    events.iter().try_for_each(|event| writer.push(event))?;
    writer.finish()?;
    Ok(file)
}

fn export(file: &Path, format: &str, folder: &TempDir) -> Result<PathBuf> {
    let out = folder.path().join(format);
    let (file, shown) = (file.display().to_string(), out.display().to_string());
    let run = Run::headroom(["export", &file, "--format", format, "-o", &shown])?;
    ensure!(run.status == Some(0), "{run:?}");
    Ok(out)
}

#[test]
fn the_page_draws_a_flame_graph_that_runs_nothing() -> Result<()> {
    let folder = tempdir()?;
    let file = recorded(&folder)?;
    let page = folder.path().join("report.html");
    let (file, out) = (file.display().to_string(), page.display().to_string());
    let run = Run::headroom(["report", &file, "--format", "html", "-o", &out])?;
    ensure!(run.status == Some(0), "{run:?}");
    let mut browser = Browser::start()?;
    for screen in [Screen::DESKTOP, Screen::PHONE] {
        browser.open(&page, screen)?;
        browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
        let frame = |name: &str| {
            format!(
                "[...document.querySelectorAll('svg.flame g')].find(g => g.querySelector('title').textContent.startsWith({name:?}))"
            )
        };
        let wide = |name: &str| format!("{}.querySelector('rect').getBoundingClientRect().width", frame(name));
        let (leak, all) = (
            browser.number(&wide("leak_domain_stats ("))?,
            browser.number(&wide("all ("))?,
        );
        ensure!(all > 500.0 && (leak / all - 0.9).abs() < 0.01, "{leak} of {all}");
        let y = |name: &str| format!("{}.querySelector('rect').getBoundingClientRect().y", frame(name));
        ensure!(
            browser.number(&y("leak_domain_stats ("))? < browser.number(&y("main ("))?,
            "it stands on its caller"
        );
        let title = browser.text(&format!("{}.querySelector('title').textContent", frame("</title>")))?;
        ensure!(title.starts_with(&SHOWN.replace(';', ":")), "{title}");
        ensure!(
            title.contains("6,291,456 bytes, 6.00%"),
            "guest RAM is left out: {title}"
        );
        ensure!(
            browser.evaluate("window.owned === undefined")? == Value::Bool(true),
            "a name ran"
        );
        let table = browser.text("document.querySelector('td.path').closest('table').textContent")?;
        for wanted in [
            "90.0 MiB",
            "leak_domain_stats",
            SHOWN,
            "libc.so.6+0x1f00 [c0ffeec0ffee]",
        ] {
            ensure!(table.contains(wanted), "no {wanted}: {table}");
        }
        let width = browser.number("document.documentElement.scrollWidth")?;
        ensure!(width <= f64::from(screen.width), "{width} pixels");
        ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    }
    let picture = paths::target().join("report");
    fs::create_dir_all(&picture)?;
    browser.open(&page, Screen::DESKTOP)?;
    browser.screenshot(&picture.join("stacks.png"))?;
    Ok(())
}

#[test]
fn text_names_the_function_that_grew() -> Result<()> {
    let folder = tempdir()?;
    let file = recorded(&folder)?.display().to_string();
    let run = Run::headroom(["report", &file])?;
    let row = run.stdout.lines().find(|line| line.contains("leak_domain_stats"));
    let row = row.with_context(|| run.stdout.clone())?;
    ensure!(row.contains("90.0 MiB") && row.contains("main"), "{row}");
    ensure!(
        run.stdout.contains(SHOWN) && !run.stdout.contains('\u{1b}'),
        "{}",
        run.stdout
    );
    Ok(())
}

#[test]
fn folded_stacks_are_a_line_each_whatever_names_say() -> Result<()> {
    let folder = tempdir()?;
    let file = recorded(&folder)?;
    let text = fs::read_to_string(export(&file, "folded", &folder)?)?;
    ensure!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 3, "{lines:?}");
    let mut sum = 0;
    for line in lines {
        let (frames, bytes) = line.rsplit_once(' ').context("bytes")?;
        sum += bytes.parse::<u64>()?;
        let frames: Vec<&str> = frames.split(';').collect();
        ensure!(
            frames.len() == 6,
            "pod, role, thread, two functions, and the kernel's: {frames:?}"
        );
        ensure!(
            frames[0] == "lab/vm1" && frames[3] == "main" && frames[5] == "do_anonymous_page_[k]",
            "{frames:?}"
        );
    }
    ensure!(sum == 100 * MIB, "{sum}");
    ensure!(text.contains(&SHOWN.replace(';', ":")), "{text}");
    Ok(())
}

#[test]
fn go_reads_the_profile_whatever_names_say() -> Result<()> {
    let folder = tempdir()?;
    let file = recorded(&folder)?;
    let said = pprof(&["-top", "-cum", "-unit=MB"], &export(&file, "pprof", &folder)?)?;
    let row = |name: &str| {
        said.lines()
            .find(|line| line.contains(name))
            .with_context(|| format!("no {name}: {said}"))
    };
    ensure!(
        row("leak_domain_stats")?.contains("90MB") && row("leak_domain_stats")?.contains("90.00%"),
        "{said}"
    );
    ensure!(row("window.owned")?.contains("6MB"), "{said}");
    ensure!(row("main")?.contains("100MB"), "{said}");
    ensure!(!said.contains('\u{1b}'), "{said}");
    Ok(())
}
