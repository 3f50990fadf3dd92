//! How much of the limit is the guest's own RAM.

use serde::Serialize;

use super::LimitHit;
use crate::oomlog::{LevelKind, Report, Task, role};
use crate::sizing::fit::{Fit, Known, fit};
use crate::sizing::overhead::overhead;
use crate::sizing::ratio::Ratio;
use crate::sizing::version::KubeVirt;
use crate::sizing::vm::Vm;
use crate::sizing::{GIB, MIB};
use crate::units::Bytes;

/// Guest RAM, as far as a report tells.
#[derive(Clone, Debug, Serialize)]
pub struct GuestRam {
    /// Its size.
    pub size: Option<u64>,
    /// How sure that is.
    pub sure: Sure,
    /// Why.
    pub why: String,
    /// The VM whose limit it is.
    #[serde(skip)]
    pub(super) fit: Option<Fit>,
}

/// How sure a size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sure {
    /// The reader said so.
    Given,
    /// The limit is exactly what KubeVirt gives such a VM, and QEMU's memory agrees.
    Likely,
    /// A round size that leaves room for the overhead.
    Possible,
    /// Nothing fits.
    Unknown,
}

impl Sure {
    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Likely => "likely",
            Self::Possible => "possible",
            Self::Unknown => "unknown",
        }
    }
}

/// QEMU may hold this much beside guest RAM, or an eighth of it, before its size speaks against a guess.
const QEMU_SLACK: u64 = GIB;

pub(super) fn qemu(report: &Report) -> Option<&Task> {
    report
        .tasks
        .iter()
        .filter(|task| role::is_qemu(&task.comm))
        .max_by_key(|task| task.rss)
}

pub(super) fn guest_ram(report: &Report, hit: Option<&LimitHit>, given: Option<u64>) -> GuestRam {
    if let Some(size) = given {
        return GuestRam {
            size: Some(size),
            sure: Sure::Given,
            why: "given".to_owned(),
            fit: None,
        };
    }
    let Some(qemu) = qemu(report) else {
        return unknown("the log lists no QEMU process");
    };
    let Some(limit) = report.memory.and_then(|memory| memory.limit) else {
        return unknown("the log shows no limit");
    };
    let kind = hit.and_then(|hit| hit.level.as_ref()).map(|level| level.kind);
    if matches!(kind, Some(LevelKind::Pods | LevelKind::Root | LevelKind::Machine)) {
        return unknown("the limit is not that of one pod");
    }
    let resident = qemu.rss.saturating_mul(report.page_size());
    // The guest may not have touched all of its RAM, but hardly runs in half of it when memory is short.
    let agrees = |size: u64| resident >= size / 2 && resident <= size.saturating_add(QEMU_SLACK.min(size / 8));
    if let Some(fit) = fit(limit, Known::default()).into_iter().find(|fit| agrees(fit.memory)) {
        return exact(&fit, resident);
    }
    match round_below(limit).filter(|size| agrees(*size)) {
        Some(size) => GuestRam {
            size: Some(size),
            sure: Sure::Possible,
            why: format!(
                "the largest round size that leaves KubeVirt's least overhead below the limit, and QEMU holds {}",
                Bytes(resident)
            ),
            fit: None,
        },
        None => unknown("no usual size fits between QEMU's memory and the limit"),
    }
}

fn unknown(why: &str) -> GuestRam {
    GuestRam {
        size: None,
        sure: Sure::Unknown,
        why: why.to_owned(),
        fit: None,
    }
}

fn exact(fit: &Fit, resident: u64) -> GuestRam {
    let plural = if fit.vcpus == 1 { "" } else { "s" };
    GuestRam {
        size: Some(fit.memory),
        sure: Sure::Likely,
        why: format!(
            "the limit is exactly what KubeVirt {}, the first with that arithmetic, gives a VM of {} with {} vCPU{plural}, \
             and QEMU holds {}",
            fit.kubevirt,
            Bytes(fit.memory),
            fit.vcpus,
            Bytes(resident)
        ),
        fit: Some(fit.clone()),
    }
}

/// Whole GiB, or steps of 256 MiB below 4 GiB: the largest that leaves the least overhead that any release budgets.
fn round_below(limit: u64) -> Option<u64> {
    let step = if limit <= 4 * GIB { 256 * MIB } else { GIB };
    let least = KubeVirt::distinct()
        .into_iter()
        .filter_map(|release| {
            let vm = Vm {
                request: Some(0),
                vcpus: 1,
                no_graphics: true,
                ..Vm::default()
            };
            overhead(release, &vm, Ratio::ONE).ok()
        })
        .map(|overhead| overhead.bytes)
        .min()?;
    let size = limit.checked_sub(least)? / step * step;
    (size > 0).then_some(size)
}
