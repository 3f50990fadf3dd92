//! `headroom report` on several recordings, of several nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Body;
use headroom::recording::{Overwrite, Writer};
use headroom_tests::{Browser, Run, Screen, recording};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use xtask::paths;

const HOUR: u64 = 3_600_000_000_000;

/// A recording of the lab in which the VM lab/vm1 is killed.
fn memhold() -> PathBuf {
    paths::workspace().join("tests/fixtures/recordings/memhold.jsonl.zst")
}

/// The same VM an hour later on another node.
fn elsewhere(folder: &TempDir) -> Result<PathBuf> {
    let path = folder.path().join("node-2.jsonl.zst");
    let (events, _) = recording::events(&memhold())?;
    let mut writer = Writer::create(&path, Overwrite::Refuse)?;
    for mut event in events {
        if let Body::Header(header) = &mut event.body {
            "node-2".clone_into(&mut header.host);
            header.boot_unix_ns += HOUR;
        }
        writer.push(&event)?;
    }
    writer.finish()?;
    Ok(path)
}

fn report<'a>(files: impl IntoIterator<Item = &'a Path>, options: &[&str]) -> Result<String> {
    let mut arguments = vec!["report".to_owned()];
    arguments.extend(files.into_iter().map(|file| file.display().to_string()));
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    let run = Run::headroom(arguments)?;
    ensure!(run.status == Some(0) && run.stderr.is_empty(), "{run:?}");
    Ok(run.stdout)
}

fn by_role(roles: &Value) -> BTreeMap<&str, i64> {
    let roles = roles.as_array().into_iter().flatten();
    roles
        .filter_map(|role| Some((role["role"].as_str()?, role["overhead_growth"].as_i64()?)))
        .collect()
}

#[test]
fn a_vm_is_one_across_nodes_and_what_was_recorded_twice_counts_once() -> Result<()> {
    let folder = tempdir()?;
    let (here, there) = (memhold(), elsewhere(&folder)?);
    let twice = folder.path().join("again.jsonl.zst");
    fs::copy(&here, &twice)?;
    let merged: Value = serde_json::from_str(&report([&*there, &*here, &*twice], &["--json"])?)?;
    let alone = recording::report(&here)?;
    let pod = &alone["pods"][0];

    ensure!(merged["schema"] == "headroom.merged/1", "{merged}");
    ensure!(
        merged["nodes"] == serde_json::json!(["node-2", "vm"]),
        "{}",
        merged["nodes"]
    );
    ensure!(
        merged["window"]["start"] == alone["window"]["start"],
        "{}",
        merged["window"]
    );
    let vms = merged["vms"].as_array().context("VMs")?;
    ensure!(vms.len() == 1 && vms[0]["vm"] == "vm1", "{vms:?}");
    let stays = vms[0]["stays"].as_array().context("stays")?;
    let order: Vec<(&Value, &Value)> = stays.iter().map(|stay| (&stay["host"], &stay["counted"])).collect();
    ensure!(
        order.len() == 3 && *order[0].0 == "vm" && *order[1].0 == "vm" && *order[2].0 == "node-2",
        "{order:?}"
    );
    ensure!(
        *order[0].1 == true && *order[1].1 == false && *order[2].1 == true,
        "{order:?}"
    );

    let once = by_role(&pod["by_role"]);
    let doubled: BTreeMap<&str, i64> = once.iter().map(|(role, bytes)| (*role, 2 * bytes)).collect();
    ensure!(
        by_role(&vms[0]["by_role"]) == doubled,
        "{} is not twice {once:?}",
        vms[0]["by_role"]
    );
    for field in ["guest_growth", "unexplained"] {
        let expected = pod[field].as_i64().map(|bytes| 2 * bytes);
        ensure!(vms[0][field].as_i64() == expected, "{field}: {}", vms[0][field]);
    }
    ensure!(vms[0]["headroom_min"] == pod["headroom_min"] && vms[0]["usage_peak"] == pod["usage"]["peak"]);
    // Two kills, though three recordings hold one.
    let kills = merged["kills"].as_array().context("kills")?;
    ensure!(kills.len() == 2 && kills[0]["at"] == pod["oom"][0]["at"], "{kills:?}");
    // Each is there in full as well.
    ensure!(merged["recordings"][1] == alone, "a recording alone is told otherwise");
    Ok(())
}

#[test]
fn the_text_begins_with_what_all_say_together() -> Result<()> {
    let folder = tempdir()?;
    let (here, there) = (memhold(), elsewhere(&folder)?);
    let text = report([&*here, &*there], &[])?;
    let first = text.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with("2 recordings of 2 nodes (node-2, vm), ") && first.ends_with(": 1 VM, 2 kills"),
        "{first}"
    );
    let kills: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Kills")
        .skip(2)
        .take_while(|line| !line.is_empty())
        .collect();
    ensure!(
        kills.len() == 2 && kills[0].contains(" vm ") && kills[1].contains("node-2"),
        "{kills:?}"
    );
    ensure!(text.contains("lab/vm1 in 2 recordings: overhead grew "), "{text}");
    ensure!(
        text.matches("the kernel killed qemu-system-x86 at").count() == 2,
        "{text}"
    );
    ensure!(text.matches("Recorded on ").count() == 2, "{text}");
    Ok(())
}

#[test]
fn the_page_leads_from_the_overview_to_each_recording() -> Result<()> {
    let folder = tempdir()?;
    let (here, there) = (memhold(), elsewhere(&folder)?);
    let page = folder.path().join("merged.html");
    let out = page.display().to_string();
    report([&*here, &*there], &["--format", "html", "-o", &out])?;
    let mut browser = Browser::start()?;
    browser.open(&page, Screen::DESKTOP)?;
    browser.wait_for("document.querySelectorAll('canvas').length === 4")?;
    let kills = browser
        .text("[...document.querySelectorAll('table.kills tbody tr')].map(row => row.cells[2].textContent).join()")?;
    ensure!(kills == "vm,node-2", "{kills}");
    let dangling = browser.number(
        "[...document.querySelectorAll('.merged a')].filter(a => !document.querySelector(a.getAttribute('href'))).length",
    )?;
    let links = browser.number("document.querySelectorAll('.merged a').length")?;
    ensure!(
        dangling < 1.0 && links >= 5.0,
        "{dangling} of {links} links lead nowhere"
    );
    let sums = browser.text("document.querySelector('table.sums tbody th').textContent")?;
    ensure!(sums == "other memhold", "{sums}");
    browser.screenshot(&paths::target().join("report/merged.png"))?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    Ok(())
}
