use tracer_common::{Kind, Region};

use super::super::story::{HELPER, MEMCG, MIB, QEMU, Story, report, text};
use super::super::verdict;
use crate::recording::event::{Body, Following, Live};
use crate::role::Role;

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
