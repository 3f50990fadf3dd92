use proptest::prelude::*;

use super::*;
use crate::oomlog::parse;
use crate::recording::event::{Body, Event, Header, Oom, OomTask, Pod};

const GIB: u64 = 1 << 30;

fn fixture(name: &str) -> Vec<Report> {
    let path = format!("{}/../tests/fixtures/oom/{name}", env!("CARGO_MANIFEST_DIR"));
    parse(&std::fs::read(path).expect("a fixture")).reports
}

fn text(reports: &[Report]) -> String {
    let mut out = Vec::new();
    for report in reports {
        render(&explain(report, None), &mut out).expect("memory takes all");
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn kernel_memory_alone_exceeds_the_budget_of_the_second_harvester_case() {
    let explained = explain(&fixture("harvester-2-vcpu.log")[0], Some(64 * GIB));
    assert_eq!(explained.invoker.map(|invoker| invoker.role), Some(Role::Vcpu(11)));
    assert_eq!(explained.overhead.map(|overhead| overhead.budget), Some(471_040 << 10));
    assert_eq!(explained.memory.kernel, Some(633_636 << 10));
    assert_eq!(explained.tasks[0].page_tables, 129 << 20 | 12 << 10);
    assert!(
        explained.verdict[1].contains("alone is more than the 460.0 MiB"),
        "{:?}",
        explained.verdict
    );
}

#[test]
fn what_adds_up_to_more_than_usage_is_not_a_negative_rest() {
    let explained = explain(&fixture("harvester-1-virt-launcher.log")[0], Some(16 * GIB));
    assert_eq!(explained.memory.unexplained, None);
    assert!(explained.memory.counted_twice.is_some_and(|twice| twice > 90 << 20));
}

#[test]
fn the_victim_is_told_from_the_largest() {
    let mut report = fixture("harvester-2-vcpu.log").remove(0);
    let largest = explain(&report, None).victim.expect("a victim");
    assert_eq!((largest.rank, largest.is_largest), (Some(1), Some(true)));
    for task in &mut report.tasks {
        task.oom_score_adj = if task.comm == "libvirtd" { 1000 } else { -999 };
    }
    if let Some(selection) = &mut report.selection {
        selection.pid = Some(70762);
        selection.comm = "libvirtd".to_owned();
    }
    let chosen = explain(&report, None).victim.expect("a victim");
    assert_eq!((chosen.rank, chosen.is_largest), (Some(1), Some(false)));
}

#[test]
fn a_process_that_nothing_is_budgeted_for_is_named() {
    let mut report = fixture("v2-6.1-vcpu.kmsg").remove(0);
    let mut holder = report.tasks[0].clone();
    holder.comm = "memhold".to_owned();
    holder.pid = 4000;
    holder.rss = 9000;
    report.tasks.push(holder);
    let verdict = explain(&report, None).verdict;
    assert_eq!(
        verdict[1],
        "memhold held 35.2 MiB, and KubeVirt budgets nothing for it."
    );
}

#[test]
fn no_size_of_guest_ram_is_guessed_that_qemu_outgrew() {
    let mut report = fixture("v2-6.1-vcpu.kmsg").remove(0);
    let counter = |mib: u64| Counter {
        usage: mib << 20,
        limit: Some(mib << 20),
        failcnt: 0,
    };
    report.memory = Some(counter(688));
    let with_qemu = |report: &mut Report, mib: u64| {
        for task in &mut report.tasks {
            if role::is_qemu(&task.comm) {
                task.rss = mib << 8;
            }
        }
        explain(report, None).guest_ram
    };
    assert_eq!(with_qemu(&mut report, 442).sure, Sure::Unknown);
    let guest = with_qemu(&mut report, 270);
    assert_eq!((guest.size, guest.sure), (Some(256 << 20), Sure::Possible));
}

#[test]
fn hostile_names_are_escaped() {
    let mut report = fixture("harvester-2-vcpu.log").remove(0);
    for task in &mut report.tasks {
        task.comm = "\x1b[31mqemu\n".to_owned();
    }
    if let Some(invoker) = &mut report.invoker {
        invoker.comm = "\x1b]0;x\x07".to_owned();
    }
    assert!(!text(&[report]).contains(['\x1b', '\x07']));
}

const CONTAINER: &str = "/kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-pod3f1c6c1e_7d8b_4a30_9f0e_2f6a1b7c9d10_worker_podlimit.slice";

fn kill() -> Oom {
    Oom {
        pod: Some(0),
        oom_memcg: 7,
        usage: 65_536 << 10,
        limit: 65_536 << 10,
        order: Some(0),
        gfp: Some(0xcc0),
        constraint: Some("memcg".to_owned()),
        invoker: OomTask {
            tid: 119,
            comm: "worker".to_owned(),
            role: Some(Role::BlockWorker),
            ..OomTask::default()
        },
        victim: OomTask {
            tid: 113,
            pid: 113,
            comm: "qemu-system-x86".to_owned(),
            role: Some(Role::MainLoop),
        },
        ..Oom::default()
    }
}

fn compared(reports: &[Report], kills: &[(u64, Oom)], pod: Pod) -> Comparison {
    let mut recorded = Recorded::default();
    let header = Header {
        cpus: 4,
        page_size: 4096,
        ..Header::default()
    };
    let kills = kills.iter().map(|(t, kill)| (*t, Body::Oom(kill.clone())));
    for (t, body) in [(0, Body::Header(header)), (0, Body::Pod(pod))]
        .into_iter()
        .chain(kills)
    {
        recorded.take(Event { t, body });
    }
    let explanations: Vec<_> = reports.iter().map(|report| explain(report, None)).collect();
    compare(reports, &explanations, &recorded)
}

#[test]
fn a_recording_that_agrees() {
    let reports = fixture("v1-6.1-worker_podlimit.kmsg");
    // A thread of the victim that dies later is marked once more.
    let again = (6_850_000_000, kill());
    let result = compared(&reports, &[(6_844_000_000, kill()), again], Pod::default());
    assert_eq!(
        (result.matched, result.compared, result.disagreements),
        (1, 11, Vec::new())
    );
}

#[test]
fn every_disagreement_is_listed() {
    let reports = fixture("v1-6.1-worker_podlimit.kmsg");
    let mut kill = kill();
    kill.invoker.tid = 7;
    kill.invoker.role = Some(Role::Vcpu(3));
    kill.limit += 4096;
    let mut other = kill.clone();
    other.victim.pid = 9;
    let pod = Pod {
        memcg: 7,
        cgroup: "/elsewhere".to_owned(),
        ..Pod::default()
    };
    let result = compared(&reports, &[(60_000_000_000, kill), (1, other)], pod);
    for words in [
        "the invoker's thread is 119 in the log and 7",
        "the invoker's role is block-worker in the log and vcpu 3",
        "the limit is 67108864 in the log and 67112960",
        "the time, in microseconds,",
        &format!("the cgroup at its limit is {CONTAINER} in the log and /elsewhere"),
        "process 113 is qemu-system-x86 in the log and missing in the recording",
        "the recording has a kill of qemu-system-x86 (pid 9), the log has none",
    ] {
        let listed = result.disagreements.iter().filter(|line| line.contains(words));
        assert_eq!(listed.count(), 1, "{words}: {result:#?}");
    }
    let none = compared(&reports, &[], Pod::default());
    assert_eq!((none.matched, none.disagreements.len()), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_numbers_are_survived(
        usage in any::<u64>(),
        limit in any::<Option<u64>>(),
        kmem in any::<u64>(),
        guest in any::<Option<u64>>(),
        rows in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>()), 6),
    ) {
        let mut report = fixture("harvester-2-vcpu.log").remove(0);
        report.memory = Some(Counter { usage, limit, failcnt: u64::MAX });
        report.kmem = Some(Counter { usage: kmem, limit: None, failcnt: 0 });
        for (task, (rss, swapents, pgtables, adj)) in report.tasks.iter_mut().zip(rows) {
            (task.rss, task.swapents, task.pgtables, task.oom_score_adj) = (rss, swapents, pgtables, adj);
        }
        let explained = explain(&report, guest);
        let mut out = Vec::new();
        render(&explained, &mut out).expect("memory takes all");
        prop_assert!(!out.is_empty());
        prop_assert_eq!(explained.guest_ram.sure == Sure::Given, guest.is_some());
    }
}
