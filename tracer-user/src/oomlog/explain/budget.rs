//! KubeVirt's budget against what the log shows.

use super::guest::{GuestRam, qemu};
use super::memory::{Memory, overhead};
use crate::oomlog::{Report, Task, role};
use crate::recording::event::VmShape;
use crate::role::Role;
use crate::sizing::breakdown::{Consumer, Taken};
use crate::sizing::ratio::Ratio;
use crate::sizing::spec::{self, Basis, Budgeted, Known};
use crate::sizing::version::KubeVirt;

/// Only for a limit that a usual VM has exactly: a log says nothing else of the VM.
pub(super) fn budgeted(report: &Report, guest: &GuestRam, memory: &Memory) -> Option<Budgeted> {
    let limit = report.memory?.limit;
    let taken = taken(report, guest, memory)?;
    let (known, shape) = match &guest.fit {
        Some(fit) => (
            Known {
                kubevirt: KubeVirt::named(&fit.kubevirt).ok(),
                ratio: Ratio::kubevirt(fit.ratio).ok().map(Some),
                overcommit: Some(fit.overcommit),
                ..Known::default()
            },
            Some(VmShape {
                vcpus: u32::try_from(fit.vcpus).ok()?,
                graphics: true,
                ..VmShape::default()
            }),
        ),
        None => (Known::default(), None),
    };
    spec::budgeted(&known, guest.size?, limit, shape, &taken).filter(|budgeted| budgeted.shape.basis == Basis::Matched)
}

/// The release whose limit it is; the newest where none has that limit.
pub(super) fn release(budgeted: Option<&Budgeted>) -> KubeVirt {
    budgeted
        .and_then(|budgeted| KubeVirt::named(&budgeted.shape.kubevirt).ok())
        .unwrap_or(KubeVirt::NEWEST)
}

/// QEMU's threads are not told apart in a log.
fn taken(report: &Report, guest: &GuestRam, memory: &Memory) -> Option<Taken> {
    let page_size = report.page_size();
    let own = |task: &Task| {
        // Mapped files are mostly charged to others, where the log tells them.
        let pages = task
            .rss_anon
            .zip(task.rss_shmem)
            .map_or(task.rss, |(anon, shmem)| anon.saturating_add(shmem));
        pages.saturating_mul(page_size)
    };
    let main = qemu(report)?;
    let mut taken = Taken {
        total: overhead(report, guest).map(|overhead| overhead.at_least),
        ..Taken::default()
    };
    if let Some(kernel) = memory.kernel {
        taken.add(Consumer::Kernel, kernel);
    }
    for task in &report.tasks {
        if task.pid == main.pid {
            // With less resident than the guest has, some of it is guest RAM that is yet to come, and the rest unknown.
            if let Some(bytes) = own(task).checked_sub(guest.size?) {
                taken.add(Consumer::Qemu, bytes);
            }
            continue;
        }
        let name = match role::of_process(&task.comm) {
            Role::Helper(name) => name,
            _ => task.comm.clone(),
        };
        taken.add(Consumer::Process(name), own(task));
    }
    Some(taken)
}
