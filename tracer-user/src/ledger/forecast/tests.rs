use std::time::Duration;

use proptest::prelude::*;
use tracer_common::{Kind, Region};

use super::simulation::{HELPER, MIB, Simulation};
use crate::ledger::Foresight;
use crate::ledger::alert::{Alerts, Thresholds};
use crate::recording::event::{Alert, Body, Charge, Event, Memcg, Oom, Pod, Sample};

fn eta(minutes: u64) -> Alerts {
    Alerts::new(Thresholds {
        eta: Some(Duration::from_secs(60 * minutes)),
        headroom: Some(16 << 20),
        rate: Some(8 << 20),
    })
}

/// Runs seconds of a simulation; gives the alerts, and checks that what is said comes at most once a second.
fn alerts_of(
    pod: &mut Simulation,
    alerts: &mut Alerts,
    seconds: u32,
    mut step: impl FnMut(&mut Simulation, u32),
) -> Vec<Alert> {
    let mut told = Vec::new();
    for second in 0..seconds {
        step(pod, second);
        pod.second();
        told.extend(alerts.observe(1, pod.view()));
    }
    told
}

#[test]
fn a_guest_that_fills_its_ram_within_the_budget_raises_nothing() {
    for rate in [0.5, 8.0, 64.0] {
        let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
        let told = alerts_of(&mut pod, &mut eta(5), 1200, |pod, _| {
            pod.guest = (pod.guest + rate * MIB).min(pod.guest_ram);
            // Page tables come with it.
            pod.vcpu = pod.guest / 256.0;
            assert!(
                pod.forecaster.view(1).is_none_or(|view| view.kill.is_none()),
                "{rate} MiB/s at {}",
                pod.t
            );
        });
        assert_eq!(told, []);
    }
}

#[test]
fn page_cache_that_comes_and_goes_raises_nothing() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    let told = alerts_of(&mut pod, &mut eta(5), 600, |pod, second| {
        // Up to the limit, where the kernel takes it back.
        pod.cache = f64::from(second % 20) / 19.0 * pod.available();
    });
    assert_eq!(told, []);
    assert_eq!(pod.view().kill, None);
}

#[test]
fn a_heap_that_grows_and_shrinks_is_learned_from() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    let told = alerts_of(&mut pod, &mut eta(5), 600, |pod, second| {
        // 60 MiB of the 170 that are available, every 30 s.
        pod.helper = f64::from(second % 30) * 2.0 * MIB;
    });
    // The first rise may be the beginning of the end; the later ones are known to come down again.
    assert!(told.iter().filter(|alert| alert.raised).count() <= 1, "{told:?}");
    assert!(
        pod.left().is_none_or(|(_, expected, _)| expected > 300.0),
        "{:?}",
        pod.left()
    );
}

#[test]
fn a_step_is_no_trend() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    let told = alerts_of(&mut pod, &mut eta(5), 300, |pod, second| {
        if second == 100 {
            pod.helper += 60.0 * MIB;
        }
    });
    assert_eq!(told, []);
}

#[test]
fn a_quiet_pod_with_little_headroom_raises_only_that() {
    let mut pod = Simulation::new(540.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    let told = alerts_of(&mut pod, &mut eta(5), 600, |pod, second| {
        // A batch of charges more or less.
        pod.helper = f64::from(second * 7919 % 13) / 13.0 * 0.5 * MIB;
    });
    let kinds: Vec<&str> = told.iter().map(|alert| alert.alert.as_str()).collect();
    assert_eq!(kinds, ["headroom"]);
}

#[test]
fn a_leak_is_foreseen_and_put_down_to_who_leaks() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    alerts_of(&mut pod, &mut eta(5), 60, |_, _| {});
    let onset = pod.t;
    let told = alerts_of(&mut pod, &mut eta(5), 100, |pod, _| pod.helper += MIB);
    assert_eq!(told.len(), 1, "{told:?}");
    let alert = &told[0];
    assert_eq!(
        alert.driver.as_ref().map(|driver| driver.process.as_str()),
        Some("virtqemud")
    );
    let real = onset + 170.0;
    let expected = alert.kill_at.expect("a kill is forecast") as f64 / 1e9;
    assert!((expected - real).abs() < 0.15 * (real - onset), "{expected} {real}");
    let (low, expected, high) = pod.left().expect("a kill is forecast");
    assert!((expected - 70.0).abs() < 3.0, "{expected}");
    assert!(low > 40.0 && high.is_some_and(|high| high < 120.0), "{low} {high:?}");
}

#[test]
fn the_guest_that_meets_the_limit_is_not_to_blame_for_it() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    // The helper takes more than the budget, then stands still.
    alerts_of(&mut pod, &mut eta(5), 60, |pod, _| {
        pod.helper += 4.0 * MIB;
        pod.guest += MIB;
    });
    let told = alerts_of(&mut pod, &mut eta(5), 60, |pod, _| pod.guest += 4.0 * MIB);
    assert!(pod.view().kill.is_some(), "{told:?}");
    assert_eq!(pod.driver().as_deref(), Some("helper virtqemud"));
    let (_, expected, _) = pod.left().expect("a kill is forecast");
    let real = pod.available() / (4.0 * MIB);
    assert!((expected - real).abs() < 0.15 * real + 1.0, "{expected} {real}");
}

#[test]
fn what_is_said_is_news_and_at_most_once_a_second() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    pod.guest = 500.0 * MIB;
    let mut said = Vec::new();
    for step in 0..4000 {
        pod.t += 0.25;
        if step > 200 && step < 800 {
            pod.helper += 0.25 * MIB;
        }
        if let Some(forecast) = pod.sample() {
            said.push((pod.t, forecast));
        }
    }
    assert!(said.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 0.9), "{said:?}");
    assert!((2..40).contains(&said.len()), "{}", said.len());
    assert!(said[0].1.kill_at.is_some());
    let last = &said[said.len() - 1].1;
    assert_eq!(
        (last.kill_at, &last.driver),
        (None, &None),
        "growth ended, so the forecast is withdrawn"
    );
}

#[test]
fn after_a_kill_everything_begins_anew() {
    let mut pod = Simulation::new(700.0 * MIB, 500.0 * MIB);
    alerts_of(&mut pod, &mut eta(5), 30, |pod, _| pod.helper += 8.0 * MIB);
    assert!(pod.view().kill.is_some());
    pod.send(Body::Oom(Oom {
        pod: Some(1),
        ..Oom::default()
    }));
    assert_eq!(pod.forecaster.view(1), None);
}

fn any_event() -> impl Strategy<Value = Event> {
    let wide = || prop_oneof![0..4_u64, any::<u64>()];
    let pod = (0..3_u32, 0..3_u64, wide(), any::<bool>()).prop_map(|(pod, memcg, guest_ram, gone)| {
        Body::Pod(Pod {
            pod,
            memcg,
            guest_ram,
            gone,
            memcgs: vec![Memcg {
                id: memcg,
                path: String::new(),
                counted: true,
            }],
            ..Pod::default()
        })
    });
    let kinds = prop::sample::select(Kind::ALL.to_vec());
    let regions = prop::sample::select(Region::ALL.to_vec());
    let charge = (0..3_u64, kinds, regions, wide(), wide()).prop_map(|(memcg, kind, region, charged, uncharged)| {
        Body::Charge(Charge {
            memcg,
            tid: HELPER,
            start_ns: 1,
            kind,
            region,
            charged,
            uncharged,
        })
    });
    let sample = (
        0..3_u32,
        0..3_u64,
        wide(),
        prop::option::of(wide()),
        wide(),
        prop::option::of(wide()),
    )
        .prop_map(|(pod, memcg, usage, limit, reclaimable_file, guest_resident)| {
            Body::Sample(Sample {
                pod,
                memcg,
                usage,
                limit,
                reclaimable_file,
                guest_resident,
                ..Sample::default()
            })
        });
    let body = prop_oneof![1 => pod, 2 => charge, 8 => sample];
    (wide(), body).prop_map(|(t, body)| Event { t, body })
}

proptest! {
    #[test]
    fn no_recording_makes_it_panic(events in prop::collection::vec(any_event(), 0..80)) {
        let mut foresight = Foresight::new(Thresholds {
            eta: Some(Duration::MAX),
            headroom: Some(u64::MAX),
            rate: Some(0),
        });
        for event in &events {
            for told in foresight.observe(event) {
                prop_assert_eq!(told.t, event.t);
            }
        }
    }
}
