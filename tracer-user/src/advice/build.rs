//! Puts the recordings of one VM together, and advises.

use std::collections::BTreeMap;

use super::measure::{Held, Observation};
use super::reserve::{Holding, Knob, Need, smallest};
use super::workload::classify;
use super::{Advice, LookAt, NeedReport, Outcome, RecordingReport, Reserves, RoleReport, snippet, verdict};
use crate::ledger::Entity;
use crate::sizing::breakdown::{Breakdown, Taken, breakdown};
use crate::sizing::spec::{Basis, Known, Spec, spec};
use crate::units::Bytes;

/// An observation and the recording that it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its file, as given.
    pub file: String,
    /// Start of the window, UTC.
    pub start: String,
    /// Its end.
    pub end: String,
    /// What was seen.
    pub seen: Observation,
}

impl Observation {
    /// What it says by itself.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if !self.missing.is_empty() {
            Outcome::NotEnoughData
        } else if !self.grew || self.growth.plateau {
            Outcome::Bounded
        } else if self.killed {
            Outcome::NoReserveWillDo
        } else {
            Outcome::StillGrowing
        }
    }

    fn need(&self, margin: u64) -> Need {
        Need {
            overhead: self.peak,
            guest_resident: self.guest_peak,
            hugepages: self.hugepages(),
            margin,
        }
    }

    fn hugepages(&self) -> bool {
        self.guest_hugetlb > 0 && self.guest_ram == 0
    }

    /// What the guest sees.
    fn guest(&self) -> u64 {
        self.guest_ram.saturating_add(self.guest_hugetlb)
    }
}

/// Advises on a VM from its recordings, in the order of their windows; `margin` is percent of the overhead.
#[must_use]
pub fn advise(recordings: &[Recorded], known: &Known, margin: u64) -> Advice {
    let enough: Vec<&Recorded> = recordings.iter().filter(|one| one.seen.missing.is_empty()).collect();
    let outcome = enough
        .iter()
        .map(|one| one.seen.outcome())
        .max()
        .unwrap_or(Outcome::NotEnoughData);
    let last = enough.last().copied().or(recordings.last());
    let mut advice = Advice {
        namespace: last.map_or_else(String::new, |one| one.seen.namespace.clone()),
        vm: last.map_or_else(String::new, |one| one.seen.vm.clone()),
        cgroup: last.map_or_else(String::new, |one| one.seen.cgroup.clone()),
        outcome,
        verdict: String::new(),
        recordings: recordings.iter().map(recording_report).collect(),
        need: None,
        by_role: Vec::new(),
        shape: None,
        budget: None,
        kernel: BTreeMap::new(),
        reserves: None,
        look_at: None,
        workload: None,
        snippets: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(last) = enough.last() {
        fill(&mut advice, &enough, &last.seen, known, margin);
    }
    advice.verdict = verdict::verdict(&advice);
    advice
}

fn fill(advice: &mut Advice, enough: &[&Recorded], last: &Observation, known: &Known, margin: u64) {
    let seen: Vec<&Observation> = enough.iter().map(|one| &one.seen).collect();
    let Some(deciding) = deciding(&seen, last.guest()) else {
        return;
    };
    let need = deciding.need(margin);
    let known_to_hold = advice.outcome != Outcome::NoReserveWillDo;
    advice.need = Some(need_report(deciding, last, need, known_to_hold));
    advice.kernel = kernel(&seen);
    advice.by_role = by_role(&seen);
    advice.look_at = seen
        .iter()
        .filter(|one| one.outcome() >= Outcome::StillGrowing)
        .max_by_key(|one| (one.outcome(), one.growth.peak))
        .and_then(|one| look_at(one));
    advice.workload = Some(classify(deciding));
    advice.notes = notes(&seen, enough.len(), advice.recordings.len());
    match spec(known, last.guest(), last.hugepages(), last.limit, last.shape) {
        Ok(spec) => settle(advice, &spec, &taken(&seen), need),
        Err(error) => advice.notes.push(format!("nothing can be sized: {error}")),
    }
}

/// The recording whose need decides.
fn deciding<'a>(seen: &[&'a Observation], guest: u64) -> Option<&'a Observation> {
    seen.iter().max_by_key(|one| one.need(0).minimum(guest)).copied()
}

fn settle(advice: &mut Advice, spec: &Spec, taken: &Taken, need: Need) {
    let sized = match spec.size(spec.now) {
        Ok(sized) => sized,
        Err(error) => {
            advice.notes.push(format!("nothing can be sized: {error}"));
            return;
        }
    };
    advice.shape = Some(spec.shape(sized.limit));
    let broken: Breakdown = breakdown(&sized.budget.overhead, taken);
    advice.budget = Some(broken);
    if spec.basis == Basis::Assumed {
        advice.notes.push(format!(
            "no usual VM has the recorded limit, so a VM without anything unusual is assumed, whose limit would be {}: \
             give --manifest, or --harvester or --kubevirt with --ratio and --reserved, for the real one",
            Bytes(sized.limit)
        ));
    }
    if advice.outcome == Outcome::NoReserveWillDo {
        return;
    }
    let mut why_not = BTreeMap::new();
    let mut find = |name, knob| match smallest(spec, knob, need) {
        Ok(found) => Some(found),
        Err(why) => {
            why_not.insert(name, why);
            None
        }
    };
    let ratio = find("ratio", Knob::Ratio);
    let reserved = find("reserved_memory", Knob::Reserved);
    let added = find("reserved_overhead", Knob::Added);
    let (namespace, vm) = (advice.namespace.as_str(), advice.vm.as_str());
    let harvester = spec.harvester.is_some();
    // What lowers a reserve, of one VM or of all, is nobody's to paste.
    let raised = |found: &Option<Holding>| {
        found
            .clone()
            .filter(|found| found.costs_node > 0 || found.costs_guest > 0)
    };
    let to_raise = (raised(&ratio), raised(&reserved), raised(&added));
    advice.snippets = [
        to_raise.0.as_ref().map(snippet::harvester_ratio),
        to_raise.1.map(|found| snippet::reserved(namespace, vm, &found)),
        to_raise.0.filter(|_| !harvester).as_ref().map(snippet::kubevirt_ratio),
        to_raise.2.map(|found| snippet::added(namespace, vm, &found)),
    ]
    .into_iter()
    .flatten()
    .map(|snippet| snippet.of(spec.basis))
    .collect();
    advice.reserves = Some(Reserves {
        ratio,
        reserved_memory: reserved,
        reserved_overhead: added,
        why_not,
    });
}

#[expect(clippy::cast_precision_loss, reason = "seconds are given to a few digits")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn recording_report(recorded: &Recorded) -> RecordingReport {
    let seen = &recorded.seen;
    RecordingReport {
        file: recorded.file.clone(),
        start: recorded.start.clone(),
        end: recorded.end.clone(),
        seconds: seconds(seen.window.1.saturating_sub(seen.window.0)),
        killed: seen.killed,
        outcome: seen.outcome(),
        overhead_peak: seen.peak,
        guest_ram: seen.guest_ram,
        limit: seen.limit,
        missing: seen.missing.clone(),
    }
}

fn need_report(deciding: &Observation, last: &Observation, need: Need, known_to_hold: bool) -> NeedReport {
    let guest = last.guest();
    NeedReport {
        margin_percent: need.margin,
        guest_ram: last.guest_ram,
        overhead_start: deciding.start,
        overhead_peak: need.overhead,
        uncertainty: deciding.tolerance,
        page_tables_to_come: need.untouched(guest),
        minimum_limit: known_to_hold.then(|| need.minimum(guest)),
        advised_limit: known_to_hold.then(|| need.limit(guest)),
        limit: last.limit,
    }
}

/// What each held at most in any recording.
fn by_role(seen: &[&Observation]) -> Vec<RoleReport> {
    let mut most: BTreeMap<&Entity, &Held> = BTreeMap::new();
    for held in seen.iter().flat_map(|one| &one.held) {
        let known = most.entry(&held.entity).or_insert(held);
        if held.peak() > known.peak() {
            *known = held;
        }
    }
    let mut roles: Vec<RoleReport> = most
        .into_values()
        .map(|held| RoleReport {
            role: held.entity.role.clone(),
            process: held.entity.process.clone(),
            at_attach: held.at_attach,
            growth: held.growth.peak,
            peak: held.peak(),
            low: held.peak().saturating_sub(held.less),
            high: held.at_attach.map(|_| held.peak().saturating_add(held.more)),
            plateau: held.growth.plateau,
        })
        .collect();
    roles.sort_by(|a, b| b.peak.cmp(&a.peak).then_with(|| a.process.cmp(&b.process)));
    roles
}

/// Each kind of kernel memory at its most in any recording.
fn kernel(seen: &[&Observation]) -> BTreeMap<&'static str, u64> {
    let mut most = BTreeMap::new();
    for (kind, bytes) in seen.iter().flat_map(|one| &one.kernel_kinds) {
        let known: &mut u64 = most.entry(kind.as_str()).or_default();
        *known = (*known).max(*bytes);
    }
    most
}

/// The largest growth that did not end, else the largest growth.
fn look_at(seen: &Observation) -> Option<LookAt> {
    let open = seen.held.iter().filter(|held| !held.growth.plateau);
    let held = open
        .max_by_key(|held| held.growth.peak)
        .filter(|held| held.growth.peak > seen.tolerance)
        .or_else(|| seen.held.iter().max_by_key(|held| held.growth.peak))?;
    let seconds = seconds(held.growth.grew_ns);
    Some(LookAt {
        role: held.entity.role.clone(),
        process: held.entity.process.clone(),
        growth: held.growth.peak,
        seconds,
        rate_bytes_per_s: if seconds > 0.0 {
            rate(held.growth.peak, seconds)
        } else {
            0.0
        },
    })
}

#[expect(clippy::cast_precision_loss, reason = "a rate is given to a few digits")]
fn rate(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds
}

/// Each consumer at its most in any recording.
fn taken(seen: &[&Observation]) -> Taken {
    let mut most = Taken {
        threads: true,
        ..Taken::default()
    };
    for taken in seen.iter().map(|one| one.taken()) {
        most.total = most.total.max(taken.total);
        for (consumer, bytes) in taken.by {
            let known = most.by.entry(consumer).or_default();
            *known = (*known).max(bytes);
        }
    }
    most
}

/// Recordings of less than this show a load only where it is made on purpose, nanoseconds.
const SHORT_NS: u64 = 600_000_000_000;

fn notes(seen: &[&Observation], enough: usize, all: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if enough < all {
        notes.push(format!(
            "{} of {all} recordings do not say enough and are left out",
            all - enough
        ));
    }
    let differs = |of: fn(&Observation) -> (u64, Option<u64>)| {
        seen.windows(2).any(|pair| match pair {
            [a, b] => of(a) != of(b),
            _ => false,
        })
    };
    if differs(|one| (one.guest_ram, None)) {
        notes.push("guest RAM differs between the recordings: the latest size is advised on".to_owned());
    }
    if differs(|one| (0, one.limit)) {
        notes.push("the limit differs between the recordings: the latest is compared with".to_owned());
    }
    if seen.windows(2).any(|pair| matches!(pair, [a, b] if a.shape != b.shape)) {
        notes.push("QEMU's command line differs between the recordings: the latest is advised on".to_owned());
    }
    let longest = seen.iter().map(|one| one.window.1.saturating_sub(one.window.0)).max();
    if let Some(ns) = longest.filter(|ns| *ns < SHORT_NS) {
        notes.push(format!(
            "the longest recording covers {:.0} s: record the VM's heaviest hours for advice to rely on",
            seconds(ns)
        ));
    }
    if seen.iter().any(|one| !one.complete) {
        notes.push("a recording has no end: up to its last second is missing".to_owned());
    }
    let unexplained = seen.iter().map(|one| one.unexplained).max().unwrap_or(0);
    if seen
        .iter()
        .any(|one| one.unexplained > (one.peak / 10).max(one.tolerance))
    {
        notes.push(format!(
            "up to {} of growth is explained by no thread: the limits hold it, the roles do not show it",
            Bytes(unexplained)
        ));
    }
    if seen
        .iter()
        .any(|one| one.held.iter().any(|held| held.at_attach.is_none()))
    {
        notes.push("what a process held before the tracer attached is not known where it says so".to_owned());
    }
    notes
}
