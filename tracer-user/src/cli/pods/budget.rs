//! What KubeVirt budgets for a pod, against what it takes now.

use tracer_common::Kind;

use crate::node::overview::Overview;
use crate::sizing::breakdown::{Consumer, Taken};
use crate::sizing::spec::{self, Budgeted, Known};

/// Nothing for what is no pod, or has no limit.
pub(super) fn budgeted(pod: &Overview) -> Option<Budgeted> {
    if pod.namespace.is_empty() {
        return None;
    }
    let guest = pod.guest_ram.as_ref()?;
    let charged = guest.size.saturating_sub(guest.hugetlb);
    spec::budgeted(&Known::default(), charged, pod.limit, pod.shape, &taken(pod)?)
}

/// QEMU's threads are not told apart: which of them took its heap is for a recording to say.
fn taken(pod: &Overview) -> Option<Taken> {
    let overhead = pod.overhead?.saturating_sub(pod.reclaimable_file.unwrap_or(0));
    let resident = pod.guest_ram.as_ref()?.resident?;
    let mut taken = Taken {
        total: Some(overhead),
        ..Taken::default()
    };
    let kernel = Kind::ALL.into_iter().filter(|kind| kind.is_kernel());
    let kernel = kernel.filter_map(|kind| pod.stat.get(kind.as_str()));
    taken.add(
        Consumer::Kernel,
        kernel.fold(0, |sum, bytes| sum.saturating_add(*bytes)),
    );
    for process in &pod.processes {
        if Some(process.pid) == pod.qemu_pid {
            taken.add(Consumer::Qemu, process.rss_anon.saturating_sub(resident));
        } else if process.rss_anon <= overhead {
            // A process with more maps guest RAM, which its figures do not tell from its own.
            taken.add(Consumer::Process(process.name.clone()), process.rss_anon);
        }
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::overview::{GuestRam, Process};
    use crate::recording::event::VmShape;
    use crate::sizing::{GIB, MIB};

    #[test]
    fn what_a_pod_takes_now_stands_against_its_budget() {
        let process = |pid, name: &str, anon: u64| Process {
            pid,
            name: name.to_owned(),
            rss: anon * MIB,
            rss_anon: anon * MIB,
            ..Process::default()
        };
        let pod = Overview {
            namespace: "shop".to_owned(),
            // KubeVirt 0.54, 16 GiB, 2 vCPUs.
            limit: Some(17_024_340 << 10),
            overhead: Some(300 * MIB),
            reclaimable_file: Some(40 * MIB),
            stat: [("pagetable", 20 * MIB), ("kmem", 30 * MIB), ("anon", 12 * GIB)].into(),
            guest_ram: Some(GuestRam {
                size: 16 * GIB,
                resident: Some(12 * GIB),
                ..GuestRam::default()
            }),
            shape: Some(VmShape {
                vcpus: 2,
                graphics: true,
                ..VmShape::default()
            }),
            qemu_pid: Some(1),
            processes: vec![
                process(1, "qemu", 12 * 1024 + 60),
                process(2, "virtqemud", 45),
                process(3, "passt", 12 * 1024),
            ],
            ..Overview::default()
        };
        let budgeted = budgeted(&pod).unwrap();
        let broken = &budgeted.breakdown;
        let line = |name: &str| broken.lines.iter().find(|line| line.name.contains(name)).unwrap();
        assert_eq!(line("page tables").taken, Some(50 * MIB));
        assert_eq!((line("qemu").taken, line("qemu").budgeted), (Some(60 * MIB), 70 * MIB));
        assert_eq!(
            (line("libvirtd").taken, line("libvirtd").budgeted),
            (Some(45 * MIB), 33 * MIB)
        );
        assert_eq!(
            (broken.taken, broken.not_told_apart),
            (Some(260 * MIB), 105 * MIB.cast_signed())
        );
        assert!(broken.lines.iter().all(|line| line.name != "passt"));
    }
}
