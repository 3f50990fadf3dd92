//! What several recordings say together, above each of them.

use super::anchor;
use super::cell::{name, stretch};
use super::pod::tone;
use crate::report::merged::{Kill, Merged, Vm, headline, vm_name};
use crate::report::words;
use crate::report::words::moment;
use crate::units::{Bytes, SignedBytes};

/// What the template shows of them.
pub(super) struct MergedView {
    pub headline: String,
    pub vms: Vec<VmView>,
    pub kills: Vec<KillRow>,
}

/// A VM.
pub(super) struct VmView {
    pub name: String,
    pub tone: &'static str,
    pub verdict: String,
    /// Where the verdict's tables are.
    pub anchor: String,
    pub stays: Vec<StayRow>,
    /// Of all its recordings; nothing where there is one.
    pub sum: String,
    pub roles: Vec<[String; 3]>,
}

/// A pod of a VM in a recording.
pub(super) struct StayRow {
    pub anchor: String,
    pub host: String,
    pub window: String,
    pub least: String,
    pub growth: String,
    pub kills: usize,
    pub counted: bool,
}

/// A kill.
pub(super) struct KillRow {
    pub anchor: String,
    pub at: String,
    pub host: String,
    pub vm: String,
    pub killed: String,
    pub invoker: String,
}

impl MergedView {
    pub(super) fn new(merged: &Merged) -> Self {
        Self {
            headline: headline(merged),
            vms: merged.vms.iter().map(|vm| VmView::new(merged, vm)).collect(),
            kills: merged.kills.iter().filter_map(|kill| kill_row(merged, kill)).collect(),
        }
    }
}

impl VmView {
    fn new(merged: &Merged, vm: &Vm) -> Self {
        let telling = vm.stays.get(vm.verdict_of);
        let pod = telling.and_then(|stay| merged.pod(stay.recording, stay.pod));
        let several = vm.stays.len() > 1;
        Self {
            name: vm_name(merged, vm),
            tone: pod.map_or("unknown", |(_, pod)| tone(pod)),
            verdict: vm.verdict.clone(),
            anchor: telling.map_or_else(String::new, |stay| anchor(stay.recording, stay.pod)),
            stays: vm
                .stays
                .iter()
                .map(|stay| StayRow {
                    anchor: anchor(stay.recording, stay.pod),
                    host: name(&stay.host),
                    window: match &stay.window {
                        Some(window) => stretch(&window.start, &window.end),
                        None => "no sample".to_owned(),
                    },
                    least: stay
                        .headroom_min
                        .map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string()),
                    growth: SignedBytes(stay.overhead_growth).to_string(),
                    kills: stay.kills,
                    counted: stay.counted,
                })
                .collect(),
            sum: if several {
                words::sum_of_stays(vm)
            } else {
                String::new()
            },
            roles: vm
                .by_role
                .iter()
                .filter(|_| several)
                .map(|role| {
                    [
                        name(role.role.to_string()),
                        SignedBytes(role.overhead_growth).to_string(),
                        words::kinds(&role.kinds),
                    ]
                })
                .collect(),
        }
    }
}

fn kill_row(merged: &Merged, kill: &Kill) -> Option<KillRow> {
    let (report, pod) = merged.pod(kill.recording, kill.pod)?;
    let oom = pod.oom.get(kill.oom)?;
    Some(KillRow {
        anchor: anchor(kill.recording, kill.pod),
        at: moment(&kill.at),
        host: name(&report.node.host),
        vm: words::name(pod),
        killed: name(&oom.victim.comm),
        invoker: words::invoker(oom),
    })
}
