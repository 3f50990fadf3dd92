use proptest::prelude::*;

use super::*;
use crate::oomlog::parse;
use crate::recording::event::{Body, Event, Header, Oom, OomTask, Pod};
use crate::sizing::version::KubeVirt;

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
fn processes_are_held_against_the_release_whose_limit_it_is() {
    let explained = explain(&fixture("harvester-2-vcpu.log")[0], None);
    let budgeted = explained.budgeted.as_ref().expect("a VM has that limit");
    assert_eq!(explained.kubevirt, "0.54.0");
    for task in &explained.tasks {
        let line = budgeted
            .breakdown
            .lines
            .iter()
            .find(|line| format!("helper {}", line.name) == task.role_name());
        if let Some(line) = line.filter(|line| line.budgeted > 0) {
            assert_eq!(task.budget, Some(line.budgeted), "{}", task.comm);
        }
    }
    let mut other = fixture("harvester-2-vcpu.log").remove(0);
    other.memory = Some(Counter {
        usage: 64 * GIB + 12345,
        limit: Some(64 * GIB + 12345),
        failcnt: 1,
    });
    assert_eq!(explain(&other, None).kubevirt, KubeVirt::NEWEST.0.to_string());
}

#[test]
fn the_limit_on_memory_and_swap_together_is_told_from_that_on_memory() {
    let mut report = fixture("v1-6.1-vcpu.kmsg").remove(0);
    let memory = report.memory.expect("the counter");
    let counter = |usage, limit| Counter {
        usage,
        limit: Some(limit),
        failcnt: 9,
    };
    report.memory = Some(counter(memory.usage - (8 << 20), memory.usage));
    report.memory_swap = Some(counter(memory.usage, memory.usage));
    let explained = explain(&report, None);
    let hit = explained.limit.as_ref().expect("a limit");
    assert_eq!(
        (hit.of, hit.limit, hit.failcnt),
        (Limited::MemoryAndSwap, Some(memory.usage), 9)
    );
    assert_eq!(explained.memory.swap, Some(8 << 20));
    assert!(
        explained.verdict[0].contains("on memory and swap together"),
        "{:?}",
        explained.verdict
    );
    assert!(text(&[report]).contains("8.0 MiB swapped out"));

    let alone = explain(&fixture("v1-6.1-vcpu.kmsg")[0], None);
    assert_eq!(alone.limit.map(|hit| hit.of), Some(Limited::Memory));
}

/// kernel: mm/memcontrol-v1.c memcg1_stat_format (6.5 and later)
#[test]
fn statistics_under_the_names_of_cgroup_v1_are_read() {
    let mut report = fixture("v1-6.1-vcpu.kmsg").remove(0);
    let (anon, file) = (report.stats["anon"], report.stats["file"]);
    report.stats.clear();
    for (name, bytes) in [
        ("cache", 0),
        ("rss", 0),
        ("shmem", 0),
        ("total_cache", file),
        ("total_rss", anon),
    ] {
        report.stats.insert(name.to_owned(), bytes);
    }
    let memory = explain(&report, None).memory;
    assert_eq!((memory.anon, memory.page_cache), (Some(anon), Some(file)));
}

/// A report on what the machine, or some nodes of it, ran out of, as kernels since 5.10 print it.
fn without_a_limit(constraint: &str) -> Report {
    let log = format!(
        "CPU 2/KVM invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=979\n\
         CPU: 3 PID: 4711 Comm: CPU 2/KVM Not tainted 5.14.21-150500.55.44-default #1 SLE15-SP5\n\
         Mem-Info:\nactive_anon:1 inactive_anon:2 isolated_anon:0\n 2097052 pages RAM\n 52052 pages reserved\n\
         Total swap = 400000kB\n\
         Tasks state (memory values in pages):\n\
         [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
         [   1700]     0  1700   500000   600000   409600        0          -999 kubelet\n\
         [   4700]   107  4700  1500000  1000000  8388608        0           979 qemu-system-x86\n\
         [   4900]   107  4900  1500000   990000  8388608        0           999 qemu-system-x86\n\
         oom-kill:constraint={constraint},nodemask=(null),cpuset=cri-containerd-1.scope,mems_allowed=0,global_oom,\
         task_memcg=/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod968a06fb_9ab9_4819_8caf_0392ddff3d9b.slice,\
         task=qemu-system-x86,pid=4900,uid=107\n\
         Out of memory: Killed process 4900 (qemu-system-x86) total-vm:6000000kB, anon-rss:3960000kB, file-rss:0kB, \
         shmem-rss:0kB, UID:107 pgtables:8192kB oom_score_adj:999\n"
    );
    let mut reports = parse(log.as_bytes()).reports;
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].unparsed, Vec::<String>::new());
    reports.remove(0)
}

#[test]
fn what_the_node_or_some_of_its_memory_ran_out_of_is_told() {
    for (constraint, words) in [
        (
            "CONSTRAINT_NONE",
            "The node ran out of memory when vcpu 2 asked for more",
        ),
        (
            "CONSTRAINT_CPUSET",
            "The NUMA nodes that the cpuset allows ran out of memory",
        ),
        (
            "CONSTRAINT_MEMORY_POLICY",
            "The NUMA nodes that the memory policy allows ran out of memory",
        ),
    ] {
        let report = without_a_limit(constraint);
        let explained = explain(&report, None);
        assert!(explained.verdict[0].starts_with(words), "{:?}", explained.verdict);
        assert!(explained.verdict[0].contains("killed qemu-system-x86 (pid 4900), which is not the largest process"));
        assert!(explained.limit.is_none() && explained.overhead.is_none());
        assert_eq!(explained.guest_ram.sure, Sure::Unknown);
        let victim = explained.victim.expect("a victim");
        // Of all memory: 2045000 pages of RAM and 100000 of swap. Of some nodes it is not known.
        let score = (constraint == "CONSTRAINT_NONE").then_some(990_000 + 2048 + 999 * 2145);
        assert_eq!((victim.score, victim.rank), (score, score.map(|_| 1)), "{constraint}");
        let said = text(&[report]);
        let reason = if score.is_some() {
            "its oom_score_adj decided"
        } else {
            "why is not in the log"
        };
        assert!(said.contains(reason), "{said}");
    }
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
