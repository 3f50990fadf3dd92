use tracer_common::{Kind, Region};

use super::*;
use crate::ledger::Ledger;
use crate::recording::event::{
    Body, Charge, Event, FORMAT, FileCache, Following, Footer, Header, Live, Oom, OomTask, Pod, Process, Reclaim,
    Sample, Thread, Total,
};
use crate::recording::{Damage, Reader, State, Summary, Writer};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const MEMCG: u64 = 4711;
const QEMU: u32 = 100;
const HELPER: u32 = 50;

/// A made-up recording of one pod, in which usage is exactly what was charged.
struct Story {
    events: Vec<Event>,
    t: u64,
    usage: u64,
    guest: u64,
    totals: BTreeMap<(Kind, Region), (u64, u64)>,
}

impl Story {
    /// 600 MiB of limit, 512 MiB of guest RAM, 40 MiB used.
    fn new() -> Self {
        let mut story = Self {
            events: Vec::new(),
            t: SECOND,
            usage: 40 * MIB,
            guest: 0,
            totals: BTreeMap::new(),
        };
        story.push(Body::Header(Header {
            format: FORMAT.to_owned(),
            version: "0.1.0".to_owned(),
            host: "harvester-node-0".to_owned(),
            kernel: "6.12.0".to_owned(),
            cgroup: "v2".to_owned(),
            boot_unix_ns: 1_769_899_200 * SECOND,
            backends: [
                ("charge".to_owned(), "fentry".to_owned()),
                ("oom".to_owned(), "tracepoint".to_owned()),
            ]
            .into(),
            granularity: 64 << 10,
            page_size: 4096,
            cpus: 2,
            forecasts: true,
            live: None,
        }));
        story.push(Body::Pod(Pod {
            pod: 1,
            namespace: "default".to_owned(),
            vm: "vm1".to_owned(),
            pod_uid: "0b9e7d2c".to_owned(),
            memcg: MEMCG,
            cgroup: "/kubepods.slice/pod1/compute".to_owned(),
            limit: Some(600 * MIB),
            guest_ram: 512 * MIB,
            qemu_pid: QEMU,
            ..Pod::default()
        }));
        story.process(QEMU, "qemu", Role::MainLoop);
        story.process(HELPER, "virtqemud", Role::Helper("virtqemud".to_owned()));
        story.thread(QEMU, QEMU, "qemu-system-x86", Role::MainLoop);
        story.thread(QEMU + 1, QEMU, "CPU 0/KVM", Role::Vcpu(0));
        story.thread(QEMU + 2, QEMU, "CPU 1/KVM", Role::Vcpu(1));
        story.thread(HELPER, HELPER, "rpc-virtqemud", Role::Helper("virtqemud".to_owned()));
        story.sample();
        story
    }

    fn push(&mut self, body: Body) {
        self.events.push(Event { t: self.t, body });
    }

    fn process(&mut self, pid: u32, name: &str, role: Role) {
        self.push(Body::Process(Process {
            pid,
            start_ns: 1,
            pod: Some(1),
            memcg: MEMCG,
            comm: name.to_owned(),
            name: name.to_owned(),
            role,
            rss: 0,
            rss_anon: None,
            before_attach: true,
            exited: false,
        }));
    }

    fn thread(&mut self, tid: u32, pid: u32, comm: &str, role: Role) {
        self.push(Body::Thread(Thread {
            tid,
            start_ns: 1,
            pid,
            pod: Some(1),
            comm: comm.to_owned(),
            role,
            exited: false,
        }));
    }

    fn charge(&mut self, tid: u32, kind: Kind, region: Region, charged: u64, uncharged: u64) {
        self.usage = self.usage + charged - uncharged;
        if region == Region::Guest {
            self.guest += charged;
        }
        let total = self.totals.entry((kind, region)).or_default();
        total.0 += charged;
        total.1 += uncharged;
        self.push(Body::Charge(Charge {
            memcg: MEMCG,
            tid,
            start_ns: 1,
            kind,
            region,
            charged,
            uncharged,
        }));
    }

    fn sample(&mut self) {
        let stat = [Kind::Anon, Kind::File, Kind::Slab]
            .map(|kind| {
                let of_kind = self.totals.iter().filter(|((other, _), _)| *other == kind);
                (kind, of_kind.map(|(_, (charged, uncharged))| charged - uncharged).sum())
            })
            .into();
        self.push(Body::Sample(Sample {
            memcg: MEMCG,
            pod: 1,
            usage: self.usage,
            limit: Some(600 * MIB),
            guest_resident: Some(self.guest),
            stat,
            ..Sample::default()
        }));
    }

    fn wait(&mut self) {
        self.t += SECOND;
    }

    fn oom(&mut self, invoker: &str, role: Option<Role>) {
        self.t += SECOND / 2;
        self.push(Body::Oom(Oom {
            pod: Some(1),
            oom_memcg: MEMCG,
            memcg: MEMCG,
            usage: self.usage,
            limit: 600 * MIB,
            invoker: OomTask {
                tid: QEMU + 2,
                pid: QEMU,
                comm: invoker.to_owned(),
                role,
            },
            victim: OomTask {
                tid: QEMU,
                pid: QEMU,
                comm: "qemu-system-x86".to_owned(),
                role: Some(Role::MainLoop),
            },
            ..Oom::default()
        }));
    }

    fn footer(&mut self, files: Vec<FileCache>) {
        let totals = self
            .totals
            .iter()
            .map(|((kind, region), (charged, uncharged))| Total {
                memcg: MEMCG,
                kind: *kind,
                region: *region,
                charged: *charged,
                uncharged: *uncharged,
            })
            .collect();
        self.push(Body::Footer(Footer {
            totals,
            files,
            ended: "interrupted".to_owned(),
            ..Footer::default()
        }));
    }

    fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        self.events.iter().for_each(|event| writer.push(event).unwrap());
        writer.finish().unwrap();
        drop(writer);
        file
    }
}

/// Reports what a recording holds.
fn report(file: &[u8]) -> Report {
    let mut reader = Reader::new(file).unwrap();
    let mut ledger = Ledger::new();
    for event in &mut reader {
        ledger.apply(&event.unwrap());
    }
    Report::new(&ledger, Some(&reader.summary()))
}

fn text(report: &Report) -> String {
    let mut out = Vec::new();
    render_text(report, &mut out).unwrap();
    anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
}

fn json(report: &Report) -> String {
    let mut out = Vec::new();
    render_json(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

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

/// The recording of somebody who followed pages.
fn following(mut story: Story) -> Story {
    if let Body::Header(header) = &mut story.events[0].body {
        header.live = Some(Following {
            on: true,
            room: 65_536,
            why_not: None,
        });
    }
    story
}

fn live(story: &mut Story, tid: u32, bytes: u64) {
    story.push(Body::Live(Live {
        memcg: MEMCG,
        tid,
        start_ns: 1,
        kind: Kind::Anon,
        bytes,
        not_followed: 0,
    }));
}

#[test]
fn what_was_charged_and_given_back_is_told_from_what_is_held() {
    let mut story = following(Story::new());
    for _ in 0..3 {
        story.wait();
        story.charge(HELPER, Kind::Anon, Region::Overhead, 100 * MIB, 0);
        story.charge(QEMU + 1, Kind::Slab, Region::Overhead, MIB, 0);
        live(&mut story, HELPER, 100 * MIB);
        story.sample();
    }
    story.wait();
    // Another thread gives back what the helper was charged: by what threads charge and give back, the helper grew.
    story.charge(QEMU + 1, Kind::Anon, Region::Overhead, 0, 290 * MIB);
    live(&mut story, HELPER, 10 * MIB);
    story.sample();
    let report = report(&story.file());
    let pod = &report.pods[0];
    let thread = pod.by_thread.iter().find(|thread| thread.tid == Some(HELPER)).unwrap();
    assert_eq!(thread.overhead_growth, i64::try_from(300 * MIB).unwrap());
    assert_eq!(thread.live, Some(10 * MIB));
    assert_eq!(pod.live.as_ref().unwrap().bytes, 10 * MIB);
    assert_eq!(pod.live.as_ref().unwrap().not_followed["slab"], 3 * MIB);
    let culprit = pod.culprit.as_ref().unwrap();
    assert_eq!((culprit.tid, culprit.live), (Some(HELPER), Some(10 * MIB)));
    assert!(
        verdict(pod).contains("holds 10.0 MiB of it: others gave back the rest"),
        "{}",
        verdict(pod)
    );
    insta::assert_snapshot!("held_text", text(&report));
}

#[test]
fn what_is_held_at_a_kill_is_not_what_is_left_after_it() {
    let mut story = following(Story::new());
    for held in 1..=4 {
        story.wait();
        story.charge(HELPER, Kind::Anon, Region::Overhead, 100 * MIB, 0);
        live(&mut story, HELPER, held * 100 * MIB);
        story.sample();
    }
    story.oom("CPU 1/KVM", Some(Role::Vcpu(1)));
    story.wait();
    story.charge(HELPER, Kind::Anon, Region::Overhead, 0, 400 * MIB);
    live(&mut story, HELPER, 0);
    story.sample();
    let report = report(&story.file());
    let pod = &report.pods[0];
    assert_eq!(pod.culprit.as_ref().unwrap().live, Some(400 * MIB));
    assert!(verdict(pod).contains(", and still holds 400.0 MiB"), "{}", verdict(pod));
    let role = pod.by_role.iter().find(|role| role.live == Some(400 * MIB));
    assert!(role.is_some(), "{:?}", pod.by_role);
}
