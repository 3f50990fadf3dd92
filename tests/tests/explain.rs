//! `headroom explain` on every fixture, in every form that logs have, and on what becomes of logs.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use headroom::oomlog::parse;
use headroom_tests::oomlog::{FORMS, check, facts, fixtures, messages, mutated, written};
use headroom_tests::{Run, headroom, recording};
use serde_json::Value;
use xtask::paths;

fn fixture_folder(name: &str) -> PathBuf {
    paths::workspace().join("tests/fixtures").join(name)
}

/// What `headroom explain` says of a log on standard input.
fn explained(log: &[u8], options: &[&str]) -> Result<Run> {
    let mut child = headroom()?
        .args(["explain", "-"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("piped")?;
    // It may end before it has read all; what it said is what counts.
    let _ = stdin.write_all(log);
    drop(stdin);
    let output = child.wait_with_output()?;
    Ok(Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

fn document(log: &[u8]) -> Result<Value> {
    let run = explained(log, &["--json"])?;
    ensure!(run.status == Some(0) && run.stderr.is_empty(), "{run:?}");
    Ok(serde_json::from_str(&run.stdout)?)
}

/// Compares with a file that is kept; `HEADROOM_UPDATE` writes it.
fn expect_kept(path: &Path, is: &str) -> Result<()> {
    if env::var_os("HEADROOM_UPDATE").is_some() {
        fs::write(path, is)?;
    }
    let kept = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if kept != is {
        let differs = kept.lines().zip(is.lines()).find(|(kept, is)| kept != is);
        anyhow::bail!("{} differs: {differs:?}\n{is}", path.display());
    }
    Ok(())
}

#[test]
fn every_fixture_is_explained_as_before() -> Result<()> {
    for (name, _) in fixtures()? {
        let path = fixture_folder("oom").join(&name).display().to_string();
        let text = Run::headroom(["explain", &path])?;
        ensure!(text.status == Some(0) && text.stderr.is_empty(), "{name}: {text:?}");
        let kept = fixture_folder("oom-golden");
        expect_kept(&kept.join(format!("{name}.txt")), &text.stdout)?;
        let json = Run::headroom(["explain", &path, "--json"])?;
        let document: Value = serde_json::from_str(&json.stdout)?;
        let explanations = serde_json::to_string_pretty(&document["explanations"])?;
        expect_kept(&kept.join(format!("{name}.json")), &format!("{explanations}\n"))?;
    }
    Ok(())
}

#[test]
fn the_second_harvester_case_names_what_the_issue_of_it_names() -> Result<()> {
    let log = fs::read(fixture_folder("oom").join("harvester-2-vcpu.log"))?;
    let document = document(&log)?;
    let explanation = &document["explanations"][0];
    ensure!(explanation["invoker"]["role"] == "vcpu 11", "{explanation}");
    ensure!(explanation["memory"]["kernel"] == 633_636_u64 << 10, "{explanation}");
    ensure!(explanation["tasks"][0]["page_tables"] == 135_278_592, "{explanation}");
    let text = explained(&log, &["--guest-memory", "64GiB"])?.stdout;
    for words in ["vcpu 11", "618.8 MiB", "129.0 MiB"] {
        ensure!(text.contains(words), "no {words} in {text}");
    }
    Ok(())
}

/// Names of memory.stat differ between kernels and cgroup versions: what was read under them has to be all there is.
#[test]
fn what_memory_is_charged_as_adds_up_to_usage() -> Result<()> {
    let mut logs: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, text) in fixtures()? {
        if name.ends_with(".kmsg") {
            logs.push((name, text.into_bytes()));
        }
    }
    for name in ["memhold", "memhold-v1-kprobe", "memhold-real-v2-fentry"] {
        let file = fixture_folder("recordings").join(format!("{name}.jsonl.zst"));
        logs.push((name.to_owned(), recording::kernel_log(&file)?.into_bytes()));
    }
    for (name, log) in &logs {
        let found = document(log)?;
        // A second kill comes while what the first one held is still being given back.
        let explanation = &found["explanations"][0];
        ensure!(explanation["lines"]["unparsed"] == 0, "{name}: {explanation}");
        let bytes = |what: &str| {
            explanation["memory"][what]
                .as_u64()
                .with_context(|| format!("{name}: no {what}"))
        };
        let parts = bytes("anon")? + bytes("page_cache")? + bytes("kernel")?;
        let usage = explanation["limit"]["usage"].as_u64().context("usage")?;
        // Charged in advance by each CPU.
        ensure!(parts.abs_diff(usage) < 1 << 20, "{name}: {parts} of {usage}");
    }
    Ok(())
}

#[test]
fn a_node_and_a_cpuset_that_ran_out_of_memory_are_told() -> Result<()> {
    for (name, words) in [
        (
            "node-6.12",
            "The node ran out of memory when vcpu 0 asked for more, and the kernel killed qemu-system-x86",
        ),
        (
            "cpuset-7.3",
            "The NUMA nodes that the cpuset allows ran out of memory when other tail asked for more",
        ),
    ] {
        let path = fixture_folder("oom-global").join(format!("{name}.kmsg"));
        let found = document(&fs::read(path)?)?;
        let explanation = &found["explanations"][0];
        let verdict = explanation["verdict"][0].as_str().context("a sentence")?;
        ensure!(verdict.starts_with(words), "{verdict}");
        ensure!(
            explanation["lines"]["unparsed"] == 0,
            "{name}: {}",
            explanation["unparsed"]
        );
        ensure!(
            explanation["limit"].is_null() && explanation["overhead"].is_null(),
            "{explanation}"
        );
        ensure!(explanation["victim"]["is_largest"] == true, "{explanation}");
    }
    Ok(())
}

#[test]
fn every_form_of_a_log_with_several_kills_says_the_same() -> Result<()> {
    let mut all = Vec::new();
    for (name, text) in fixtures()? {
        if name.ends_with(".kmsg") {
            all.extend(messages(&text)?);
        }
    }
    let mut expected = None;
    for form in FORMS {
        let found = document(&written(form, &all)?).with_context(|| form.to_owned())?;
        let count = found["reports"].as_array().map_or(0, Vec::len);
        ensure!(count == 21, "{form}: {count} reports");
        for report in found["reports"].as_array().into_iter().flatten() {
            ensure!(report["lines"]["unparsed"] == 0, "{form}: {}", report["unparsed"]);
            ensure!(
                report["stamp"]["printed"].as_str().is_some_and(|at| !at.is_empty()),
                "{form}"
            );
        }
        let found = facts(&found);
        let expected = expected.get_or_insert_with(|| found.clone());
        ensure!(found == *expected, "{form} differs");
    }
    Ok(())
}

#[test]
fn what_dmesg_and_journalctl_themselves_wrote_says_the_same() -> Result<()> {
    let original =
        |name: &str| -> Result<Value> { Ok(facts(&document(&fs::read(fixture_folder("oom").join(name))?)?)) };
    let originals = [
        ("v1.", original("v1-6.1-vcpu.kmsg")?),
        ("v2.", original("v2-7.2-vcpu.kmsg")?),
    ];
    let mut count = 0;
    for entry in fs::read_dir(fixture_folder("oom-forms"))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        let Some((_, expected)) = originals.iter().find(|(prefix, _)| name.starts_with(prefix)) else {
            continue;
        };
        count += 1;
        let found = document(&fs::read(&path)?)?;
        // Without the program's name, the line of another program stands inside the report.
        let foreign = u64::from(name.ends_with("-cat"));
        ensure!(
            found["reports"][0]["lines"]["unparsed"] == foreign,
            "{name}: {}",
            found["reports"][0]
        );
        let mut found = facts(&found);
        if foreign > 0 {
            for part in ["reports", "explanations"] {
                found[part][0]["unparsed"] = Value::Array(Vec::new());
            }
        }
        ensure!(found == *expected, "{name} differs");
    }
    ensure!(count >= 26, "only {count} forms");
    Ok(())
}

#[test]
fn other_lines_in_between_are_counted_and_change_nothing() -> Result<()> {
    let mut random = Rng::with_seed(7);
    for (name, text) in fixtures()? {
        let lines: Vec<&str> = text.lines().collect();
        let inside = |words: &str| lines.iter().position(|line| line.contains(words));
        let (begin, end) = inside("invoked oom-killer")
            .zip(inside("oom-kill:constraint"))
            .context("a report")?;
        for _ in 0..20 {
            let mut mixed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let count = random.usize(1..10);
            for number in 0..count {
                // Always before the line that ends the dump; behind it, other lines are none of the report's.
                let at = random.usize(begin + 1..=end);
                // As the lines around it: another host's lines would be none of the report's.
                let head = match name.as_str() {
                    "harvester-1-virt-launcher.log" => "Feb 03 19:57:08 ** kernel: ",
                    "harvester-2-vcpu.log" => "[Thu May  9 14:52:38 2024] ",
                    _ => "4,1,5,-;",
                };
                mixed.insert(at, format!("{head}eth0: link {number} up"));
            }
            let (was, is) = (parse(text.as_bytes()), parse(mixed.join("\n").as_bytes()));
            ensure!(was.reports.len() == is.reports.len(), "{name}");
            let mut first = is.reports[0].clone();
            ensure!(first.lines.unparsed == count as u64, "{name}: {:?}", first.lines);
            ensure!(first.unparsed.len() == count, "{name}: {:?}", first.unparsed);
            first.unparsed.clear();
            first.lines = was.reports[0].lines;
            ensure!(first == was.reports[0], "{name}: a line in between changed something");
        }
    }
    Ok(())
}

#[test]
fn elided_lines_are_told_and_the_rest_is_explained() -> Result<()> {
    for (name, text) in fixtures()?.into_iter().step_by(3) {
        let lines: Vec<&str> = text.lines().collect();
        let trace = lines
            .iter()
            .position(|line| line.contains("CPU: "))
            .context("a CPU line")?;
        let counters = lines
            .iter()
            .position(|line| line.contains("memory: usage"))
            .context("counters")?;
        for dots in ["...", "\u{2026}", "[...]", "<...>"] {
            let mut elided = lines.clone();
            elided.splice(trace + 1..counters, [dots]);
            let (was, is) = (document(text.as_bytes())?, document(elided.join("\n").as_bytes())?);
            let lines = &is["explanations"][0]["lines"];
            let before = was["explanations"][0]["lines"]["elided"].as_u64().unwrap_or(0);
            // The Harvester cases were elided there already.
            let expected = before + u64::from(!name.starts_with("harvester"));
            ensure!(lines["elided"] == expected && lines["unparsed"] == 0, "{name}: {lines}");
            for part in ["limit", "victim", "memory", "tasks", "guest_ram"] {
                let (was, is) = (&was["explanations"][0][part], &is["explanations"][0][part]);
                ensure!(was == is, "{name}: {part}: {was} {is}");
            }
        }
    }
    Ok(())
}

#[test]
fn whatever_becomes_of_a_log_is_survived_and_counted() -> Result<()> {
    let fixtures = fixtures()?;
    let others: Vec<u8> = fixtures.iter().flat_map(|(_, text)| text.bytes()).collect();
    let mut logs: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, text) in &fixtures {
        logs.push((name.clone(), text.clone().into_bytes()));
    }
    for entry in fs::read_dir(fixture_folder("oom-forms"))? {
        let path = entry?.path();
        logs.push((path.display().to_string(), fs::read(&path)?));
    }
    let seed = env::var("HEADROOM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    for (name, log) in &logs {
        for round in 0..16 {
            let mut random = Rng::with_seed(seed * 1000 + round);
            let mut mutant = mutated(log, &others, &mut random);
            if random.bool() {
                mutant = mutated(&mutant, log, &mut random);
            }
            check(&mutant).with_context(|| format!("{name}, HEADROOM_SEED={seed}, round {round}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_binary_survives_what_is_no_log() -> Result<()> {
    let mut random = Rng::with_seed(3);
    let mut bytes = vec![0; 64 << 10];
    random.fill(&mut bytes);
    for log in [&b""[..], b"\n\n", b"invoked oom-killer", &bytes] {
        let run = explained(log, &[])?;
        run.expect_one_line(1, &["no OOM report in stdin", "invoked oom-killer"])?;
    }
    Ok(())
}

#[test]
fn recordings_agree_with_the_kernel_on_their_kills() -> Result<()> {
    for name in ["memhold", "incident", "memhold-v1-kprobe", "memhold-real-v2-fentry"] {
        let file = fixture_folder("recordings").join(format!("{name}.jsonl.zst"));
        let path = file.display().to_string();
        let log = recording::kernel_log(&file)?;
        let run = explained(log.as_bytes(), &["--json", "--recording", &path])?;
        let document: Value = serde_json::from_str(&run.stdout).with_context(|| format!("{run:?}"))?;
        let found = &document["recording"];
        ensure!(found["matched"] == 1, "{name}: {found}");
        ensure!(
            found["compared"].as_u64().is_some_and(|count| count >= 14),
            "{name}: {found}"
        );
        ensure!(found["disagreements"] == Value::Array(Vec::new()), "{name}: {found:#}");
        // Somebody else's log is noticed, fact by fact.
        let forged = log
            .replace("Comm: CPU", "Comm: IO")
            .replace("CPU 0/KVM", "CPU 7/KVM")
            .replace("CPU 1/KVM", "CPU 7/KVM")
            .replace("oom_memcg=/", "oom_memcg=/elsewhere/")
            .replace("virt-launcher-m", "virt-launcher-x")
            .replace("memhold", "memheld");
        let run = explained(forged.as_bytes(), &["--recording", &path])?;
        for words in [
            "The recording disagrees",
            "the invoker's role",
            "the cgroup at its limit",
            "memheld",
        ] {
            ensure!(run.stdout.contains(words), "{name}: no {words}: {}", run.stdout);
        }
    }
    Ok(())
}
