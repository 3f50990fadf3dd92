//! `headroom export`, read by what other projects read such files with, and compared with the report.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Body;
use headroom::recording::{Overwrite, Writer};
use headroom::role::Role;
use headroom_tests::{Run, readers, recording};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use xtask::paths;

/// A recording of the lab, made on Linux 6.18 by the tracepoint backend.
fn fixture(name: &str) -> PathBuf {
    paths::workspace()
        .join("tests/fixtures/recordings")
        .join(format!("{name}.jsonl.zst"))
}

fn export(file: &Path, format: &str, folder: &TempDir) -> Result<PathBuf> {
    let out = folder.path().join(format);
    let (file, out) = (file.display().to_string(), out.display().to_string());
    let run = Run::headroom(["export", &file, "--format", format, "-o", &out])?;
    let silent = run.stdout.is_empty() && run.stderr.is_empty();
    ensure!(run.status == Some(0) && silent, "{run:?}");
    Ok(PathBuf::from(out))
}

/// Growth of overhead by role, as the report has it.
fn reported_growth(pod: &Value) -> BTreeMap<String, i64> {
    let by_role = pod["by_role"].as_array().into_iter().flatten();
    by_role
        .filter_map(|role| Some((role["role"].as_str()?.to_owned(), role["overhead_growth"].as_i64()?)))
        .collect()
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

#[test]
fn csv_ends_with_the_figures_of_the_report() -> Result<()> {
    for name in ["memhold", "backup-io"] {
        let folder = tempdir()?;
        let rows = readers::read("rows.py", &export(&fixture(name), "csv", &folder)?)?;
        let report = recording::report(&fixture(name))?;
        let pod = &report["pods"][0];
        let end = text(&pod["window"], "end");
        let at_end = |measure: &str| -> Vec<&Value> {
            let wanted = |row: &&Value| text(row, "measure") == measure && text(row, "time") == end;
            rows.iter().filter(wanted).collect()
        };
        let mut growth: BTreeMap<String, i64> = BTreeMap::new();
        for row in at_end("overhead_growth") {
            *growth.entry(text(row, "role").to_owned()).or_default() += text(row, "bytes").parse::<i64>()?;
        }
        ensure!(growth == reported_growth(pod), "{growth:?} is not {:?}", pod["by_role"]);
        for (measure, expected) in [
            ("guest_growth", &pod["guest_growth"]),
            ("unexplained", &pod["unexplained"]),
            ("usage", &pod["usage"]["end"]),
            ("limit", &pod["limit"]),
        ] {
            let row = at_end(measure).first().copied();
            let bytes: i64 = text(row.with_context(|| format!("no {measure}"))?, "bytes").parse()?;
            ensure!(Some(bytes) == expected.as_i64(), "{measure}: {bytes} is not {expected}");
        }
        let times: Vec<&str> = rows
            .iter()
            .filter(|row| text(row, "measure") == "usage")
            .map(|row| text(row, "time"))
            .collect();
        ensure!(times.len() > 5 && times.is_sorted(), "{times:?}");
        ensure!(
            rows.iter().all(|row| text(row, "vm") == pod["vm"]),
            "a row without its VM"
        );
    }
    Ok(())
}

#[test]
fn jsonl_holds_every_event() -> Result<()> {
    let folder = tempdir()?;
    let lines = fs::read_to_string(export(&fixture("memhold"), "jsonl", &folder)?)?;
    let (events, _) = recording::events(&fixture("memhold"))?;
    let read: Vec<_> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(events == read, "{} events are not {} lines", events.len(), read.len());
    Ok(())
}

#[test]
fn histograms_are_read_by_their_own_project_and_count_what_the_report_counts() -> Result<()> {
    for name in ["memhold", "backup-io"] {
        let folder = tempdir()?;
        let histograms = readers::read("histograms.py", &export(&fixture(name), "hlog", &folder)?)?;
        let report = recording::report(&fixture(name))?;
        let pod = &report["pods"][0];
        let of = |measure: &str| -> Vec<&Value> {
            let wanted = |histogram: &&Value| text(histogram, "tag").starts_with(&format!("{measure}/"));
            histograms.iter().filter(wanted).collect()
        };
        for (measure, quantiles) in [
            ("charge_burst_bytes", &pod["charge_sizes"]),
            ("reclaim_stall_ns", &pod["stalls"]["duration_ns"]),
        ] {
            let found = of(measure);
            let count: u64 = found.iter().filter_map(|histogram| histogram["count"].as_u64()).sum();
            let max = found.iter().filter_map(|histogram| histogram["max"].as_u64()).max();
            ensure!(
                Some(count) == quantiles["count"].as_u64(),
                "{measure}: {count}: {quantiles}"
            );
            ensure!(max.unwrap_or(0) == quantiles["max"], "{measure}: {max:?}: {quantiles}");
        }
        // Two digits: a value stands for those within 1% of it.
        let least = of("headroom_bytes")
            .iter()
            .filter_map(|histogram| histogram["min"].as_u64())
            .min();
        let expected = pod["headroom_min"].as_u64().context("a limit")?;
        let least = least.context("headroom")?;
        ensure!(least.abs_diff(expected) <= expected / 100, "{least} is not {expected}");
        ensure!(of("overhead_growth_bytes_per_s").len() > 1, "{histograms:?}");
        let starts: Vec<f64> = histograms
            .iter()
            .filter_map(|histogram| histogram["start_ms"].as_f64())
            .collect();
        let begin: jiff::Timestamp = text(&report["window"], "start").parse()?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
        let begin = begin.as_millisecond() as f64;
        ensure!(
            starts.is_sorted() && (starts[0] - begin).abs() < 5e3,
            "{starts:?} after {begin}"
        );
    }
    Ok(())
}

/// The value that each series of a family ends with, by the label of this name.
fn last_by(families: &[Value], family: &str, label: &str) -> Result<BTreeMap<String, f64>> {
    let family = families
        .iter()
        .find(|other| text(other, "name") == family)
        .with_context(|| format!("no {family}"))?;
    let samples = family["samples"].as_array().into_iter().flatten();
    // The last one of a series stays.
    let series: BTreeMap<String, (String, f64)> = samples
        .map(|sample| {
            let name = text(&sample["labels"], label).to_owned();
            let value = sample["value"].as_f64().unwrap_or(f64::NAN);
            (sample["labels"].to_string(), (name, value))
        })
        .collect();
    let mut sums = BTreeMap::new();
    for (name, value) in series.into_values() {
        *sums.entry(name).or_default() += value;
    }
    Ok(sums)
}

#[test]
fn openmetrics_is_read_by_prometheus_and_ends_with_the_figures_of_the_report() -> Result<()> {
    for name in ["memhold", "backup-io"] {
        let folder = tempdir()?;
        let families = readers::read("openmetrics.py", &export(&fixture(name), "openmetrics", &folder)?)?;
        let report = recording::report(&fixture(name))?;
        let pod = &report["pods"][0];
        let growth = last_by(&families, "headroom_overhead_growth_bytes", "role")?;
        let expected = reported_growth(pod);
        #[expect(clippy::cast_precision_loss, reason = "memory of a lab's pod")]
        let expected: BTreeMap<String, f64> = expected.into_iter().map(|(role, bytes)| (role, bytes as f64)).collect();
        ensure!(growth == expected, "{growth:?} is not {expected:?}");
        let unexplained = last_by(&families, "headroom_unexplained_bytes", "vm")?;
        let vm = text(pod, "vm");
        ensure!(
            unexplained.get(vm).copied() == pod["unexplained"].as_f64(),
            "{unexplained:?}"
        );
        let stalled: f64 = last_by(&families, "headroom_reclaim_stall_seconds", "role")?
            .values()
            .sum();
        let expected = pod["stalls"]["total_ns"].as_f64().context("stalls")? / 1e9;
        ensure!((stalled - expected).abs() < 1e-6, "{stalled} s is not {expected} s");
        let kinds = last_by(&families, "headroom_memory_stat_bytes", "kind")?;
        ensure!(kinds.len() > 3 && kinds.contains_key("anon"), "{kinds:?}");
    }
    Ok(())
}

#[test]
fn perfetto_holds_counters_stalls_and_the_kill() -> Result<()> {
    for name in ["memhold", "backup-io"] {
        let folder = tempdir()?;
        let tracks = readers::read("tracks.py", &export(&fixture(name), "perfetto", &folder)?)?;
        let report = recording::report(&fixture(name))?;
        let pod = &report["pods"][0];
        let node = format!("node {}", text(&report["node"], "host"));
        let vm = format!("{}/{}", text(pod, "namespace"), text(pod, "vm"));
        let below = |group: &str| -> Vec<(&str, &Value)> {
            let named = tracks.iter().filter_map(|track| {
                let path: Vec<&str> = track["path"].as_array()?.iter().filter_map(Value::as_str).collect();
                match path.as_slice() {
                    [a, b, c, rest @ ..] if *a == node && *b == vm && *c == group && rest.len() < 2 => {
                        Some((rest.first().copied().unwrap_or(c), track))
                    }
                    _ => None,
                }
            });
            named.collect()
        };
        let expected = reported_growth(pod);
        let mut growth: BTreeMap<String, i64> = BTreeMap::new();
        for (track, values) in below("overhead growth").into_iter().skip(1) {
            let role = track.split(" (").next().unwrap_or_default();
            let last = values["values"]
                .as_array()
                .and_then(|values| values.last()?["value"].as_i64());
            *growth.entry(role.to_owned()).or_default() += last.context("a counter with values")?;
            ensure!(values["unit"] == 3, "{track} counts no bytes");
        }
        ensure!(growth == expected, "{growth:?} is not {expected:?}");
        // backup-io ends without a kill.
        let at = match text(&pod["oom"][0], "at") {
            "" => i64::MAX,
            at => i64::try_from(at.parse::<jiff::Timestamp>()?.as_nanosecond())?,
        };
        let kills = below("kills and alerts");
        let kills: Vec<&Value> = kills
            .iter()
            .filter_map(|(_, track)| track["instants"].as_array())
            .flatten()
            .collect();
        ensure!(kills.len() == pod["oom"].as_array().map_or(0, Vec::len), "{kills:?}");
        for kill in kills {
            ensure!(text(kill, "name").contains("OOM kill: qemu"), "{kill}");
            ensure!(kill["unix_ns"].as_i64() == Some(at), "{kill} is not at {at}");
        }
        // The report counts those up to the kill.
        let stalls = below("reclaim stalls");
        let slices = stalls
            .iter()
            .filter_map(|(_, track)| track["slices"].as_array())
            .flatten();
        let ended = |slice: &Value| Some((slice["unix_ns"].as_i64()?, slice["duration_ns"].as_i64()?));
        let durations: Vec<i64> = slices
            .filter_map(ended)
            .filter(|(begin, duration)| begin + duration <= at)
            .map(|(_, duration)| duration)
            .collect();
        let count = durations.len() as u64;
        ensure!(
            Some(durations.iter().sum()) == pod["stalls"]["total_ns"].as_i64(),
            "{durations:?}"
        );
        ensure!(
            Some(count) == pod["stalls"]["duration_ns"]["count"].as_u64(),
            "{count} slices"
        );
    }
    Ok(())
}

/// The recording with names as a compromised pod would choose them.
fn hostile(folder: &TempDir) -> Result<PathBuf> {
    const NAME: &str = "=1+1\"\\,'\n\u{1b}[31m\u{202e}#}";
    let path = folder.path().join("hostile.jsonl.zst");
    let (events, _) = recording::events(&fixture("memhold"))?;
    let mut writer = Writer::create(&path, Overwrite::Refuse)?;
    for mut event in events {
        match &mut event.body {
            Body::Header(header) => NAME.clone_into(&mut header.host),
            Body::Pod(pod) => NAME.clone_into(&mut pod.vm),
            Body::Process(process) if process.name == "memhold" => {
                NAME.clone_into(&mut process.name);
                process.role = Role::Other(NAME.to_owned());
            }
            Body::Thread(thread) => NAME.clone_into(&mut thread.comm),
            _ => {}
        }
        writer.push(&event)?;
    }
    writer.finish()?;
    Ok(path)
}

#[test]
fn names_from_pods_break_no_form_and_act_on_no_terminal() -> Result<()> {
    let folder = tempdir()?;
    let file = hostile(&folder)?;
    for format in ["csv", "hlog", "jsonl", "openmetrics"] {
        let written = fs::read_to_string(export(&file, format, &folder)?)?;
        let acts = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
        ensure!(!written.chars().any(|c| acts(&c)), "{format}: {written}");
    }
    let vm = r#"=1+1"\\,'\n\x1b[31m\u{202e}#}"#;
    let rows = readers::read("rows.py", &folder.path().join("csv"))?;
    let quoted = format!("'{vm}");
    ensure!(
        rows.len() > 100 && rows.iter().all(|row| text(row, "vm") == quoted),
        "{:?}",
        rows.first()
    );
    let families = readers::read("openmetrics.py", &folder.path().join("openmetrics"))?;
    let growth = last_by(&families, "headroom_overhead_growth_bytes", "vm")?;
    ensure!(growth.keys().eq([vm]), "{growth:?}");
    let histograms = readers::read("histograms.py", &folder.path().join("hlog"))?;
    let of_vm = |histogram: &Value| text(histogram, "tag").contains("/%3D1%2B1%22%5C%2C%27%0A%1B%5B31m");
    ensure!(histograms.len() > 5 && histograms.iter().all(of_vm), "{histograms:?}");
    let tracks = readers::read("tracks.py", &export(&file, "perfetto", &folder)?)?;
    let named = |track: &&Value| track["path"][1] == format!("lab/{vm}");
    ensure!(tracks.iter().filter(named).count() > 10, "{tracks:?}");
    Ok(())
}

#[test]
fn several_recordings_go_into_one_file_in_the_order_of_time() -> Result<()> {
    let folder = tempdir()?;
    let out = folder.path().join("both.csv").display().to_string();
    let files = ["backup-io", "memhold"].map(|name| fixture(name).display().to_string());
    let run = Run::headroom(["export", &files[0], &files[1], "--format", "csv", "-o", &out])?;
    ensure!(run.status == Some(0), "{run:?}");
    let both = readers::read("rows.py", Path::new(&out))?;
    let usage = |rows: &[Value]| -> Vec<(String, String)> {
        let rows = rows.iter().filter(|row| text(row, "measure") == "usage");
        rows.map(|row| (text(row, "time").to_owned(), text(row, "bytes").to_owned()))
            .collect()
    };
    let mut expected = Vec::new();
    for name in ["memhold", "backup-io"] {
        fs::remove_file(folder.path().join("csv")).ok();
        expected.extend(usage(&readers::read(
            "rows.py",
            &export(&fixture(name), "csv", &folder)?,
        )?));
    }
    // memhold was recorded first.
    ensure!(usage(&both) == expected, "{:?} is not {expected:?}", usage(&both));
    Ok(())
}

#[test]
fn a_file_is_replaced_by_force_alone_and_appears_whole_or_not_at_all() -> Result<()> {
    let folder = tempdir()?;
    let out = folder.path().join("out.csv");
    fs::write(&out, "someone's")?;
    let file = fixture("memhold").display().to_string();
    let target = out.display().to_string();
    let run = Run::headroom(["export", &file, "--format", "csv", "-o", &target])?;
    run.expect_one_line(1, &["out.csv", "--force"])?;
    ensure!(fs::read_to_string(&out)? == "someone's");
    let broken = folder.path().join("broken");
    fs::write(&broken, "no recording")?;
    let broken = broken.display().to_string();
    let run = Run::headroom(["export", &broken, "--format", "csv", "-o", &target, "--force"])?;
    run.expect_one_line(1, &["broken", "not a headroom recording"])?;
    ensure!(fs::read_to_string(&out)? == "someone's");
    let run = Run::headroom(["export", &file, "--format", "csv", "-o", &target, "--force"])?;
    ensure!(run.status == Some(0), "{run:?}");
    ensure!(fs::read_to_string(&out)?.starts_with("time,"));
    ensure!(fs::metadata(&out)?.permissions().mode() & 0o777 == 0o600);
    ensure!(fs::read_dir(folder.path())?.count() == 2, "something was left behind");
    let run = Run::headroom(["export", &file, "--format", "csv", "-o", "-"])?;
    ensure!(run.stdout == fs::read_to_string(&out)?, "stdout differs from the file");
    Ok(())
}

#[test]
fn a_full_disk_is_named() -> Result<()> {
    let file = fixture("memhold").display().to_string();
    let run = Run::headroom(["export", &file, "--format", "csv", "-o", "/dev/full"])?;
    run.expect_one_line(1, &["/dev/full", "No space left"])
}

#[test]
fn a_damaged_recording_is_exported_as_far_as_it_goes() -> Result<()> {
    let folder = tempdir()?;
    let mut bytes = fs::read(fixture("memhold"))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let file = folder.path().join("damaged.jsonl.zst");
    fs::write(&file, bytes)?;
    let file = file.display().to_string();
    let run = Run::headroom(["export", &file, "--format", "jsonl", "-o", "-"])?;
    run.expect_one_line(5, &["damaged"])?;
    let (events, _) = recording::events(&fixture("memhold"))?;
    let lines = run.stdout.lines().count();
    ensure!(lines > 1 && lines < events.len(), "{lines} of {} lines", events.len());
    Ok(())
}
