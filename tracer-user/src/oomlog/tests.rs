//! The parser against reports of real kernels, in every form that logs have, and against hostile input.

use proptest::prelude::*;

use super::{Report, parse};

const EXAMPLE_1: &str = include_str!("../../../tests/fixtures/oom/harvester-1-virt-launcher.log");
const EXAMPLE_2: &str = include_str!("../../../tests/fixtures/oom/harvester-2-vcpu.log");
const V1: &str = include_str!("../../../tests/fixtures/oom/v1-6.1-vcpu.kmsg");
const V2: &str = include_str!("../../../tests/fixtures/oom/v2-7.2-vcpu.kmsg");
const GROUP: &str = include_str!("../../../tests/fixtures/oom/v2-7.2-group.kmsg");

/// Every fixture: name and content.
fn fixtures() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/oom");
    let mut fixtures: Vec<_> = std::fs::read_dir(folder)
        .expect("the fixtures are in the repository")
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            (
                path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                text,
            )
        })
        .collect();
    fixtures.sort();
    fixtures
}

fn only(log: &str) -> Report {
    let mut reports = parse(log.as_bytes()).reports;
    assert_eq!(reports.len(), 1, "{reports:#?}");
    reports.remove(0)
}

/// The messages of a /dev/kmsg fixture, from the first of its report on.
fn messages(kmsg: &str) -> Vec<String> {
    kmsg.lines()
        .map(|line| line.split_once(';').expect("a record").1.to_owned())
        .skip_while(|line| !line.contains("invoked oom-killer"))
        .collect()
}

/// What a report says, without when and where it was printed.
fn facts(mut report: Report) -> Report {
    report.stamp = None;
    report.host = None;
    report.lines = super::LineCount::default();
    for kill in &mut report.kills {
        kill.stamp = None;
    }
    report
}

#[test]
fn every_fixture_parses_completely() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 18);
    for (name, text) in fixtures {
        let log = parse(text.as_bytes());
        let expected = if name.contains("launcher.kmsg") { 2 } else { 1 };
        assert_eq!(log.reports.len(), expected, "{name}");
        let mut lines = 0;
        for report in &log.reports {
            assert_eq!(report.unparsed, Vec::<String>::new(), "{name}");
            lines += report.lines.total;
            let (pid, comm) = report.victim().expect("a victim");
            assert_eq!(report.task(pid).map(|task| task.comm.as_str()), Some(comm), "{name}");
            let memory = report.memory.expect("the memory counter");
            assert_eq!(Some(memory.usage), memory.limit, "{name}");
            assert_eq!(report.page_size(), 4096, "{name}");
        }
        // One recording begins with an unrelated line.
        let inside = text.lines().skip_while(|line| !line.contains("invoked oom-killer"));
        assert_eq!(lines, inside.count() as u64, "{name}: every line is part of a report");
    }
}

#[test]
fn the_first_harvester_case() {
    let report = only(EXAMPLE_1);
    let invoker = report.invoker.as_ref().expect("an invoker");
    assert_eq!(
        (invoker.comm.as_str(), invoker.tid, invoker.cpu),
        ("virt-launcher", Some(40785), Some(40))
    );
    assert_eq!(invoker.kernel.as_deref(), Some("5.14.21-150400.24.60-default"));
    assert_eq!(
        report.memory.map(|memory| (memory.usage >> 10, memory.failcnt)),
        Some((17_024_340, 1243))
    );
    assert_eq!(report.memory_swap.and_then(|swap| swap.limit), None);
    assert_eq!(report.kmem.map(|kmem| kmem.usage >> 10), Some(143_556));
    assert_eq!((report.tasks.len(), report.lines.elided), (6, 2));
    assert_eq!(report.victim(), Some((39079, "qemu-system-x86")));
    assert_eq!(
        report.stamp.map(|stamp| stamp.printed).as_deref(),
        Some("Feb 03 19:57:08")
    );
}

#[test]
fn the_second_harvester_case() {
    let report = only(EXAMPLE_2);
    assert_eq!(
        report.invoker.as_ref().map(|invoker| invoker.comm.as_str()),
        Some("CPU 11/KVM")
    );
    assert_eq!(report.kmem.map(|kmem| kmem.usage >> 10), Some(633_636));
    assert_eq!(
        report.task(70870).map(|task| (task.rss, task.pgtables)),
        Some((16_718_510, 135_278_592))
    );
    assert_eq!(report.kills[0].anon_rss, Some(66_852_088 << 10));
    assert_eq!(report.reaped[0].file_rss, 132 << 10);
    assert_eq!(report.page_size(), 4096);
}

#[test]
fn statistics_and_split_rss_are_read() {
    let v1 = only(V1);
    assert!(
        v1.stats.contains_key("sec_pagetables"),
        "one line with escaped line breaks"
    );
    let v2 = only(V2);
    assert_eq!(v2.stats.len(), 71);
    assert_eq!(v2.tasks[4].rss_anon, Some(11203));
    assert!(v2.trace.iter().any(|line| line.starts_with("try_charge_memcg+")));
    assert_eq!(only(GROUP).kills.len(), 6);
    assert!(only(GROUP).group.is_some());
}

#[test]
fn every_form_of_a_log_gives_the_same_report() {
    let expected = facts(only(V2));
    let lines = messages(V2);
    let each = |form: &dyn Fn(&str) -> String| lines.iter().map(|line| form(line) + "\n").collect::<String>();
    let forms = [
        each(&|line| line.to_owned()),
        each(&|line| format!("[    5.298442] {line}")),
        each(&|line| format!("[    5.298442][  T110] {line}")),
        each(&|line| format!("[Thu May  9 14:52:38 2024] {line}")),
        each(&|line| format!("<4>Feb  3 19:57:08 node1 kernel: [    5.298442] {line}")),
        each(&|line| format!("2024-02-03T19:57:08+0000 node1 kernel: {line}")),
        each(&|line| format!("4,1,5298442,-,caller=T110;{line}\n SUBSYSTEM=x")),
        each(&|line| serde_json::json!({"MESSAGE": line, "_TRANSPORT": "kernel", "_HOSTNAME": "n"}).to_string()),
        each(&|line| serde_json::json!({"MESSAGE": line.as_bytes(), "_TRANSPORT": "kernel"}).to_string()),
        each(&|line| format!("__CURSOR=s\n__REALTIME_TIMESTAMP=1706990228123456\n_TRANSPORT=kernel\nMESSAGE={line}\n")),
        each(&|line| format!("{line}\r")),
        each(&|line| format!("[    5.298442] {line}\n[    5.298443] eth0: link up\n")).replace("eth0: link up", ""),
    ];
    for form in forms {
        assert_eq!(facts(only(&form)), expected, "{form}");
    }
}

#[test]
fn a_journal_field_with_line_breaks_is_read() {
    let mut log = Vec::new();
    for line in V1.lines() {
        let text = line.split_once(';').expect("a record").1.replace("\\x0a", "\n");
        log.extend_from_slice(b"__CURSOR=s\n_TRANSPORT=kernel\nMESSAGE\n");
        log.extend_from_slice(&(text.len() as u64).to_le_bytes());
        log.extend_from_slice(text.as_bytes());
        log.extend_from_slice(b"\n\n");
    }
    let reports = parse(&log).reports;
    assert_eq!(reports.into_iter().map(facts).collect::<Vec<_>>(), [facts(only(V1))]);
    // journalctl -k and dmesg print such a message over several lines, indented.
    let broken: String = messages(V1)
        .iter()
        .map(|line| {
            format!(
                "Feb 03 19:57:08 node1 kernel: {}\n",
                line.replace("\\x0a", "\n          ")
            )
        })
        .collect();
    assert_eq!(facts(only(&broken)), facts(only(V1)));
}

#[test]
fn other_lines_in_between_are_counted_or_left_out() {
    let mut lines: Vec<String> = messages(V2)
        .iter()
        .map(|line| format!("Feb 03 19:57:08 node1 kernel: {line}"))
        .collect();
    lines.insert(40, "Feb 03 19:57:08 node1 systemd[1]: Started something.".into());
    lines.insert(40, "Feb 03 19:57:08 node1 kernel: eth0: link up".into());
    lines.push("Feb 03 19:57:09 node1 kernel: eth0: link down".into());
    let report = only(&lines.join("\n"));
    assert_eq!(report.unparsed, ["eth0: link up"]);
    assert_eq!((report.lines.unparsed, report.lines.total), (1, 116));
}

#[test]
fn interleaved_reports_are_told_apart_by_caller_and_host() {
    let (a, b) = (messages(V2), messages(GROUP));
    let mut log = String::new();
    for at in 0..a.len().max(b.len()) {
        for (caller, lines) in [("T110", &a), ("T151", &b)] {
            if let Some(line) = lines.get(at) {
                log += &format!("[    5.298442][ {caller}] {line}\n");
            }
        }
    }
    let reports = parse(log.as_bytes()).reports;
    assert_eq!(
        reports.into_iter().map(facts).collect::<Vec<_>>(),
        [facts(only(V2)), facts(only(GROUP))]
    );
}

#[test]
fn names_chosen_by_an_attacker_do_not_move_fields() {
    let log = "x,uid=0 oom invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n\
        [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
        [    120]     0   120      667      382    36864        0           939 7 8 9\n\
        oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,\
        task=a,pid=1,uid=2,pid=120,uid=7\n\
        Memory cgroup out of memory: Killed process 120 (a) total-vm:1) total-vm:2668kB, anon-rss:1132kB, \
        file-rss:0kB, shmem-rss:460kB, UID:0 pgtables:36kB oom_score_adj:939\n";
    let report = only(log);
    assert_eq!(report.tasks[0].comm, "7 8 9");
    let selection = report.selection.expect("a selection");
    assert_eq!(
        (selection.comm.as_str(), selection.pid, selection.uid),
        ("a,pid=1,uid=2", Some(120), Some(7))
    );
    assert_eq!(report.kills[0].comm, "a) total-vm:1");
}

#[test]
fn a_global_kill_and_an_old_kernel_are_read() {
    let log = "qemu-kvm invoked oom-killer: gfp_mask=0x6200ca(GFP_HIGHUSER_MOVABLE), nodemask=(null), order=0, oom_score_adj=0\n\
        Mem-Info:\nactive_anon:1 inactive_anon:2\n Node 0 DMA free:3kB\n16777116 pages RAM\n\
        Tasks state (memory values in pages):\n\
        [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
        [    120]   107   120      667      382    36864        0             0 qemu-kvm\n\
        oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0-1,global_oom,task_memcg=/a,task=qemu-kvm,pid=120,uid=107\n\
        Out of memory: Killed process 120 (qemu-kvm) total-vm:2668kB, anon-rss:1132kB, file-rss:0kB, shmem-rss:460kB\n";
    let report = only(log);
    let selection = report.selection.as_ref().expect("a selection");
    assert_eq!(
        (selection.oom_memcg.as_deref(), selection.task_memcg.as_deref()),
        (None, Some("/a"))
    );
    assert_eq!(
        (selection.mems_allowed.as_deref(), report.mem_info.len()),
        (Some("0-1"), 3)
    );
    assert_eq!(report.invoker.and_then(|invoker| invoker.order), Some(0));
    assert_eq!(report.lines.unparsed, 0);
}

#[test]
fn nothing_found_is_nothing() {
    assert!(parse(b"").reports.is_empty());
    assert!(parse(b"usb 1-1: new device\n\n...\n").reports.is_empty());
}

/// Sums of a report that must hold whatever came in.
fn check(log: &[u8]) {
    for report in parse(log).reports {
        let lines = report.lines;
        assert_eq!(lines.parsed + lines.unparsed, lines.total);
        assert!(report.unparsed.len() as u64 <= lines.unparsed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        check(&bytes);
    }

    #[test]
    fn any_mutation_of_a_fixture_is_survived(
        which in 0_usize..18,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..40),
    ) {
        let mut log = fixtures().swap_remove(which).1.into_bytes();
        for (at, byte, edit) in edits {
            let at = at.index(log.len());
            match edit {
                0 => log[at] = byte,
                1 => log.insert(at, byte),
                2 => { log.remove(at); }
                _ => log[at] = b"\n;,=[]() 9"[usize::from(byte) % 10],
            }
        }
        check(&log);
    }
}
