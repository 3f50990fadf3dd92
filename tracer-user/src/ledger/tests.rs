use proptest::prelude::*;

use super::*;
use crate::recording::event::{Memcg, Pod, Sample, Total};
use crate::recording::made_up;
use crate::role::Role;

const MEMCG: u64 = 10;
const QEMU: u32 = 100;

fn event(t: u64, body: Body) -> Event {
    Event { t, body }
}

fn pod() -> Event {
    let memcg = |id, counted| Memcg {
        id,
        path: format!("/pod/{id}"),
        counted,
    };
    event(
        1,
        Body::Pod(Pod {
            pod: 1,
            memcg: MEMCG,
            qemu_pid: QEMU,
            memcgs: vec![memcg(MEMCG, true), memcg(MEMCG + 1, true), memcg(MEMCG + 2, false)],
            ..Pod::default()
        }),
    )
}

fn qemu(before_attach: bool) -> Event {
    event(
        1,
        Body::Process(Process {
            before_attach,
            ..made_up::process(QEMU, MEMCG, "qemu", Role::MainLoop)
        }),
    )
}

fn thread(tid: u32, role: Role, exited: bool) -> Event {
    event(
        1,
        Body::Thread(Thread {
            exited,
            ..made_up::thread(tid, QEMU, "t", role)
        }),
    )
}

fn charge(t: u64, tid: u32, kind: Kind, region: Region, charged: u64, uncharged: u64) -> Event {
    let charge = Charge {
        uncharged,
        ..made_up::charge(MEMCG, tid, kind, region, charged)
    };
    event(t, Body::Charge(charge))
}

fn sample(t: u64, usage: u64, guest_resident: Option<u64>) -> Event {
    let sample = Sample {
        memcg: MEMCG,
        pod: 1,
        usage,
        guest_resident,
        ..Sample::default()
    };
    event(t, Body::Sample(sample))
}

fn ledger(events: &[Event]) -> Ledger {
    let mut ledger = Ledger::new();
    events.iter().for_each(|event| ledger.apply(event));
    ledger
}

/// Growth of thread `tid`'s overhead.
fn growth(ledger: &Ledger, tid: u32) -> i128 {
    let pod = ledger.pods().next().unwrap();
    let resolved = ledger.resolve(pod);
    let threads = resolved.threads.iter();
    threads
        .filter(|thread| thread.key.is_some_and(|key| key.tid == tid))
        .map(ThreadGrowth::overhead_growth)
        .sum()
}

#[test]
fn growth_counts_from_the_first_sample_to_the_last() {
    let ledger = ledger(&[
        pod(),
        charge(2, 7, Kind::Anon, Region::Overhead, 1000, 0),
        sample(2, 5000, None),
        charge(3, 7, Kind::Anon, Region::Overhead, 300, 100),
        sample(3, 5200, None),
        charge(4, 7, Kind::Anon, Region::Overhead, 50, 0),
    ]);
    assert_eq!(growth(&ledger, 7), 200);
    assert_eq!(ledger.pods().next().unwrap().unexplained(), 0);
}

#[test]
fn what_comes_after_the_kill_is_teardown() {
    let oom = Oom {
        oom_memcg: MEMCG,
        usage: 5700,
        limit: 5700,
        ..Oom::default()
    };
    let ledger = ledger(&[
        pod(),
        sample(2, 5000, None),
        charge(3, 7, Kind::Anon, Region::Overhead, 600, 0),
        event(4, Body::Oom(oom)),
        charge(4, 7, Kind::Anon, Region::Overhead, 100, 0),
        charge(5, 7, Kind::Anon, Region::Overhead, 0, 5000),
        sample(6, 1, None),
    ]);
    let pod = ledger.pods().next().unwrap();
    assert_eq!(growth(&ledger, 7), 700);
    assert_eq!(pod.unexplained(), 0);
    assert_eq!(pod.teardown.total(), -5000);
    assert_eq!(pod.headroom_min, Some(0));
}

#[test]
fn the_timeline_tells_growth_by_entity_and_ends_with_the_kill() {
    let kill = Oom {
        oom_memcg: MEMCG,
        memcg: MEMCG,
        usage: 1700,
        ..Oom::default()
    };
    let ledger = ledger(&[
        pod(),
        qemu(true),
        thread(QEMU + 1, Role::BlockWorker, false),
        thread(QEMU + 2, Role::Vcpu(0), false),
        sample(10, 1000, None),
        charge(11, QEMU + 1, Kind::File, Region::Overhead, 300, 0),
        charge(12, QEMU + 2, Kind::Anon, Region::Guest, 200, 0),
        sample(20, 1500, None),
        charge(21, QEMU + 1, Kind::Anon, Region::Overhead, 200, 0),
        event(22, Body::Oom(kill)),
        sample(30, 10, None),
    ]);
    let pod = ledger.pods().next().expect("the pod");
    let named = |growth: &[(u16, Kind, i64)]| -> Vec<(String, Kind, i64)> {
        let name = |index: u16| pod.series.entities()[usize::from(index)].role.to_string();
        growth
            .iter()
            .map(|(index, kind, bytes)| (name(*index), *kind, *bytes))
            .collect()
    };
    let told: Vec<_> = pod
        .series
        .points()
        .iter()
        .map(|point| (point.t, point.usage, named(&point.growth)))
        .collect();
    let block = |kind, bytes| ("block-worker".to_owned(), kind, bytes);
    assert_eq!(
        told,
        [
            (10, 1000, vec![]),
            (20, 1500, vec![block(Kind::File, 300)]),
            (22, 1700, vec![block(Kind::Anon, 200), block(Kind::File, 300)]),
        ]
    );
}

#[test]
fn unplaced_guest_ram_is_found_by_smaps_and_split_in_proportion() {
    let ledger = ledger(&[
        pod(),
        qemu(true),
        sample(2, 0, Some(1000)),
        charge(3, 1, Kind::Anon, Region::Guest, 100, 0),
        charge(3, 1, Kind::Anon, Region::Unplaced, 300, 0),
        charge(3, 2, Kind::Anon, Region::Unplaced, 100, 0),
        charge(3, 2, Kind::Kmem, Region::Overhead, 40, 0),
        sample(3, 540, Some(1300)),
    ]);
    let pod = ledger.pods().next().unwrap();
    let resolved = ledger.resolve(pod);
    assert_eq!(resolved.guest_growth, 300);
    assert_eq!(resolved.placed_by_smaps, 200);
    assert_eq!(resolved.region_unknown, 200);
    assert_eq!(growth(&ledger, 1), 150);
    assert_eq!(growth(&ledger, 2), 50 + 40);
}

#[test]
fn guest_ram_touched_before_its_ranges_were_known_is_reclassified() {
    const MIB: u64 = 1 << 20;
    let events = |before_attach| {
        [
            pod(),
            qemu(before_attach),
            thread(1, Role::Vcpu(0), false),
            sample(2, 0, None),
            charge(3, 1, Kind::Anon, Region::Overhead, 100 * MIB, 0),
            charge(3, 1, Kind::Anon, Region::Guest, 50 * MIB, 0),
            charge(3, 2, Kind::Anon, Region::Overhead, 30 * MIB, 0),
            sample(3, 180 * MIB, Some(140 * MIB)),
        ]
    };
    let started_later = ledger(&events(false));
    let resolved = started_later.resolve(started_later.pods().next().unwrap());
    assert_eq!(resolved.reclassified, i128::from(90 * MIB));
    assert_eq!(growth(&started_later, 1), i128::from(10 * MIB));
    assert_eq!(growth(&started_later, 2), i128::from(30 * MIB));
    assert_eq!(growth(&ledger(&events(true)), 1), i128::from(100 * MIB));
}

#[test]
fn ended_threads_beyond_the_bound_are_added_up() {
    let mut events = vec![pod(), qemu(true), sample(1, 0, None)];
    let count = u32::try_from(MAX_THREADS).unwrap() + 10;
    for tid in 1..=count {
        events.push(charge(2, tid, Kind::Slab, Region::Overhead, 10, 0));
        events.push(thread(tid, Role::BlockWorker, true));
    }
    events.push(sample(3, u64::from(count) * 10, None));
    // What the last sample made comparable is still to be told by thread.
    events.push(sample(4, u64::from(count) * 10, None));
    let ledger = ledger(&events);
    let resolved = ledger.resolve(ledger.pods().next().unwrap());
    assert!(ledger.threads.is_empty());
    assert_eq!(resolved.threads.len(), 1);
    assert_eq!(resolved.threads[0].threads(), u64::from(count));
    assert_eq!(resolved.threads[0].entity.role, Role::BlockWorker);
    assert_eq!(resolved.threads[0].overhead_growth(), i128::from(count) * 10);
}

#[test]
fn the_footer_is_checked_against_the_records() {
    let total = |charged| Total {
        memcg: MEMCG,
        kind: Kind::Anon,
        region: Region::Overhead,
        charged,
        uncharged: 5,
    };
    let with_footer = |charged| {
        let footer = Footer {
            totals: vec![total(charged)],
            ..Footer::default()
        };
        let charge = charge(3, 7, Kind::Anon, Region::Overhead, 300, 5);
        ledger(&[pod(), charge, event(4, Body::Footer(footer))]).disagreements()
    };
    assert_eq!(with_footer(300), []);
    assert_eq!(with_footer(301).len(), 1);
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let region = prop::sample::select(Region::ALL.to_vec());
    let charges = (1..100_u64, 0..6_u32, kind, region, 0..1_u64 << 40, 0..1_u64 << 40)
        .prop_map(|(t, tid, kind, region, charged, uncharged)| charge(t, tid, kind, region, charged, uncharged));
    let samples = (1..100_u64, 0..1_u64 << 42, prop::option::of(0..1_u64 << 42))
        .prop_map(|(t, usage, guest)| sample(t, usage, guest));
    let ooms = (1..100_u64, 0..1_u64 << 42).prop_map(|(t, usage)| {
        let oom = Oom {
            oom_memcg: MEMCG,
            usage,
            ..Oom::default()
        };
        event(t, Body::Oom(oom))
    });
    let threads = (1..6_u32, any::<bool>()).prop_map(|(tid, exited)| thread(tid, Role::Vcpu(tid), exited));
    prop_oneof![12 => charges, 4 => samples, 1 => ooms, 1 => threads]
}

proptest! {
    #[test]
    fn overhead_and_unexplained_add_up_to_usage_less_guest(
        events in prop::collection::vec(any_event(), 0..60),
        before_attach in any::<bool>(),
    ) {
        let mut ledger = ledger(&[pod(), qemu(before_attach)]);
        events.iter().for_each(|event| ledger.apply(event));
        let pod = ledger.pods().next().unwrap();
        let resolved = ledger.resolve(pod);
        let threads: i128 = resolved.threads.iter().map(ThreadGrowth::overhead_growth).sum();
        prop_assert_eq!(threads + pod.unexplained(), pod.usage_growth() - resolved.guest_growth);
        prop_assert!(resolved.region_unknown >= 0);
    }
}

#[test]
fn a_thread_keeps_its_name_while_what_it_was_charged_last_is_told() {
    let mut ledger = Ledger::with_threads_apart(0);
    let worker = thread(7, Role::BlockWorker, true);
    for event in [
        pod(),
        qemu(true),
        sample(2, 5000, None),
        charge(3, 7, Kind::Anon, Region::Overhead, 300, 0),
        worker,
        sample(4, 5300, None),
    ] {
        ledger.apply(&event);
    }
    let pod = ledger.pods().next().unwrap();
    let (key, _) = pod.recent().first().unwrap();
    assert_eq!(ledger.entity(*key).role, Role::BlockWorker);
    ledger.apply(&sample(5, 5300, None));
    let pod = ledger.pods().next().unwrap();
    assert_eq!(pod.accounts().count(), 0);
    let ended: Vec<_> = pod.ended().map(|(entity, _)| entity.role.clone()).collect();
    assert_eq!(ended, [Role::BlockWorker]);
}
