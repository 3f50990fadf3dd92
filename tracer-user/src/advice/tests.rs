use tracer_common::{Kind, Region};

use super::*;
use crate::ledger::{Entity, Ledger};
use crate::recording::event::{Body, Event, Header, Oom, Pod, Process, Sample, VmShape};
use crate::recording::{State, made_up};
use crate::sizing::GIB;
use crate::sizing::manifest;
use crate::sizing::spec::{Basis, Known};
use crate::sizing::version::Harvester;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const MEMCG: u64 = 7;
const QEMU: u32 = 100;
const HELPER: u32 = 50;

/// A pod of 512 MiB of guest RAM, sampled once a second.
struct Story {
    ledger: Ledger,
    t: u64,
    usage: u64,
    guest: u64,
    file: u64,
}

impl Story {
    fn new(limit: u64) -> Self {
        let mut story = Self {
            ledger: Ledger::new(),
            t: SECOND,
            usage: 60 * MIB,
            guest: 0,
            file: 0,
        };
        story.push(Body::Header(Header {
            page_size: 4096,
            cpus: 2,
            ..Header::default()
        }));
        story.push(Body::Pod(Pod {
            pod: 1,
            namespace: "shop".to_owned(),
            vm: "web".to_owned(),
            memcg: MEMCG,
            limit: Some(limit * MIB),
            guest_ram: 512 * MIB,
            qemu_pid: QEMU,
            shape: Some(VmShape {
                vcpus: 2,
                ..VmShape::default()
            }),
            ..Pod::default()
        }));
        story.process(QEMU, "qemu", Role::MainLoop, 30);
        story.process(HELPER, "virtqemud", Role::Helper("virtqemud".to_owned()), 20);
        story.thread(QEMU + 1, QEMU, Role::Vcpu(0));
        story.thread(QEMU + 2, QEMU, Role::BlockWorker);
        story.thread(HELPER, HELPER, Role::Helper("virtqemud".to_owned()));
        story.sample();
        story
    }

    fn push(&mut self, body: Body) {
        self.ledger.apply(&Event { t: self.t, body });
    }

    fn process(&mut self, pid: u32, name: &str, role: Role, anon: u64) {
        self.push(Body::Process(Process {
            rss: (anon + 9) * MIB,
            rss_anon: Some(anon * MIB),
            ..made_up::process(pid, MEMCG, name, role)
        }));
    }

    fn thread(&mut self, tid: u32, pid: u32, role: Role) {
        self.push(Body::Thread(made_up::thread(tid, pid, "t", role)));
    }

    /// Charges MiB to a thread.
    fn charge(&mut self, tid: u32, kind: Kind, region: Region, mib: u64) {
        self.usage += mib * MIB;
        match (kind, region) {
            (_, Region::Guest) => self.guest += mib * MIB,
            (Kind::File, _) => self.file += mib * MIB,
            _ => {}
        }
        self.push(Body::Charge(made_up::charge(MEMCG, tid, kind, region, mib * MIB)));
    }

    fn sample(&mut self) {
        let sample = Sample {
            memcg: MEMCG,
            pod: 1,
            usage: self.usage,
            limit: self.ledger.pods().next().and_then(|pod| pod.pod.limit),
            guest_resident: Some(self.guest),
            reclaimable_file: self.file,
            stat: [(Kind::Pagetable, 3 * MIB), (Kind::Anon, self.usage - 3 * MIB)].into(),
            ..Sample::default()
        };
        self.push(Body::Sample(sample));
        self.t += SECOND;
    }

    /// The guest touches its RAM, a quarter per second.
    fn guest_fills(mut self) -> Self {
        for _ in 0..4 {
            self.charge(QEMU + 1, Kind::Anon, Region::Guest, 128);
            self.sample();
        }
        self
    }

    /// Somebody grows by so much per second.
    fn grows(mut self, tid: u32, kind: Kind, mib: u64, seconds: u64) -> Self {
        for _ in 0..seconds {
            self.charge(tid, kind, Region::Overhead, mib);
            self.sample();
        }
        self
    }

    fn killed(mut self) -> Self {
        let (usage, limit) = (self.usage, self.usage);
        self.t -= SECOND / 2;
        self.push(Body::Oom(Oom {
            pod: Some(1),
            oom_memcg: MEMCG,
            memcg: MEMCG,
            usage,
            limit,
            ..Oom::default()
        }));
        self
    }

    fn seen(&self, state: State) -> Observation {
        observe(&self.ledger, self.ledger.pods().next().unwrap(), state)
    }

    fn whole(&self) -> Recorded {
        recorded(self.seen(State::Complete))
    }
}

fn recorded(seen: Observation) -> Recorded {
    Recorded {
        file: "a.jsonl.zst".to_owned(),
        start: "2026-01-01T00:00:00Z".to_owned(),
        end: "2026-01-01T00:00:09Z".to_owned(),
        seen,
    }
}

fn advice(recordings: &[Recorded]) -> Advice {
    advise(recordings, &Known::default(), 20)
}

fn text(advice: &Advice) -> String {
    let mut out = Vec::new();
    render_text(advice, &mut out).unwrap();
    anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
}

#[test]
fn growth_that_ends_is_held_by_a_limit_to_the_byte() {
    let story = Story::new(700)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 50, 4)
        .grows(QEMU + 2, Kind::File, 40, 3);
    let advice = advice(&[story.whole()]);
    assert_eq!(advice.outcome, Outcome::Bounded);
    let need = advice.need.as_ref().unwrap();
    // Guest RAM, what was there, and what virtqemud took; no page cache.
    assert_eq!(need.minimum_limit, Some((512 + 60 + 200) * MIB));
    assert_eq!(need.advised_limit, Some(512 * MIB + 260 * MIB * 6 / 5));
    assert!(
        advice
            .verdict
            .contains("the limit of 700.0 MiB is 124.0 MiB below that"),
        "{}",
        advice.verdict
    );
    let virtqemud = &advice.by_role[0];
    assert_eq!(
        (virtqemud.at_attach, virtqemud.growth, virtqemud.peak, virtqemud.plateau),
        (Some(20 * MIB), 200 * MIB, 220 * MIB, true)
    );
    let budget = advice.budget.as_ref().unwrap();
    let line = budget.lines.iter().find(|line| line.name == "virtqemud").unwrap();
    assert_eq!((line.budgeted, line.taken), (40 * MIB, Some(220 * MIB)));
    assert_eq!(budget.taken, Some(260 * MIB));
    assert_eq!(advice.kernel, [("pagetable", 3 * MIB)].into());
}

#[test]
fn growth_into_the_kill_is_held_by_nothing_and_has_a_name() {
    let story = Story::new(700).guest_fills().grows(HELPER, Kind::Anon, 30, 6).killed();
    let advice = advice(&[story.whole()]);
    assert_eq!(advice.outcome, Outcome::NoReserveWillDo);
    assert!(
        advice
            .verdict
            .starts_with("no reserve will do: virtqemud grew 180.0 MiB in "),
        "{}",
        advice.verdict
    );
    assert_eq!((advice.reserves.as_ref(), advice.snippets.len()), (None, 0));
    assert_eq!(advice.need.unwrap().advised_limit, None);
    let look_at = advice.look_at.unwrap();
    assert_eq!((look_at.process.as_str(), look_at.growth), ("virtqemud", 180 * MIB));
}

#[test]
fn a_kill_after_growth_ended_is_the_limits_fault() {
    let story = Story::new(700).grows(HELPER, Kind::Anon, 60, 4).guest_fills().killed();
    let advice = advice(&[story.whole()]);
    assert_eq!(advice.outcome, Outcome::Bounded);
    assert!(advice.recordings[0].killed && advice.reserves.is_some());
}

#[test]
fn growth_until_the_end_holds_for_what_was_recorded_only() {
    let story = Story::new(900).guest_fills().grows(QEMU + 2, Kind::Anon, 20, 5);
    let advice = advice(&[story.whole()]);
    assert_eq!(advice.outcome, Outcome::StillGrowing);
    assert!(
        advice.verdict.contains("QEMU's block-worker grew 100.0 MiB"),
        "{}",
        advice.verdict
    );
    assert!(advice.verdict.ends_with("needs more"));
    assert_eq!(advice.workload.unwrap().class, Class::Storage);
}

#[test]
fn what_says_too_little_says_so() {
    let idle = Story::new(700).grows(HELPER, Kind::Anon, 0, 6);
    assert!(
        advice(&[idle.whole()])
            .verdict
            .contains("not enough data: nothing grew")
    );
    let short = Story::new(700).grows(HELPER, Kind::Anon, 9, 2);
    assert!(advice(&[short.whole()]).verdict.contains("too short"));
    let long = Story::new(700).guest_fills().grows(HELPER, Kind::Anon, 9, 9);
    let of = |state| advice(&[recorded(long.seen(state))]);
    assert!(of(State::Damaged).verdict.contains("damaged"));
    assert!(of(State::Incomplete).verdict.contains("no end"));
    let empty = observe(
        &Story::new(700).ledger,
        Story::new(700).ledger.pods().next().unwrap(),
        State::Complete,
    );
    let advice = advice(&[recorded(empty)]);
    assert_eq!((advice.outcome, advice.need), (Outcome::NotEnoughData, None));
}

#[test]
fn recordings_of_one_vm_add_up_to_their_worst() {
    let small = Story::new(700)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 5, 2)
        .grows(HELPER, Kind::Anon, 0, 3);
    let large = Story::new(800)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 50, 3)
        .grows(HELPER, Kind::Anon, 0, 3);
    let idle = Story::new(800).grows(HELPER, Kind::Anon, 0, 5);
    let advice = advice(&[large.whole(), small.whole(), idle.whole()]);
    let need = advice.need.as_ref().unwrap();
    assert_eq!((advice.outcome, need.overhead_peak), (Outcome::Bounded, 210 * MIB));
    assert_eq!(need.limit, Some(700 * MIB));
    let notes = advice.notes.join("\n");
    assert!(notes.contains("1 of 3 recordings do not say enough"), "{notes}");
    assert!(notes.contains("the limit differs"), "{notes}");
    let leak = Story::new(700).guest_fills().grows(HELPER, Kind::Anon, 9, 9).killed();
    assert_eq!(
        advise(&[large.whole(), leak.whole()], &Known::default(), 20).outcome,
        Outcome::NoReserveWillDo
    );
}

#[test]
fn a_manifest_gives_the_vm_and_harvester_its_rules() {
    let text = "
kind: VirtualMachine
metadata: {name: web, namespace: shop}
spec: {template: {spec: {domain: {cpu: {cores: 2}, resources: {limits: {memory: 512Mi}}}}}}
";
    let known = Known {
        harvester: Some(Harvester::named("1.4").unwrap()),
        manifest: manifest::read(text).unwrap().pop(),
        ..Known::default()
    };
    let story = Story::new(700)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 100, 4)
        .grows(HELPER, Kind::Anon, 0, 3);
    let advice = advise(&[story.whole()], &known, 0);
    let reserves = advice.reserves.as_ref().unwrap();
    let ratio = reserves.ratio.as_ref().unwrap();
    let reserved = reserves.reserved_memory.as_ref().unwrap();
    assert!(
        ratio.limit >= 972 * MIB && ratio.costs_guest == 0 && ratio.costs_node > 0,
        "{ratio:?}"
    );
    assert!(
        reserved.limit >= reserved.guest + 460 * MIB && reserved.costs_node == 0,
        "{reserved:?}"
    );
    assert!(reserves.why_not["reserved_overhead"].contains("1.8"));
    let shape = advice.shape.as_ref().unwrap();
    assert_eq!(
        (shape.basis, shape.ratio, shape.limit_of),
        (Basis::Given, Some(1.5), "container")
    );
    assert!(
        text_of_commands(&advice)
            .contains("kubectl annotate vm web -n shop --overwrite harvesterhci.io/reservedMemory=")
    );
    assert!(!text_of_commands(&advice).contains("kubectl patch kubevirt"));
}

fn text_of_commands(advice: &Advice) -> String {
    advice
        .snippets
        .iter()
        .map(|snippet| snippet.command.clone() + "\n")
        .collect()
}

#[test]
fn names_from_recordings_are_made_harmless() {
    let mut seen = Story::new(700)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 50, 5)
        .killed()
        .seen(State::Complete);
    seen.vm = "\u{1b}[2J$(reboot)".to_owned();
    seen.held.iter_mut().for_each(|held| {
        held.entity = Entity {
            role: Role::Other("\u{1b}]0;x\u{7}".to_owned()),
            process: "\u{202e}evil\n".to_owned(),
        };
    });
    let mut bounded = seen.clone();
    bounded.killed = false;
    for seen in [seen, bounded] {
        let advice = advice(&[recorded(seen)]);
        let text = text(&advice);
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text}");
        assert!(!text_of_commands(&advice).contains("reboot"));
    }
}

#[test]
fn shared_guest_ram_is_nobodys_own() {
    let mut story = Story::new(700);
    // passt maps guest RAM of a memfd: its figures hold more than all overhead.
    story.process(HELPER + 1, "passt", Role::Helper("passt".to_owned()), 400);
    let seen = story
        .guest_fills()
        .grows(HELPER, Kind::Anon, 9, 3)
        .seen(State::Complete);
    let passt = seen.held.iter().find(|held| held.entity.process == "passt").unwrap();
    assert_eq!(passt.at_attach, None);
}

proptest::proptest! {
    #[test]
    fn no_figures_are_too_odd(
        numbers in proptest::collection::vec(proptest::num::u64::ANY, 12), killed in proptest::bool::ANY,
        vcpus in proptest::num::u32::ANY, margin in 0..1000_u64,
    ) {
        let seen = Observation {
            window: (numbers[0], numbers[1]),
            killed,
            complete: true,
            guest_ram: numbers[2],
            guest_hugetlb: numbers[3] >> (numbers[4] % 64),
            limit: Some(numbers[5]),
            shape: Some(VmShape { vcpus, host_devices: vcpus, ..VmShape::default() }),
            peak: numbers[6],
            guest_peak: numbers[7],
            guest_growth: numbers[8],
            growth: Growth { peak: numbers[9], plateau: !killed, grew_ns: numbers[10] },
            grew: true,
            kernel: numbers[11],
            ..Observation::default()
        };
        let advice = advise(&[recorded(seen.clone()), recorded(seen)], &Known::default(), margin);
        let _ = text(&advice);
        proptest::prop_assert!(serde_json::to_string(&advice).is_ok());
    }
}

#[test]
fn guest_ram_in_huge_pages_is_not_in_the_limit() {
    let mut seen = Story::new(400)
        .guest_fills()
        .grows(HELPER, Kind::Anon, 50, 2)
        .grows(HELPER, Kind::Anon, 0, 3)
        .seen(State::Complete);
    (seen.guest_ram, seen.guest_hugetlb) = (0, GIB);
    let need = advice(&[recorded(seen.clone())]).need.unwrap();
    assert_eq!(need.minimum_limit, Some(seen.peak));
}
