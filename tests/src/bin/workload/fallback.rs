//! A function that takes no more programs by trampolines: its probe falls back to a kprobe, the others do not, and together
//! they count every byte.

use anyhow::{Context as _, Result, ensure};
use headroom_tests::conserve::{Check, Document};
use headroom_tests::recording::events;
use headroom_tests::{Memcg, Recorder, Run};
use serde_json::Value;

use crate::bpf;
use crate::stage::{backends, play};

/// The function, and the probe on it.
const FULL: &str = "uncharge_folio";
/// A probe that is not refused.
const FREE: &str = "place_anon";
/// Why.
const WHY: &str = "fentry: uncharge_folio has as many programs as it can have (E2BIG)";

/// Fills the function, and plays a workload.
pub fn check() -> Result<Document> {
    let programs = bpf::fill(FULL)?;
    ensure!(!programs.is_empty(), "it was full before");
    let mut document = play("anon", "auto")?;
    document.workload = "fallback".to_owned();
    let backend = document.backend.clone();
    let mut equal = |name: &str, expected: &str, got: &str| {
        document.checks.push(Check {
            name: name.to_owned(),
            expected: expected.to_owned(),
            got: got.to_owned(),
            ok: expected == got,
        });
    };
    equal("what gives back is counted by", "kprobe", &backend);

    let run = Run::headroom(["doctor", "--json"])?;
    let findings: Value = serde_json::from_str(&run.stdout).with_context(|| format!("doctor: {}", run.stderr))?;
    let probes = findings["probes"].as_array().context("doctor lists no probes")?;
    let found = |name: &str| {
        probes
            .iter()
            .find(|probe| probe["probe"] == name)
            .unwrap_or(&Value::Null)
    };
    equal(
        "doctor on the full function",
        "\"kprobe\"",
        &found(FULL)["backend"].to_string(),
    );
    equal(
        "doctor on why",
        &format!("[\"{WHY}\"]"),
        &found(FULL)["refused"].to_string(),
    );
    equal("doctor on another", "\"fentry\"", &found(FREE)["backend"].to_string());

    let folder = tempfile::tempdir()?;
    let group = Memcg::create()?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("short.jsonl.zst"), &[])?;
    recorder.interrupt()?;
    let (events, _) = events(&recorder.file)?;
    let header = backends(&events)?;
    let told = |name: &str| header.get(name).map_or("", String::as_str);
    equal(
        "header on the full function",
        &format!("kprobe {FULL}, not by {WHY}"),
        told(FULL),
    );
    equal("header on another", "fentry folio_add_new_anon_rmap", told(FREE));
    document.ok = document.checks.iter().all(|check| check.ok);
    Ok(document)
}
