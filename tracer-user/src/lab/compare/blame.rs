//! Who is to blame, and the kill.

use serde_json::Value;

use super::{Check, number};
use crate::lab::plan::MIB;
use crate::lab::run::Played;

/// What a real QEMU's heap may grow by while its guest writes. Measured: up to 6.7 MiB (5.10, page cache, eight requests
/// of 1 MiB in flight).
const OWN_HEAP: u64 = 8 * MIB;

pub(super) fn culprit(played: &Played, pod: &Value) -> Option<Check> {
    let expected = played.expect.as_ref()?.culprit.as_ref();
    let got = &pod["culprit"];
    let words = |process: &str, role: &str| format!("{process}, {role}");
    let expected_words = expected.map_or_else(
        || "nobody".to_owned(),
        |culprit| words(&culprit.process, &culprit.role.to_string()),
    );
    let got_words = if got.is_null() {
        "nobody".to_owned()
    } else {
        words(
            got["process"].as_str().unwrap_or("?"),
            got["role"].as_str().unwrap_or("?"),
        )
    };
    // khugepaged grows a real QEMU's heap now and then by making huge pages of it: where nobody else does, it is to
    // blame indeed.
    let collapsed = expected.is_none() && got["role"] == "kernel khugepaged";
    // Nobody knows what a real QEMU takes for itself: its threads' heaps come in huge pages on some kernels.
    let own = expected.is_none()
        && played.real
        && got["process"] == "qemu"
        && got["kind"] == "anon"
        && number(&got["bytes"]).unsigned_abs() <= OWN_HEAP;
    let ok = expected_words == got_words || collapsed || own;
    Some(Check::new("culprit", expected_words, got_words, ok))
}

/// Whether the kernel did what the scenario is made for.
#[must_use]
pub fn killed(played: &Played) -> Check {
    let (expected, ok) = match played.expect.as_ref().map(|expect| expect.kill) {
        Some(Some(victim)) => (victim, played.killed.iter().any(|name| name == victim)),
        Some(None) => ("nothing", played.killed.is_empty()),
        None => ("whatever comes", true),
    };
    Check::new("killed by the kernel", expected, played.killed_words(), ok)
}

pub(super) fn kill(played: &Played, pod: &Value) -> Vec<Check> {
    let kill = pod["oom"].as_array().and_then(|kills| kills.first());
    let expected = played
        .expect
        .as_ref()
        .map_or(!played.killed.is_empty(), |expect| expect.kill.is_some());
    let mut checks = vec![
        killed(played),
        Check::new(
            "kill in the report",
            if expected { "yes" } else { "no" },
            if kill.is_some() { "yes" } else { "no" },
            kill.is_some() == expected,
        ),
    ];
    if let (Some(kill), Some(expect)) = (kill, played.expect.as_ref().filter(|expect| expect.kill.is_some())) {
        let invoker = kill["invoker"]["role"].as_str().unwrap_or("unknown");
        let expected: Vec<_> = expect.invokers.iter().map(ToString::to_string).collect();
        let ok = expected.iter().any(|role| role == invoker);
        checks.push(Check::new("invoker", expected.join(" or "), invoker, ok));
    }
    checks
}
