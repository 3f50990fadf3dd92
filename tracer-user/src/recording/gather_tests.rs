use proptest::prelude::*;

use super::super::event::{Event, Header, Memcg, Oom, Pod, Reclaim, Sample, Thread};
use super::super::{Reader, Writer, made_up};
use super::*;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::role::Role;

fn event(t: u64, body: Body) -> Event {
    Event { t, body }
}

fn charge(tid: u32, kind: Kind, charged: u64, uncharged: u64) -> Body {
    Body::Charge(Charge {
        memcg: 1,
        tid,
        start_ns: 1,
        kind,
        region: Region::Overhead,
        charged,
        uncharged,
    })
}

fn sample(pod: u32, usage: u64) -> Body {
    Body::Sample(Sample {
        memcg: u64::from(pod),
        pod,
        usage,
        limit: Some(1 << 30),
        ..Sample::default()
    })
}

fn oom(pod: u32) -> Body {
    Body::Oom(Oom {
        pod: Some(pod),
        oom_memcg: u64::from(pod),
        memcg: u64::from(pod),
        usage: 1 << 30,
        limit: 1 << 30,
        ..Oom::default()
    })
}

/// The header and two pods, the first with a nested memcg (3), and a QEMU of threads 1 to 4.
fn beginning() -> Vec<Event> {
    let mut events = vec![event(
        0,
        Body::Header(Header {
            format: super::super::event::FORMAT.to_owned(),
            ..Header::default()
        }),
    )];
    for pod in 1..=2 {
        events.push(event(
            0,
            Body::Pod(Pod {
                pod,
                memcg: u64::from(pod),
                memcgs: vec![Memcg {
                    id: u64::from(pod) + 2,
                    path: String::new(),
                    counted: pod == 1,
                }],
                ..Pod::default()
            }),
        ));
    }
    events.push(event(0, Body::Process(made_up::process(1, 1, "qemu", Role::MainLoop))));
    for tid in 1..=4 {
        events.push(event(
            0,
            Body::Thread(made_up::thread(tid, 1, &format!("CPU {tid}/KVM"), Role::Vcpu(tid))),
        ));
    }
    events
}

fn written(events: &[Event]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "test").unwrap();
    for event in events {
        writer.push(event).unwrap();
    }
    drop(writer);
    file
}

fn read(file: &[u8]) -> Vec<Event> {
    Reader::new(file).unwrap().collect::<Result<_, _>>().unwrap()
}

fn report(events: &[Event]) -> Report {
    let mut ledger = Ledger::new();
    for event in events {
        ledger.apply(event);
    }
    Report::new(&ledger, None)
}

#[test]
fn charges_between_two_samples_become_one_line_each_account() {
    let mut events = beginning();
    let head = events.len();
    for n in 0..100 {
        events.push(event(10 + n, charge(1, Kind::Anon, 4096, 0)));
        events.push(event(10 + n, charge(1, Kind::File, 0, 4096)));
    }
    events.push(event(200, sample(1, 5)));
    events.push(event(201, charge(1, Kind::Anon, 4096, 0)));
    let read = read(&written(&events));
    let expected = [
        event(109, charge(1, Kind::Anon, 409_600, 0)),
        event(109, charge(1, Kind::File, 0, 409_600)),
        event(200, sample(1, 5)),
        event(201, charge(1, Kind::Anon, 4096, 0)),
    ];
    assert_eq!(read[head..], expected);
}

#[test]
fn charges_before_and_after_a_kill_are_not_mixed() {
    let mut events = beginning();
    let head = events.len();
    events.push(event(100, oom(1)));
    events.push(event(90, charge(1, Kind::Anon, 1, 0)));
    events.push(event(110, charge(1, Kind::Anon, 10, 0)));
    events.push(event(95, charge(1, Kind::Anon, 2, 0)));
    let read = read(&written(&events));
    let expected = [
        event(100, oom(1)),
        event(95, charge(1, Kind::Anon, 3, 0)),
        event(110, charge(1, Kind::Anon, 10, 0)),
    ];
    assert_eq!(read[head..], expected);
}

#[test]
fn sums_beyond_64_bits_are_written_apart() {
    let mut events = beginning();
    let head = events.len();
    events.push(event(1, charge(1, Kind::Anon, u64::MAX, 0)));
    events.push(event(2, charge(1, Kind::Anon, 7, 0)));
    let read = read(&written(&events));
    assert_eq!(read[head..], events[head..]);
}

#[test]
fn more_accounts_than_are_gathered_lose_nothing() {
    let mut events = beginning();
    let count = MAX_ACCOUNTS as u64 * 2 + 5;
    events.extend((0..count).map(|n| event(1, charge(u32::try_from(n).unwrap() + 1, Kind::Slab, 3, 0))));
    let charged: u64 = read(&written(&events))
        .iter()
        .filter_map(|event| match &event.body {
            Body::Charge(charge) => Some(charge.charged),
            _ => None,
        })
        .sum();
    assert_eq!(charged, count * 3);
}

#[test]
fn growth_that_is_told_after_the_kill_began_at_the_sample_before() {
    let mut events = beginning();
    events.push(event(0, sample(1, 0)));
    events.push(event(1_000_000_000, sample(1, 0)));
    events.push(event(1_500_000_000, oom(1)));
    events.push(event(1_200_000_000, charge(1, Kind::Anon, 400 << 10, 0)));
    // Taken back again, and charged once more: all of it before the kill, none of it known then.
    events.push(event(1_300_000_000, charge(1, Kind::Anon, 0, 400 << 10)));
    events.push(event(1_400_000_000, charge(1, Kind::Anon, 400 << 10, 0)));
    let live = report(&events);
    let culprit = live.pods[0].culprit.as_ref().unwrap();
    assert_eq!(culprit.first_seen, "1970-01-01T00:00:01Z");
    assert!((culprit.seconds - 0.5).abs() < 1e-9, "{culprit:?}");
    assert_eq!(report(&read(&written(&events))).pods, live.pods);
}

fn any_body() -> impl Strategy<Value = Body> {
    let charges = (1_u64..5, 1_u32..6, 0_u8..4, 0_u8..3, 0_u64..1 << 20, 0_u64..1 << 19).prop_map(
        |(memcg, tid, kind, region, charged, uncharged)| {
            Body::Charge(Charge {
                memcg,
                tid,
                start_ns: 1,
                kind: Kind::from_u8(kind).unwrap(),
                region: Region::from_u8(region).unwrap(),
                charged,
                uncharged,
            })
        },
    );
    let reclaims = (1_u32..6, 1_u64..1_000_000).prop_map(|(tid, duration_ns)| {
        Body::Reclaim(Reclaim {
            memcg: 1,
            tid,
            start_ns: 1,
            duration_ns,
            pages: 1,
            order: 0,
        })
    });
    let exits = (1_u32..5).prop_map(|tid| {
        Body::Thread(Thread {
            exited: true,
            ..made_up::thread(tid, 1, "gone", Role::Vcpu(tid))
        })
    });
    prop_oneof![
        30 => charges,
        3 => (1_u32..3, 0_u64..1 << 30).prop_map(|(pod, usage)| sample(pod, usage)),
        1 => (1_u32..3).prop_map(oom),
        2 => reclaims,
        1 => exits,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Live and replayed are one: whatever happens in whatever order, with charges that are told late.
    #[test]
    fn a_recording_reports_what_its_events_do(
        steps in prop::collection::vec((0_u64..400_000_000, 0_u64..3, any_body()), 0..120),
    ) {
        let mut events = beginning();
        let mut t = 0;
        for (step, late, body) in steps {
            t += step;
            events.push(event(t.saturating_sub(late * 100_000_000), body));
        }
        let read = read(&written(&events));
        let (live, mut replayed) = (report(&events), report(&read));
        // Charges move the window's bounds within the second that they are gathered in, no pod's window.
        replayed.window = live.window.clone();
        prop_assert_eq!(live, replayed);
    }
}
