use super::*;
use crate::oomlog::parse;
use crate::recording::event::{Header, Oom, OomTask};

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
fn the_text_of_every_fixture() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/oom");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the fixtures are in the repository") {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        insta::assert_snapshot!(name.clone(), text(&fixture(&name)));
        seen += 1;
    }
    assert!(seen >= 18);
}

#[test]
fn the_json_of_the_harvester_cases() {
    for name in ["harvester-1-virt-launcher.log", "harvester-2-vcpu.log"] {
        insta::assert_json_snapshot!(format!("{name}.json"), explain(&fixture(name)[0], None));
    }
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

fn recorded() -> (Header, Oom) {
    let header = Header {
        cpus: 4,
        page_size: 4096,
        ..Header::default()
    };
    let kill = Oom {
        usage: 65_536 << 10,
        limit: 65_536 << 10,
        order: Some(0),
        invoker: OomTask {
            tid: 119,
            comm: "worker".to_owned(),
            ..OomTask::default()
        },
        victim: OomTask {
            tid: 113,
            pid: 113,
            comm: "qemu-system-x86".to_owned(),
            ..OomTask::default()
        },
        ..Oom::default()
    };
    (header, kill)
}

#[test]
fn a_recording_that_agrees() {
    let (header, kill) = recorded();
    let reports = fixture("v1-6.1-worker_podlimit.kmsg");
    let result = compare(&reports, &header, &[(6_844_000_000, kill)]);
    assert_eq!(
        (result.matched, result.compared, result.disagreements),
        (1, 7, Vec::new())
    );
}

#[test]
fn every_disagreement_is_listed() {
    let (header, mut kill) = recorded();
    kill.invoker.tid = 7;
    kill.limit += 4096;
    let mut other = kill.clone();
    other.victim.pid = 9;
    let reports = fixture("v1-6.1-worker_podlimit.kmsg");
    let result = compare(&reports, &header, &[(60_000_000_000, kill), (1, other)]);
    assert_eq!(result.disagreements.len(), 4, "{result:?}");
    let none = compare(&reports, &header, &[]);
    assert_eq!((none.matched, none.disagreements.len()), (0, 1));
}
