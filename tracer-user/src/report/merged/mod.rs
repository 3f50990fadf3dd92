//! Reports on several recordings as one: the same VM across recordings and nodes, every kill in order.

mod text;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::verdict::verdict;
use super::{PodReport, Report, Window};
use crate::role::Role;

pub use text::render;
pub(super) use text::{headline, vm_name};

/// Name and major version of the JSON form.
pub const SCHEMA: &str = "headroom.merged/1";

/// Findings of several recordings. Sizes are bytes, times UTC in RFC 3339 by the clocks of the nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Merged {
    /// [`SCHEMA`]
    pub schema: &'static str,
    /// From the first event of all to the last.
    pub window: Window,
    /// Where they were recorded.
    pub nodes: Vec<String>,
    /// By VM, those that were killed first, then by growth of overhead.
    pub vms: Vec<Vm>,
    /// Every kill, in the order of time.
    pub kills: Vec<Kill>,
    /// The reports, in the order given.
    pub recordings: Vec<Report>,
}

/// A VM: by namespace and name wherever it ran, without a namespace by node too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vm {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Its name; empty for a bare cgroup.
    pub vm: String,
    /// Each pod of it in each recording, in the order of time.
    pub stays: Vec<Stay>,
    /// Largest usage in any.
    pub usage_peak: u64,
    /// Smallest limit less usage in any.
    pub headroom_min: Option<u64>,
    /// Growth of guest RAM in all of them that count.
    pub guest_growth: i64,
    /// Growth of overhead in all of them that count.
    pub overhead_growth: i64,
    /// Growth that no account explains in all of them that count.
    pub unexplained: i64,
    /// Growth of overhead by role in all of them that count, the largest first.
    pub by_role: Vec<RoleSum>,
    /// The finding of the stay that ended in a kill, else of the one whose culprit grew most.
    pub verdict: String,
    /// Number of that stay.
    pub verdict_of: usize,
}

/// A pod of a VM in a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stay {
    /// Index into the recordings.
    pub recording: usize,
    /// Index into its pods.
    pub pod: usize,
    /// Its node.
    pub host: String,
    /// The stretch that growth is counted over; absent when there was no sample.
    pub window: Option<Window>,
    /// Growth of overhead in it.
    pub overhead_growth: i64,
    /// Smallest limit less usage in it.
    pub headroom_min: Option<u64>,
    /// Kills in it.
    pub kills: usize,
    /// Its growth is part of the VM's. What another recording of the same pod has seen as well counts once.
    pub counted: bool,
}

/// A role of a VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleSum {
    /// The role.
    pub role: Role,
    /// Growth of its overhead.
    pub overhead_growth: i64,
    /// The same by kind.
    pub kinds: BTreeMap<&'static str, i64>,
}

/// A kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kill {
    /// When.
    pub at: String,
    /// Index into the recordings.
    pub recording: usize,
    /// Index into its pods.
    pub pod: usize,
    /// Index into that pod's kills.
    pub oom: usize,
}

impl Merged {
    /// Puts reports together.
    #[must_use]
    pub fn new(recordings: Vec<Report>) -> Self {
        let nodes: BTreeSet<&str> = recordings.iter().map(|report| report.node.host.as_str()).collect();
        let nodes = nodes.into_iter().map(str::to_owned).collect();
        let window = Window {
            start: earliest(recordings.iter().map(|report| report.window.start.as_str())),
            end: latest(recordings.iter().map(|report| report.window.end.as_str())),
        };
        Self {
            schema: SCHEMA,
            window,
            nodes,
            vms: vms(&recordings),
            kills: kills(&recordings),
            recordings,
        }
    }

    /// The pod of a stay or kill.
    #[must_use]
    pub fn pod(&self, recording: usize, pod: usize) -> Option<(&Report, &PodReport)> {
        let report = self.recordings.get(recording)?;
        Some((report, report.pods.get(pod)?))
    }
}

/// What makes pods one VM.
type Identity<'a> = (&'a str, &'a str, &'a str);

fn identity<'a>(report: &'a Report, pod: &'a PodReport) -> Identity<'a> {
    let host = report.node.host.as_str();
    match (pod.namespace.as_str(), pod.vm.as_str()) {
        (_, "") => (host, "", &pod.cgroup),
        // libvirt's names are those of one node.
        ("", vm) => (host, "", vm),
        (namespace, vm) => ("", namespace, vm),
    }
}

/// A pod that is being put into its place.
struct Place<'a> {
    recording: usize,
    pod: usize,
    report: &'a Report,
    found: &'a PodReport,
}

fn vms(recordings: &[Report]) -> Vec<Vm> {
    let mut by_identity: BTreeMap<Identity<'_>, Vec<Place<'_>>> = BTreeMap::new();
    for (recording, report) in recordings.iter().enumerate() {
        for (pod, found) in report.pods.iter().enumerate() {
            by_identity.entry(identity(report, found)).or_default().push(Place {
                recording,
                pod,
                report,
                found,
            });
        }
    }
    let mut vms: Vec<Vm> = by_identity.into_values().filter_map(vm).collect();
    let killed = |vm: &Vm| vm.stays.iter().any(|stay| stay.kills > 0);
    vms.sort_by_key(|vm| std::cmp::Reverse((killed(vm), vm.overhead_growth)));
    vms
}

fn vm(mut places: Vec<Place<'_>>) -> Option<Vm> {
    places.sort_by_key(|place| place.found.window.as_ref().map(|window| time(&window.start)));
    let first = places.first()?.found;
    let mut sum = Vm {
        namespace: first.namespace.clone(),
        vm: first.vm.clone(),
        stays: Vec::new(),
        usage_peak: 0,
        headroom_min: None,
        guest_growth: 0,
        overhead_growth: 0,
        unexplained: 0,
        by_role: Vec::new(),
        verdict: String::new(),
        verdict_of: 0,
    };
    let mut roles: BTreeMap<&Role, BTreeMap<&'static str, i64>> = BTreeMap::new();
    // Until when a pod's growth is counted already.
    let mut counted_to: BTreeMap<(&str, &str), Timestamp> = BTreeMap::new();
    for place in &places {
        let pod = place.found;
        let host = place.report.node.host.as_str();
        let counted = pod.window.as_ref().is_some_and(|window| {
            let to = counted_to.entry((host, &pod.cgroup)).or_insert(Timestamp::MIN);
            let apart = time(&window.start) >= *to;
            if apart {
                *to = time(&window.end);
            }
            apart
        });
        if counted {
            sum.guest_growth = sum.guest_growth.saturating_add(pod.guest_growth);
            sum.overhead_growth = sum.overhead_growth.saturating_add(pod.overhead.growth);
            sum.unexplained = sum.unexplained.saturating_add(pod.unexplained);
            for role in &pod.by_role {
                let kinds = roles.entry(&role.role).or_default();
                for (kind, bytes) in &role.kinds {
                    let kind = kinds.entry(kind).or_default();
                    *kind = kind.saturating_add(*bytes);
                }
            }
        }
        sum.usage_peak = sum.usage_peak.max(pod.usage.peak);
        sum.headroom_min = sum.headroom_min.into_iter().chain(pod.headroom_min).min();
        sum.stays.push(Stay {
            recording: place.recording,
            pod: place.pod,
            host: host.to_owned(),
            window: pod.window.clone(),
            overhead_growth: pod.overhead.growth,
            headroom_min: pod.headroom_min,
            kills: pod.oom.len(),
            counted,
        });
    }
    sum.by_role = by_role(roles);
    let blamed = |place: &Place<'_>| place.found.culprit.as_ref().map(|culprit| culprit.bytes);
    let telling = (0..)
        .zip(&places)
        .max_by_key(|(_, place)| (!place.found.oom.is_empty(), blamed(place)));
    if let Some((index, place)) = telling {
        sum.verdict = verdict(place.found);
        sum.verdict_of = index;
    }
    Some(sum)
}

fn by_role(roles: BTreeMap<&Role, BTreeMap<&'static str, i64>>) -> Vec<RoleSum> {
    let sum =
        |kinds: &BTreeMap<&'static str, i64>| kinds.values().fold(0, |sum: i64, bytes| sum.saturating_add(*bytes));
    let mut roles: Vec<RoleSum> = roles
        .into_iter()
        .map(|(role, kinds)| RoleSum {
            role: role.clone(),
            overhead_growth: sum(&kinds),
            kinds,
        })
        .collect();
    roles.sort_by_key(|role| std::cmp::Reverse(role.overhead_growth));
    roles
}

fn kills(recordings: &[Report]) -> Vec<Kill> {
    let mut kills = Vec::new();
    for (recording, report) in recordings.iter().enumerate() {
        for (pod, found) in report.pods.iter().enumerate() {
            kills.extend(found.oom.iter().enumerate().map(|(oom, kill)| Kill {
                at: kill.at.clone(),
                recording,
                pod,
                oom,
            }));
        }
    }
    kills.sort_by_key(|kill| time(&kill.at));
    // One that two recordings of a node saw is one.
    let seen = |kill: &Kill| {
        let report = recordings.get(kill.recording)?;
        let oom = report.pods.get(kill.pod)?.oom.get(kill.oom)?;
        Some((
            report.node.host.as_str(),
            oom.victim.pid,
            time(&oom.at).as_millisecond(),
        ))
    };
    kills.dedup_by(|a, b| seen(a) == seen(b));
    kills
}

/// A time of a report. What is none, and no report holds, comes first.
fn time(rfc3339: &str) -> Timestamp {
    rfc3339.parse().unwrap_or(Timestamp::MIN)
}

fn earliest<'a>(times: impl Iterator<Item = &'a str>) -> String {
    times.min_by_key(|at| time(at)).unwrap_or_default().to_owned()
}

fn latest<'a>(times: impl Iterator<Item = &'a str>) -> String {
    times.max_by_key(|at| time(at)).unwrap_or_default().to_owned()
}
