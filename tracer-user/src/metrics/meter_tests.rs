//! What scrapes say of a made-up node.

use tracer_common::{Kind, Region};

use super::*;
use crate::metrics::text;
use crate::recording::event::{
    Alert, Basis, Charge, Following, Forecast, Header, Live, Memcg, Oom, Pod, Process, Reclaim, Thread,
};
use crate::recording::made_up;
use crate::role::Role;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

/// A meter that is told of pods, each with a helper process.
struct Node {
    meter: Meter,
    t: u64,
}

impl Node {
    fn new() -> Self {
        let mut node = Self {
            meter: Meter::new(Arc::default()),
            t: SECOND,
        };
        node.tell(Body::Header(Header {
            page_size: 4096,
            cpus: 2,
            boot_unix_ns: 1000 * SECOND,
            ..Header::default()
        }));
        node
    }

    fn tell(&mut self, body: Body) {
        self.meter
            .event(&Event { t: self.t, body })
            .expect("a meter takes everything");
    }

    fn pod(&mut self, number: u32, vm: &str, gone: bool) {
        self.tell(Body::Pod(Pod {
            pod: number,
            namespace: "ns".to_owned(),
            vm: vm.to_owned(),
            memcg: u64::from(number),
            limit: Some(100 * MIB),
            guest_ram: 40 * MIB,
            memcgs: vec![Memcg {
                id: u64::from(number),
                path: "/p".to_owned(),
                counted: true,
            }],
            gone,
            ..Pod::default()
        }));
        if gone {
            return;
        }
        let helper = Role::Helper("virtqemud".to_owned());
        self.tell(Body::Process(Process {
            pod: Some(number),
            ..made_up::process(number, number.into(), "virtqemud", helper.clone())
        }));
        self.tell(Body::Thread(Thread {
            pod: Some(number),
            ..made_up::thread(number, number, "rpc", helper)
        }));
    }

    fn sample(&mut self, pod: u32, usage: u64) {
        self.t += SECOND;
        self.tell(Body::Sample(Sample {
            memcg: u64::from(pod),
            pod,
            usage,
            limit: Some(100 * MIB),
            reclaimable_file: 3 * MIB,
            guest_resident: Some(10 * MIB),
            ..Sample::default()
        }));
    }

    fn charge(&mut self, pod: u32, bytes: u64) {
        self.tell(Body::Charge(Charge {
            memcg: u64::from(pod),
            tid: pod,
            start_ns: 1,
            kind: Kind::Anon,
            region: Region::Overhead,
            charged: bytes,
            uncharged: 0,
        }));
    }

    fn scrape(&mut self) -> String {
        let figures = self.meter.figures(self.t);
        text(&Arc::new(figures)).expect("writing to a string does not fail")
    }
}

/// The value of a series, as it is written.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

fn is(text: &str, series: &str, expected: Option<f64>) {
    assert_eq!(value(text, series), expected, "{series} in\n{text}");
}

const MIBS: f64 = 1_048_576.0;

#[test]
fn a_pod_shows_its_sizes_and_whose_overhead_they_are() {
    let mut node = Node::new();
    node.pod(1, "vm1", false);
    node.sample(1, 30 * MIB);
    node.charge(1, 5 * MIB);
    node.sample(1, 36 * MIB);
    let text = node.scrape();
    let pod = r#"{namespace="ns",vm="vm1"}"#;
    for (family, expected) in [
        ("usage", 36.0),
        ("limit", 100.0),
        ("headroom", 64.0),
        ("reclaimable_file", 3.0),
        ("guest_ram", 40.0),
        ("guest_resident", 10.0),
        ("unexplained", 1.0),
    ] {
        is(&text, &format!("headroom_{family}_bytes{pod}"), Some(expected * MIBS));
    }
    let of = |role, kind| format!(r#"headroom_overhead_bytes{{namespace="ns",vm="vm1",role="{role}",kind="{kind}"}}"#);
    is(&text, &of("before", "any"), Some(20.0 * MIBS));
    is(&text, &of("helper virtqemud", "anon"), Some(5.0 * MIBS));
    is(&text, &format!("headroom_eta_seconds{pod}"), None);
    is(&text, "headroom_records_total", Some(1.0));
    is(&text, "headroom_tracing_began_timestamp_seconds", Some(1001.0));
    assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > MIBS));
    assert!(value(&text, "process_cpu_seconds_total").is_some());
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_is_held_is_told_where_pages_are_followed() {
    let live = |bytes| {
        Body::Live(Live {
            memcg: 1,
            tid: 1,
            start_ns: 1,
            kind: Kind::Anon,
            bytes,
            not_followed: 0,
        })
    };
    let series = r#"headroom_live_bytes{namespace="ns",vm="vm1",role="helper virtqemud",kind="anon"}"#;
    for on in [true, false] {
        let mut node = Node::new();
        node.tell(Body::Header(Header {
            live: Some(Following {
                on,
                room: 1,
                why_not: None,
            }),
            ..Header::default()
        }));
        node.pod(1, "vm1", false);
        node.sample(1, 30 * MIB);
        node.charge(1, 5 * MIB);
        node.tell(live(5 * MIB));
        node.sample(1, 35 * MIB);
        is(&node.scrape(), series, on.then_some(5.0 * MIBS));
        node.tell(live(2 * MIB));
        is(&node.scrape(), series, on.then_some(2.0 * MIBS));
        node.tell(live(0));
        is(&node.scrape(), series, None);
    }
}

#[test]
fn what_is_foreseen_and_alerted_ends_with_the_kill_and_growth_counts_anew() {
    let mut node = Node::new();
    node.pod(1, "vm1", false);
    node.sample(1, 30 * MIB);
    node.charge(1, 50 * MIB);
    node.sample(1, 80 * MIB);
    let at = node.t;
    node.tell(Body::Forecast(Forecast {
        pod: 1,
        kill_at: Some(at + 90 * SECOND),
        ..Forecast::default()
    }));
    node.tell(Body::Alert(Alert {
        pod: 1,
        alert: AlertKind::Eta,
        raised: true,
        threshold: 1,
        value: None,
        driver: None,
        kill_at: None,
        basis: Basis::default(),
    }));
    node.tell(Body::Reclaim(Reclaim {
        memcg: 1,
        tid: 1,
        start_ns: 1,
        duration_ns: 2_000_000,
        pages: 1,
        order: 0,
    }));
    let pod = r#"{namespace="ns",vm="vm1"}"#;
    let alert = r#"headroom_alert{namespace="ns",vm="vm1",alert="eta"}"#;
    let bucket = |le| format!(r#"headroom_reclaim_stall_seconds_bucket{{le="{le}",namespace="ns",vm="vm1"}}"#);
    let text = node.scrape();
    is(&text, &format!("headroom_eta_seconds{pod}"), Some(90.0));
    is(&text, alert, Some(1.0));
    is(&text, r#"headroom_alerts_total{alert="eta"}"#, Some(1.0));
    is(&text, &bucket("0.001"), Some(0.0));
    is(&text, &bucket("0.003"), Some(1.0));
    is(&text, &bucket("+Inf"), Some(1.0));
    is(&text, &format!("headroom_reclaim_stall_seconds_count{pod}"), Some(1.0));

    node.tell(Body::Oom(Oom {
        pod: Some(1),
        memcg: 1,
        oom_memcg: 1,
        ..Oom::default()
    }));
    node.charge(1, 7 * MIB);
    node.sample(1, 20 * MIB);
    node.charge(1, 2 * MIB);
    node.sample(1, 22 * MIB);
    let text = node.scrape();
    is(&text, &format!("headroom_eta_seconds{pod}"), None);
    is(&text, alert, Some(0.0));
    is(&text, "headroom_oom_kills_total", Some(1.0));
    let of = |role, kind| format!(r#"headroom_overhead_bytes{{namespace="ns",vm="vm1",role="{role}",kind="{kind}"}}"#);
    is(&text, &of("before", "any"), Some(10.0 * MIBS));
    is(&text, &of("helper virtqemud", "anon"), Some(2.0 * MIBS));
    is(&text, &format!("headroom_unexplained_bytes{pod}"), Some(0.0));
}

#[test]
fn months_of_pods_that_come_and_go_leave_nothing_behind() {
    let mut node = Node::new();
    node.pod(1, "stays", false);
    for number in 2..2000 {
        node.pod(number, &format!("vm{number}"), false);
        node.sample(number, 30 * MIB);
        node.charge(number, MIB);
        node.sample(number, 31 * MIB);
        node.pod(number, "", true);
    }
    let text = node.scrape();
    assert!(text.contains(r#"vm="stays""#) && !text.contains(r#"vm="vm"#), "{text}");
    assert!(node.meter.pods.len() == 1 && node.meter.memcgs.len() == 1);
    assert_eq!(node.meter.ledger.pods().count(), 1);
    assert!(node.meter.ledger.processes().count() <= 2);
    is(&text, "headroom_records_total", Some(1998.0));
}

#[test]
fn hostile_names_stay_within_their_quotes() {
    let mut node = Node::new();
    node.pod(1, "a\"} 1\nheadroom_lost_bytes_total 99 # \\", false);
    node.sample(1, 30 * MIB);
    let text = node.scrape();
    is(&text, "headroom_lost_bytes_total", Some(0.0));
    let line = text
        .lines()
        .find(|line| line.starts_with("headroom_usage_bytes{"))
        .expect("it is there");
    // What is escaped for people first has its backslashes escaped for the format.
    assert_eq!(
        line,
        r#"headroom_usage_bytes{namespace="ns",vm="a\"} 1\\nheadroom_lost_bytes_total 99 # \\\\"} 31457280"#
    );
}
