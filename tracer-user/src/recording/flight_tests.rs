use proptest::prelude::*;

use super::super::event::{Charge, Oom, Sample};
use super::super::{Reader, State, made_up};
use super::*;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::role::Role;

const SECOND: u64 = 1_000_000_000;
const MEMCG: u64 = 7;

fn event(t: u64, body: Body) -> Event {
    Event { t, body }
}

fn header() -> Event {
    let header = Header {
        format: super::super::event::FORMAT.to_owned(),
        boot_unix_ns: 1_700_000_000 * SECOND,
        page_size: 4096,
        cpus: 1,
        ..Header::default()
    };
    event(3, Body::Header(header))
}

fn pod() -> Event {
    let pod = Pod {
        pod: 0,
        namespace: "default".to_owned(),
        vm: "vm1".to_owned(),
        memcg: MEMCG,
        limit: Some(1 << 30),
        ..Pod::default()
    };
    event(4, Body::Pod(pod))
}

fn process(pid: u32) -> Event {
    let name = format!("helper{pid}");
    let process = Process {
        pod: Some(0),
        before_attach: false,
        ..made_up::process(pid, MEMCG, &name, Role::Helper(name.clone()))
    };
    event(5, Body::Process(process))
}

fn thread(t: u64, tid: u32, pid: u32, exited: bool) -> Event {
    let name = format!("helper{pid}");
    let thread = Thread {
        pod: Some(0),
        exited,
        ..made_up::thread(tid, pid, &name, Role::Helper(name.clone()))
    };
    event(t, Body::Thread(thread))
}

fn charge(t: u64, tid: u32, charged: u64) -> Event {
    let charge = Charge {
        memcg: MEMCG,
        tid,
        start_ns: 1,
        kind: Kind::Anon,
        region: Region::Overhead,
        charged,
        uncharged: charged / 2,
    };
    event(t, Body::Charge(charge))
}

fn sample(t: u64, usage: u64) -> Event {
    let sample = Sample {
        memcg: MEMCG,
        pod: 0,
        usage,
        limit: Some(1 << 30),
        ..Sample::default()
    };
    event(t, Body::Sample(sample))
}

fn oom(t: u64) -> Event {
    let oom = Oom {
        pod: Some(0),
        oom_memcg: MEMCG,
        memcg: MEMCG,
        usage: 1 << 30,
        limit: 1 << 30,
        ..Oom::default()
    };
    event(t, Body::Oom(oom))
}

/// What the kernel's maps would hold.
fn footer(charged: u64) -> Footer {
    Footer {
        totals: vec![Total {
            memcg: MEMCG,
            kind: Kind::Anon,
            region: Region::Overhead,
            charged,
            uncharged: charged / 2,
        }],
        ended: "incident".to_owned(),
        ..Footer::default()
    }
}

fn flight(keep_ns: u64, memory: usize) -> Flight {
    let mut flight = Flight::new(Limits { keep_ns, memory }).unwrap();
    for event in [header(), pod(), process(10), thread(6, 10, 10, false)] {
        flight.push(&event).unwrap();
    }
    flight
}

fn read(excerpt: &Excerpt) -> (Vec<Event>, State) {
    let mut file = Vec::new();
    excerpt.write(&mut file).unwrap();
    assert!(excerpt.past.is_some() || file.len() == excerpt.bytes());
    let mut reader = Reader::new(&file[..]).unwrap();
    let events = reader.by_ref().map(Result::unwrap).collect();
    (events, reader.summary().state)
}

fn report(events: &[Event]) -> (Report, usize) {
    let mut ledger = Ledger::new();
    for event in events {
        ledger.apply(event);
    }
    (Report::new(&ledger, None), ledger.disagreements().len())
}

/// An hour of a helper that grows by 64 KiB, net, each second.
fn an_hour(flight: &mut Flight) -> u64 {
    let mut charged = 0;
    for second in 1..=3600_u64 {
        let t = second * SECOND;
        flight.push(&charge(t, 10, 128 << 10)).unwrap();
        charged += 128 << 10;
        flight.push(&sample(t + 1, charged / 2)).unwrap();
        flight.tick(t + 2).unwrap();
    }
    charged
}

#[test]
fn the_last_minutes_are_a_whole_recording() {
    let mut flight = flight(60 * SECOND, 64 << 20);
    let charged = an_hour(&mut flight);
    let excerpt = flight.excerpt(3601 * SECOND, footer(charged), None).unwrap();
    let (events, state) = read(&excerpt);
    assert_eq!(state, State::Complete);
    let begins = excerpt.begins();
    assert!((3538 * SECOND..=3541 * SECOND).contains(&begins), "{begins}");
    let samples = events.iter().filter(|event| matches!(event.body, Body::Sample(_)));
    assert!((60..=62).contains(&samples.count()));
    assert!(
        events.windows(2).all(|pair| pair[0].t <= pair[1].t),
        "in the order of time"
    );

    let (report, disagreements) = report(&events);
    assert_eq!(disagreements, 0, "the sums of all there ever was equal the maps");
    let pod = &report.pods[0];
    assert_eq!(pod.unexplained, 0, "growth counts from the first kept sample");
    assert_eq!(pod.by_role[0].role, Role::Helper("helper10".to_owned()));
    assert_eq!(
        u64::try_from(pod.by_role[0].overhead_growth).unwrap(),
        pod.usage.end - pod.usage.start
    );
    assert!(
        pod.usage.start > (1 << 27),
        "what was before is part of the first usage"
    );
}

#[test]
fn memory_is_bounded_and_running_short_is_told() {
    let mut flight = flight(3600 * SECOND, 32 << 10);
    let charged = an_hour(&mut flight);
    assert!(flight.was_short());
    assert!(flight.bytes() <= 32 << 10, "{}", flight.bytes());
    let excerpt = flight.excerpt(3601 * SECOND, footer(charged), None).unwrap();
    let (events, _) = read(&excerpt);
    assert!(events.len() > 20, "{}", events.len());
    assert_eq!(report(&events).1, 0);
}

#[test]
fn who_is_gone_is_forgotten_and_who_lives_is_not() {
    let mut flight = flight(10 * SECOND, 1 << 20);
    for pid in 20..60 {
        flight.push(&process(pid)).unwrap();
        flight.push(&thread(7, pid, pid, false)).unwrap();
        flight.push(&thread(8, pid + 1000, pid, false)).unwrap();
    }
    for pid in 20..50 {
        flight.push(&thread(9, pid + 1000, pid, true)).unwrap();
        flight.push(&thread(9, pid, pid, true)).unwrap();
    }
    for second in 1..100 {
        flight.push(&sample(second * SECOND, 1)).unwrap();
    }
    let (events, _) = read(&flight.excerpt(100 * SECOND, footer(0), None).unwrap());
    let pids: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Process(process) => Some(process.pid),
            _ => None,
        })
        .collect();
    assert_eq!(pids, [vec![10], (50..60).collect()].concat());
    let threads = events.iter().filter(|event| matches!(event.body, Body::Thread(_)));
    assert_eq!(threads.count(), 21);
    let before = |event: &Event| matches!(&event.body, Body::Process(process) if process.before_attach);
    assert_eq!(events.iter().filter(|event| before(event)).count(), 11);
}

#[test]
fn a_second_kill_is_told_from_the_first_one_on() {
    let mut flight = flight(3600 * SECOND, 1 << 20);
    let mut charged = 0;
    for second in 1..=60_u64 {
        let t = second * SECOND;
        flight.push(&charge(t, 10, 1 << 20)).unwrap();
        charged += 1 << 20;
        flight.push(&sample(t + 1, charged / 2)).unwrap();
        if second == 30 || second == 60 {
            flight.push(&oom(t + 2)).unwrap();
        }
    }
    let first = 30 * SECOND + 2;
    let plain = read(&flight.excerpt(61 * SECOND, footer(charged), None).unwrap()).0;
    assert_eq!(report(&plain).0.pods[0].oom.len(), 2);
    let excerpt = flight.excerpt(61 * SECOND, footer(charged), Some((0, first))).unwrap();
    let (events, state) = read(&excerpt);
    assert_eq!(state, State::Complete);
    let (report, disagreements) = report(&events);
    assert_eq!((report.pods[0].oom.len(), disagreements), (1, 0));
    assert_eq!(report.pods[0].usage.start, 31 << 19);
}

#[test]
fn losses_before_the_recording_are_not_its_own() {
    let lost = |ring_full, max_delay_ns| {
        Body::Loss(Loss {
            ring_full,
            max_delay_ns,
            ..Loss::default()
        })
    };
    let mut flight = flight(10 * SECOND, 1 << 20);
    flight.push(&event(7, lost(5, 100))).unwrap();
    for second in 1..30 {
        flight.push(&sample(second * SECOND, 1)).unwrap();
    }
    let mut end = footer(0);
    end.loss = Loss {
        ring_full: 7,
        max_delay_ns: 100,
        ..Loss::default()
    };
    let (events, _) = read(&flight.excerpt(30 * SECOND, end, None).unwrap());
    let counted = report(&events).0.loss.counted;
    assert_eq!((counted.ring_full, counted.max_delay_ns), (2, 0));
}

/// More accounts than a frame gathers: the charge that finds no room is in the next frame, and counted there.
#[test]
fn a_charge_that_closes_a_frame_is_counted_once() {
    let mut flight = flight(10 * SECOND, 16 << 20);
    let mut charged = 0;
    flight.push(&sample(SECOND, 0)).unwrap();
    for tid in 100..30_000 {
        flight.push(&charge(SECOND + 1, tid, 4096)).unwrap();
        charged += 4096;
    }
    flight.push(&sample(SECOND + 2, charged / 2)).unwrap();
    // Not all of them are kept.
    while flight.frames.len() > 2 {
        flight.drop_first().unwrap();
        let (events, _) = read(&flight.excerpt(2 * SECOND, footer(charged), None).unwrap());
        assert_eq!(report(&events).1, 0, "with {} frames", flight.frames.len());
    }
}

#[test]
fn nothing_kept_is_still_a_recording() {
    let mut flight = Flight::new(Limits {
        keep_ns: SECOND,
        memory: 1 << 20,
    })
    .unwrap();
    flight.push(&header()).unwrap();
    let (events, state) = read(&flight.excerpt(9, footer(0), None).unwrap());
    assert_eq!((events.len(), state), (3, State::Complete));
}

proptest! {
    /// Wherever the beginning is cut off, the sums stay those of the maps.
    #[test]
    fn sums_hold_at_any_cut(
        steps in prop::collection::vec((0_u64..3 * SECOND, 0_u64..1 << 20, 1_u32..4), 1..60),
        keep in 0_u64..60 * SECOND,
        memory in 200_usize..20_000,
    ) {
        let mut flight = flight(keep, memory);
        let (mut t, mut charged, mut uncharged) = (10, 0, 0);
        for (wait, bytes, tid) in steps {
            t += wait;
            flight.push(&charge(t, tid, bytes)).unwrap();
            charged += bytes;
            uncharged += bytes / 2;
            flight.push(&sample(t, charged - uncharged)).unwrap();
            flight.tick(t).unwrap();
        }
        let mut end = footer(charged);
        end.totals[0].uncharged = uncharged;
        let (events, state) = read(&flight.excerpt(t, end, None).unwrap());
        prop_assert_eq!(state, State::Complete);
        let (report, disagreements) = report(&events);
        prop_assert_eq!(disagreements, 0);
        prop_assert_eq!(report.pods[0].unexplained, 0);
    }
}
