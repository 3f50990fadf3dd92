//! Made-up recordings of one pod, for tests of reports.

use std::collections::BTreeMap;

use tracer_common::{Kind, Region};

use super::{Report, render_json, render_text};
use crate::ledger::Ledger;
use crate::recording::event::{
    Body, Charge, Event, FORMAT, FileCache, Footer, Header, Oom, OomTask, Pod, Sample, Total,
};
use crate::recording::{Reader, Writer, made_up};
use crate::role::Role;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const MEMCG: u64 = 4711;
pub(super) const QEMU: u32 = 100;
pub(super) const HELPER: u32 = 50;

/// A made-up recording of one pod, in which usage is exactly what was charged.
pub(super) struct Story {
    pub(super) events: Vec<Event>,
    pub(super) t: u64,
    pub(super) usage: u64,
    guest: u64,
    totals: BTreeMap<(Kind, Region), (u64, u64)>,
}

impl Story {
    /// 600 MiB of limit, 512 MiB of guest RAM, 40 MiB used.
    pub(super) fn new() -> Self {
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

    pub(super) fn push(&mut self, body: Body) {
        self.events.push(Event { t: self.t, body });
    }

    pub(super) fn process(&mut self, pid: u32, name: &str, role: Role) {
        self.push(Body::Process(made_up::process(pid, MEMCG, name, role)));
    }

    pub(super) fn thread(&mut self, tid: u32, pid: u32, comm: &str, role: Role) {
        self.push(Body::Thread(made_up::thread(tid, pid, comm, role)));
    }

    pub(super) fn charge(&mut self, tid: u32, kind: Kind, region: Region, charged: u64, uncharged: u64) {
        self.usage = self.usage + charged - uncharged;
        if region == Region::Guest {
            self.guest += charged;
        }
        let total = self.totals.entry((kind, region)).or_default();
        total.0 += charged;
        total.1 += uncharged;
        self.push(Body::Charge(Charge {
            uncharged,
            ..made_up::charge(MEMCG, tid, kind, region, charged)
        }));
    }

    pub(super) fn sample(&mut self) {
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

    pub(super) fn wait(&mut self) {
        self.t += SECOND;
    }

    pub(super) fn oom(&mut self, invoker: &str, role: Option<Role>) {
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

    pub(super) fn footer(&mut self, files: Vec<FileCache>) {
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

    pub(super) fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        self.events.iter().for_each(|event| writer.push(event).unwrap());
        writer.finish().unwrap();
        drop(writer);
        file
    }
}

/// Reports what a recording holds.
pub(super) fn report(file: &[u8]) -> Report {
    let mut reader = Reader::new(file).unwrap();
    let mut ledger = Ledger::new();
    for event in &mut reader {
        ledger.apply(&event.unwrap());
    }
    Report::new(&ledger, Some(&reader.summary()))
}

pub(super) fn text(report: &Report) -> String {
    let mut out = Vec::new();
    render_text(report, &mut out).unwrap();
    anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
}

pub(super) fn json(report: &Report) -> String {
    let mut out = Vec::new();
    render_json(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}
