use tracer_common::{Kind, Region};

use super::story::{HELPER, MEMCG, MIB, QEMU, SECOND, Story, json, report, text};
use super::*;
use crate::ledger::Ledger;
use crate::recording::event::{Body, FileCache, Reclaim};
use crate::recording::{Damage, State, Summary};

/// A helper grows to 400 MiB while the guest fills its RAM, and a vCPU asks for the page that is not there.
fn memhold() -> Story {
    let mut story = Story::new();
    for _ in 0..4 {
        story.wait();
        story.charge(HELPER, Kind::Anon, Region::Overhead, 100 * MIB, 0);
        story.charge(QEMU + 1, Kind::Anon, Region::Guest, 36 * MIB, 0);
        story.charge(QEMU + 1, Kind::Slab, Region::Overhead, 80 << 10, 16 << 10);
        story.sample();
    }
    story.push(Body::Reclaim(Reclaim {
        memcg: MEMCG,
        tid: QEMU + 2,
        start_ns: 1,
        duration_ns: 3_000_000,
        pages: 32,
        order: 0,
    }));
    story.charge(QEMU + 2, Kind::Anon, Region::Guest, 15 * MIB, 0);
    story.oom("CPU 1/KVM", Some(Role::Vcpu(1)));
    story.wait();
    story.charge(QEMU, Kind::Anon, Region::Guest, 0, 159 * MIB);
    story.sample();
    story.footer(Vec::new());
    story
}

#[test]
fn a_helper_that_grows_is_blamed_for_the_kill() {
    let report = report(&memhold().file());
    insta::assert_snapshot!("memhold_text", text(&report));
    insta::assert_snapshot!("memhold_json", json(&report));
}

#[test]
fn growth_of_threads_and_unexplained_add_up() {
    let report = report(&memhold().file());
    let pod = &report.pods[0];
    let threads: i64 = pod.by_thread.iter().map(|thread| thread.overhead_growth).sum();
    let usage = i64::try_from(pod.usage.end).unwrap() - i64::try_from(pod.usage.start).unwrap();
    assert_eq!(threads + pod.unexplained, usage - pod.guest_growth);
    assert_eq!(pod.unexplained, 0);
    assert_eq!(report.loss.disagreements, Some(0));
}

#[test]
fn a_guest_that_fills_its_ram_is_not_to_blame() {
    let mut story = Story::new();
    for _ in 0..4 {
        story.wait();
        story.charge(QEMU + 1, Kind::Anon, Region::Guest, 100 * MIB, 0);
        story.charge(QEMU + 1, Kind::Slab, Region::Overhead, 64 << 10, 0);
        story.sample();
    }
    story.footer(Vec::new());
    let report = report(&story.file());
    assert_eq!(report.pods[0].culprit, None);
    insta::assert_snapshot!("guest_only_text", text(&report));
}

#[test]
fn a_backup_shows_its_page_cache_by_file() {
    let mut story = Story::new();
    story.thread(QEMU + 3, QEMU, "IO iothread1", Role::IoThread("iothread1".to_owned()));
    story.thread(QEMU + 4, QEMU, "worker", Role::BlockWorker);
    for _ in 0..3 {
        story.wait();
        story.charge(QEMU + 3, Kind::File, Region::Overhead, 70 * MIB, 0);
        story.charge(QEMU + 4, Kind::File, Region::Overhead, 20 * MIB, 5 * MIB);
        story.charge(QEMU + 4, Kind::Anon, Region::Overhead, 4 * MIB, 0);
        story.sample();
    }
    let file = |path: Option<&str>, inode, bytes| FileCache {
        memcg: MEMCG,
        device: "8:1".to_owned(),
        inode,
        path: path.map(str::to_owned),
        bytes,
    };
    story.footer(vec![
        file(None, 77, MIB),
        file(
            Some("/var/run/kubevirt-private/vmi-disks/disk0/disk.img"),
            12,
            269 * MIB,
        ),
    ]);
    insta::assert_snapshot!("backup_text", text(&report(&story.file())));
}

#[test]
fn a_storm_of_workers_is_one_culprit() {
    let mut story = Story::new();
    for wave in 0..5 {
        story.wait();
        for worker in 0..100 {
            let tid = 1000 + wave * 100 + worker;
            story.thread(tid, QEMU, "worker", Role::BlockWorker);
            story.charge(tid, Kind::Anon, Region::Overhead, 256 << 10, 0);
            story.charge(tid, Kind::KernelStack, Region::Overhead, 16 << 10, 16 << 10);
        }
        story.sample();
    }
    story.footer(Vec::new());
    let report = report(&story.file());
    let culprit = report.pods[0].culprit.as_ref().unwrap();
    assert_eq!(culprit.role, Role::BlockWorker);
    assert_eq!(culprit.tid, None);
    assert_eq!(culprit.bytes, 125 << 20);
    insta::assert_snapshot!("worker_storm_text", text(&report));
}

#[test]
fn a_killed_recorder_still_leaves_a_verdict() {
    let mut story = memhold();
    story.events.retain(|event| !matches!(event.body, Body::Footer(_)));
    let file = story.file();
    let report = report(&file[..file.len() - 5]);
    assert_eq!(report.recording.state, "incomplete");
    assert!(report.recording.cut_off_bytes > 0);
    let text = text(&report);
    assert!(
        text.starts_with("default/vm1: virtqemud (helper daemon) grew 400.0 MiB of anon"),
        "{text}"
    );
    assert!(text.contains("Incomplete: the recording has no end"), "{text}");
}

#[test]
fn a_damaged_recording_says_what_is_missing() {
    let mut ledger = Ledger::new();
    memhold().events.iter().for_each(|event| ledger.apply(event));
    let summary = Summary {
        state: State::Damaged,
        damage: Damage {
            stretches: 2,
            bytes: 3000,
            ..Damage::default()
        },
        skipped: crate::recording::Skipped::default(),
    };
    let report = Report::new(&ledger, Some(&summary));
    assert_eq!(report.loss.disagreements, None);
    assert!(text(&report).contains("Damaged: 2 stretches, 2.9 KiB could not be read"));
}

#[test]
fn hostile_names_reach_no_terminal() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}x";
    let mut story = Story::new();
    story.process(60, evil, Role::Helper(evil.to_owned()));
    story.thread(60, 60, evil, Role::Helper(evil.to_owned()));
    story.wait();
    story.charge(60, Kind::Anon, Region::Overhead, 100 * MIB, 0);
    story.sample();
    story.oom(evil, None);
    story.footer(vec![FileCache {
        memcg: MEMCG,
        path: Some(evil.to_owned()),
        bytes: 1,
        ..FileCache::default()
    }]);
    let report = report(&story.file());
    let mut raw = Vec::new();
    render_text(&report, &mut raw).unwrap();
    let raw = String::from_utf8(raw).unwrap();
    assert!(raw.contains("owned"));
    for output in [raw, json(&report)] {
        for hostile in ["\u{1b}]", "\u{7}", "\u{9b}", "\u{202e}"] {
            assert!(!output.contains(hostile), "{output:?}");
        }
    }
    let parsed: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    assert_eq!(parsed["pods"][0]["by_thread"][0]["comm"], evil);
}

#[test]
fn unexplained_growth_is_not_called_nothing() {
    let mut story = Story::new();
    story.wait();
    story.usage += 30 * MIB;
    story.sample();
    let report = report(&story.file());
    assert!(text(&report).contains("no thread to blame, but 30.0 MiB of growth is unexplained (tolerance 512.0 KiB)"));
}

#[test]
fn what_was_never_sampled_says_so() {
    let mut story = Story::new();
    story.events.retain(|event| !matches!(event.body, Body::Sample(_)));
    let report = report(&story.file());
    assert!(text(&report).contains("nothing can be said"));
}

#[test]
fn hostile_names_reach_no_browser() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u{202e}\0";
    let mut story = Story::new();
    story.process(60, evil, Role::Helper(evil.to_owned()));
    story.thread(60, 60, evil, Role::Helper(evil.to_owned()));
    story.wait();
    story.charge(60, Kind::Anon, Region::Overhead, 100 * MIB, 0);
    story.sample();
    story.oom(evil, None);
    story.footer(vec![FileCache {
        memcg: MEMCG,
        path: Some(evil.to_owned()),
        bytes: 1,
        ..FileCache::default()
    }]);
    let mut page = Vec::new();
    render_html(&report(&story.file()), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("alert(1)"), "the name is shown");
    // The page's own script, and the series of one pod.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    for hostile in ["<img", "\u{202e}", "\0"] {
        assert!(!page.contains(hostile), "{hostile:?}");
    }
    assert!(page.contains("default-src &#39;none&#39;; script-src &#39;sha256-"));
}

#[test]
fn what_was_foreseen_is_told_with_its_lead_time() {
    use crate::recording::event::{Alert, AlertKind, Basis, Driver, Forecast};
    let mut story = Story::new();
    let driver = || {
        Some(Driver {
            role: Role::Helper("virtqemud\u{1b}[2J".to_owned()),
            process: "virtqemud".to_owned(),
        })
    };
    let said = |kill_at: Option<u64>| {
        Body::Forecast(Forecast {
            pod: 1,
            kill_at,
            low: kill_at.map(|at| at - 2 * SECOND),
            high: None,
            driver: driver(),
            basis: Basis::default(),
        })
    };
    for kill_at in [Some(60), None, Some(70), Some(65)] {
        story.wait();
        story.push(said(kill_at.map(|at: u64| at * SECOND)));
    }
    story.push(Body::Alert(Alert {
        pod: 1,
        alert: AlertKind::Eta,
        raised: true,
        threshold: 300 * SECOND,
        value: Some(50 * SECOND),
        driver: driver(),
        kill_at: Some(65 * SECOND),
        basis: Basis::default(),
    }));
    for _ in 0..8 {
        story.wait();
        story.sample();
    }
    story.oom("CPU 1/KVM", Some(Role::Vcpu(1)));
    let report = report(&story.file());
    let pod = &report.pods[0];
    assert_eq!(pod.forecasts.len(), 3);
    assert!(pod.forecasts[0].withdrawn.is_some() && pod.forecasts[1].withdrawn.is_none());
    assert_eq!(pod.forecasts[2].high, None);
    // Forecast anew three seconds into the story, and never taken back since.
    let lead = pod.oom[0].lead_time_s.unwrap();
    let lasted = story.t as f64 / 1e9 - 1.0;
    assert!((lead - (lasted - 3.0)).abs() < 0.01, "{lead} of {lasted}");
    assert_eq!((pod.alerts[0].alert, pod.alerts[0].raised), ("eta", true));
    let text = text(&report);
    for words in [
        "the kill was foreseen",
        "held no longer at",
        "alert at",
        "less than 5 min to the limit",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("\u{1b}[2J"));
}
