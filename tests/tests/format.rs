//! The recording format: its schema, its document, and the recordings that every version has to read.
//!
//! `HEADROOM_UPDATE=1` writes the schema, the tables of the document and the reports anew.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use headroom::recording::event::{Body, Event};
use headroom::recording::{State, schema, written_schema};
use headroom_tests::oomlog::mutated;
use headroom_tests::{Memcg, Recorder, Run, Worker, format, recording};
use jsonschema::Validator;
use serde_json::{Value, json};
use xtask::{paths, setup};

/// The state that each of the recordings is in. A file that is not listed fails the tests.
const RECORDINGS: [(&str, State); 11] = [
    ("backup-io", State::Complete),
    ("damaged", State::Damaged),
    ("guest-only", State::Complete),
    ("guest-only-v2-fentry", State::Complete),
    ("incident", State::Complete),
    ("incomplete", State::Incomplete),
    ("later-version", State::Complete),
    ("marks", State::Complete),
    ("memhold", State::Complete),
    ("memhold-real-v2-fentry", State::Complete),
    ("memhold-v1-kprobe", State::Complete),
];

fn folder() -> PathBuf {
    paths::workspace().join("tests/fixtures/recordings")
}

fn file(name: &str) -> PathBuf {
    folder().join(format!("{name}.jsonl.zst"))
}

/// Compares a file, or a part of it, with what it should be; with `HEADROOM_UPDATE` set, writes it.
fn expect_written(path: &Path, is: &str, should: &str, update: impl FnOnce() -> String) -> Result<()> {
    if is != should && env::var_os("HEADROOM_UPDATE").is_some() {
        fs::write(path, update())?;
        return Ok(());
    }
    ensure!(
        is == should,
        "{} is out of date: run `HEADROOM_UPDATE=1 cargo nextest run -p headroom-tests --test format`",
        path.display()
    );
    Ok(())
}

/// The lines of a recording, unpacked by zstd itself, which knows nothing of headroom.
fn lines(path: &Path) -> Result<Vec<Value>> {
    setup::observers()?;
    let output = Command::new("zstd").arg("-dcq").arg(path).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A damaged or cut-off recording ends in half a line.
    let lines: Vec<Value> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    ensure!(!lines.is_empty(), "zstd reads nothing of {}", path.display());
    Ok(lines)
}

fn expect_valid(validator: &Validator, lines: &[Value], what: &str) -> Result<()> {
    for line in lines {
        let errors: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        ensure!(errors.is_empty(), "{what}: {line}: {errors:?}");
    }
    Ok(())
}

fn reader_schema() -> Result<Validator> {
    let text = fs::read_to_string(paths::workspace().join("docs/recording.schema.json"))?;
    jsonschema::draft202012::new(&serde_json::from_str(&text)?).context("the schema is none")
}

#[test]
fn the_schema_is_that_of_the_types() -> Result<()> {
    let path = paths::workspace().join("docs/recording.schema.json");
    let should = format!("{}\n", serde_json::to_string_pretty(&schema())?);
    let is = fs::read_to_string(&path).unwrap_or_default();
    expect_written(&path, &is, &should, || should.clone())?;
    ensure!(
        jsonschema::draft202012::meta::is_valid(&serde_json::from_str(&should)?),
        "it is no schema"
    );
    Ok(())
}

#[test]
fn the_document_describes_every_type_and_field() -> Result<()> {
    let path = paths::workspace().join("docs/recording.md");
    let document = fs::read_to_string(&path)?;
    let is = format::written_part(&document, "types")?;
    let should = format!("\n{}\n\n", format::tables(&schema().to_value())?);
    let end = "<!-- types: end -->";
    expect_written(&path, is, &should, || {
        document.replacen(&format!("{is}{end}"), &format!("{should}{end}"), 1)
    })
}

#[test]
fn every_kept_recording_is_listed_and_reads_in_its_state() -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        let name = entry?.file_name().into_string().ok().context("a name is text")?;
        found.extend(name.strip_suffix(".jsonl.zst").map(str::to_owned));
    }
    found.sort();
    ensure!(found == RECORDINGS.map(|(name, _)| name), "{found:?}");
    for (name, state) in RECORDINGS {
        let (events, found) = recording::events(&file(name)).with_context(|| name.to_owned())?;
        ensure!(found == state, "{name} is {found:?}");
        ensure!(events.len() > 20, "{name} has only {} events", events.len());
    }
    Ok(())
}

#[test]
fn kept_recordings_agree_with_the_schema() -> Result<()> {
    let validator = reader_schema()?;
    for (name, _) in RECORDINGS {
        expect_valid(&validator, &lines(&file(name))?, name)?;
    }
    Ok(())
}

/// What a report foresees is made anew by every version: it is what forecasts are made better by.
const FORESEEN: [&str; 3] = ["forecasts", "alerts", "lead_time_s"];

/// Where a value differs from what it was. What was added since is no difference.
fn differences(was: &Value, is: &Value, at: &str, found: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            for (field, was) in was.iter().filter(|(field, _)| !FORESEEN.contains(&field.as_str())) {
                differences(
                    was,
                    is.get(field).unwrap_or(&Value::Null),
                    &format!("{at}.{field}"),
                    found,
                );
            }
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            for (index, (was, is)) in was.iter().zip(is).enumerate() {
                differences(was, is, &format!("{at}[{index}]"), found);
            }
        }
        _ if was == is => {}
        _ => found.push(format!("{at} was {was} and is {is}")),
    }
}

#[test]
fn reports_on_kept_recordings_stay_the_same() -> Result<()> {
    let mut found = Vec::new();
    for (name, state) in RECORDINGS {
        let path = file(name).display().to_string();
        let run = Run::headroom(["report", &path, "--format", "json"])?;
        let status = if state == State::Damaged { 5 } else { 0 };
        ensure!(run.status == Some(status), "{name}: {run:?}");
        let is: Value = serde_json::from_str(&run.stdout).with_context(|| name.to_owned())?;
        ensure!(
            is["pods"].as_array().is_some_and(|pods| !pods.is_empty()),
            "{name}: {is}"
        );
        let golden = folder().join(format!("{name}.report.json"));
        if env::var_os("HEADROOM_UPDATE").is_some() {
            fs::write(&golden, format!("{}\n", serde_json::to_string_pretty(&is)?))?;
        }
        let was = fs::read_to_string(&golden).with_context(|| golden.display().to_string())?;
        differences(&serde_json::from_str(&was)?, &is, name, &mut found);
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn a_report_that_differs_is_noticed() {
    let was = json!({ "a": [1, { "b": 2 }], "forecasts": [1] });
    let find = |is: Value| {
        let mut found = Vec::new();
        differences(&was, &is, "", &mut found);
        found
    };
    assert_eq!(
        find(json!({ "a": [1, { "b": 2, "new": 3 }], "new": 1 })),
        Vec::<String>::new()
    );
    assert_eq!(find(json!({ "a": [1, { "b": 3 }] })), [".a[1].b was 2 and is 3"]);
    assert_eq!(find(json!({ "a": [1] })).len(), 1);
    assert_eq!(find(json!({})).len(), 1);
}

/// A schema that allows nothing beside what it names.
fn closed(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let lines: Vec<String> = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|branch| Some(branch["$ref"].as_str()?.rsplit('/').next()?.to_owned()))
        .collect();
    schema["unevaluatedProperties"] = json!(false);
    for (name, definition) in schema["$defs"].as_object_mut().into_iter().flatten() {
        if definition["properties"].is_object() && !lines.contains(name) {
            definition["additionalProperties"] = json!(false);
        }
    }
    schema
}

#[test]
fn a_recording_made_now_holds_nothing_that_the_schema_does_not_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let group = Memcg::create()?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("now.jsonl.zst"), &[])?;
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_storm"), &group, "storm 2 2")?;
    worker.go()?;
    worker.wait()?;
    recorder.interrupt()?;
    let lines = lines(&recorder.file)?;
    for kind in ["header", "pod", "process", "thread", "charge", "sample", "footer"] {
        ensure!(lines.iter().any(|line| line["type"] == kind), "no {kind}");
    }
    let strict = jsonschema::draft202012::new(&closed(&written_schema().to_value()))?;
    expect_valid(&strict, &lines, "written")?;
    expect_valid(&reader_schema()?, &lines, "read")?;
    // The schema is not one that takes anything.
    for (field, value) in [("t", json!("soon")), ("type", json!("later")), ("new", json!(1))] {
        let mut line = lines[0].clone();
        line[field] = value;
        ensure!(!strict.is_valid(&line), "{line}");
    }
    Ok(())
}

#[test]
fn every_field_that_a_reader_needs_is_required_by_the_schema() -> Result<()> {
    let validator = reader_schema()?;
    let reads = |line: &Value| {
        let event = serde_json::from_value::<Event>(line.clone());
        event.is_ok_and(|event| event.body != Body::Unknown)
    };
    let mut needed = 0;
    for (name, _) in RECORDINGS {
        for line in lines(&file(name))?.into_iter().filter(&reads) {
            for field in line.as_object().context("a line is an object")?.keys() {
                let mut less = line.clone();
                less.as_object_mut().context("an object")?.remove(field);
                let (read, valid) = (reads(&less), validator.is_valid(&less));
                needed += u32::from(!read);
                ensure!(
                    read == valid,
                    "{name}: without {field} it reads: {read}, but the schema says {valid}: {line}"
                );
            }
        }
    }
    ensure!(needed > 1000, "only {needed} fields are needed");
    Ok(())
}

#[test]
fn what_a_later_version_adds_changes_nothing() -> Result<()> {
    let read = |name: &str| -> Result<Value> {
        let text = fs::read_to_string(folder().join(format!("{name}.report.json")))?;
        Ok(serde_json::from_str(&text)?)
    };
    let mut found = Vec::new();
    differences(&read("guest-only")?, &read("later-version")?, "", &mut found);
    // A line with an unknown kind, and one of an unknown type for each sample.
    let expected = [
        ".node.headroom was \"0.1.0\" and is \"9.9.0\"",
        ".recording.skipped_lines was 0 and is 8",
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

#[test]
fn whatever_becomes_of_a_recording_is_survived() -> Result<()> {
    for (name, _) in RECORDINGS {
        let packed = fs::read(file(name))?;
        let unpacked: Vec<String> = lines(&file(name))?.iter().map(Value::to_string).collect();
        let unpacked = unpacked.join("\n").into_bytes();
        for round in 0..12 {
            let mut random = Rng::with_seed(round);
            let why = || format!("{name}, round {round}");
            recording::check_lines(&mutated(&unpacked, &unpacked, &mut random)).with_context(why)?;
            recording::check(&mutated(&packed, &packed, &mut random)).with_context(why)?;
        }
    }
    Ok(())
}

#[test]
fn other_programs_read_a_recording() -> Result<()> {
    setup::observers()?;
    let packed = Command::new("zstd").arg("-dcq").arg(file("memhold")).output()?;
    let mut jq = Command::new("jq")
        .args(["-c", r#"select(.type == "oom") | .victim.comm"#])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    jq.stdin.take().context("piped")?.write_all(&packed.stdout)?;
    let said = jq.wait_with_output()?;
    ensure!(
        said.status.success() && said.stdout == b"\"qemu-system-x86\"\n",
        "{said:?}"
    );
    Ok(())
}
