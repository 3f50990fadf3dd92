//! A made-up recording of hours of a busy VM pod, written as a collector would: by the real writer, on a clock that
//! takes no time.
//!
//! The pod has some 110 threads. Its guest fills its RAM within the first hour; each hour has a backup window of twenty
//! minutes, in which block workers come and go and, ten seconds of every thirty, page cache is charged and given back in
//! records of 64 KiB, some thousands a second; one helper leaks all the time; the rest makes the noise of processes
//! that live.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use fastrand::Rng;
use headroom::recording::event::{
    Body, Charge, Event, FORMAT, Footer, Header, Memcg, Oom, OomTask, Pod, Process, Reclaim, Sample, Thread, Total,
};
use headroom::recording::{Overwrite, Writer};
use headroom::role::Role;
use std::collections::BTreeMap;
use tracer_common::{Kind, Region};

/// The pod's limiting memcg.
pub const MEMCG: u64 = 4711;
/// What a collector gathers before it emits.
const GRANULARITY: u64 = 64 << 10;
/// Accounts are read ten times a second.
const WALK: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
const GUEST_RAM: u64 = 8 << 30;
const LIMIT: u64 = GUEST_RAM + (700 << 20);
/// Charged by the helper that leaks, bytes a second: 360 MiB in six hours.
const LEAK: u64 = 17_476;
const VCPUS: u32 = 8;
const WORKERS: u32 = 48;
/// Helper daemons and how many threads each has.
const HELPERS: [(&str, u32); 6] = [
    ("virt-launcher-monitor", 6),
    ("virt-launcher", 16),
    ("virtqemud", 18),
    ("virtlogd", 3),
    ("virt-tail", 4),
    ("passt", 1),
];

/// What was simulated, to compare with what is reported.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Events handed to the writer.
    pub events: u64,
    /// The most in one second.
    pub busiest_second: u64,
    /// Growth of the leaking helper's overhead, bytes.
    pub leaked: u64,
    /// Growth of guest RAM, bytes.
    pub guest: u64,
    /// Growth of usage, bytes.
    pub usage: u64,
}

/// A thread of the pod.
#[derive(Clone, Copy)]
struct Actor {
    tid: u32,
    start_ns: u64,
}

/// Where a simulation is.
struct Simulation<'a> {
    sink: &'a mut dyn FnMut(&Event) -> Result<()>,
    rng: Rng,
    t: u64,
    usage: u64,
    file: u64,
    guest: u64,
    next_tid: u32,
    totals: BTreeMap<(Kind, Region), (u64, u64)>,
    truth: Truth,
    main_loop: Actor,
    vcpus: Vec<Actor>,
    workers: Vec<Actor>,
    helpers: Vec<Actor>,
    leaker: Actor,
}

/// Writes a recording of `hours`.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, hours: u64) -> Result<Truth> {
    let mut writer: Writer<File> = Writer::create(path, Overwrite::Refuse)?;
    let truth = simulate(hours, &mut |event| Ok(writer.push(event)?))?;
    writer.finish()?;
    Ok(truth)
}

/// Gives the events of `hours` to `sink`.
///
/// # Errors
/// Those of the sink.
pub fn simulate(hours: u64, sink: &mut dyn FnMut(&Event) -> Result<()>) -> Result<Truth> {
    let nobody = Actor { tid: 0, start_ns: 0 };
    let mut simulation = Simulation {
        sink,
        rng: Rng::with_seed(7),
        t: 1000 * SECOND,
        usage: 180 * MIB,
        file: 0,
        guest: 0,
        next_tid: 100_000,
        totals: BTreeMap::new(),
        truth: Truth::default(),
        main_loop: nobody,
        vcpus: Vec::new(),
        workers: Vec::new(),
        helpers: Vec::new(),
        leaker: nobody,
    };
    simulation.begin()?;
    for second in 0..hours * 3600 {
        let before = simulation.truth.events;
        for _ in 0..10 {
            simulation.t += WALK + simulation.rng.u64(0..WALK / 10);
            simulation.walk(second)?;
        }
        simulation.change_workers(second)?;
        simulation.sample()?;
        let events = simulation.truth.events - before;
        simulation.truth.busiest_second = simulation.truth.busiest_second.max(events);
    }
    simulation.end()
}

/// Whether a backup runs.
const fn in_window(second: u64) -> bool {
    second % 3600 >= 2400
}

/// Whether it copies as fast as it can.
const fn in_burst(second: u64) -> bool {
    in_window(second) && second % 30 < 10
}

impl Simulation<'_> {
    fn emit(&mut self, body: Body) -> Result<()> {
        self.truth.events += 1;
        (self.sink)(&Event { t: self.t, body })
    }

    fn begin(&mut self) -> Result<()> {
        self.emit(Body::Header(Header {
            format: FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: "node-1".to_owned(),
            kernel: "6.12.0".to_owned(),
            cgroup: "v2".to_owned(),
            boot_unix_ns: 1_769_899_200 * SECOND,
            backends: [("charge_folio".to_owned(), "fentry".to_owned())].into(),
            granularity: GRANULARITY,
            page_size: 4096,
            cpus: 16,
            forecasts: false,
            live: None,
        }))?;
        self.emit(Body::Pod(Pod {
            pod: 1,
            namespace: "default".to_owned(),
            vm: "busy".to_owned(),
            pod_uid: "11111111-2222-3333-4444-555555555555".to_owned(),
            memcg: MEMCG,
            cgroup: "/kubepods.slice/pod1/compute".to_owned(),
            limit: Some(LIMIT),
            guest_ram: GUEST_RAM,
            qemu_pid: 100_000,
            memcgs: vec![Memcg {
                id: MEMCG,
                path: "/kubepods.slice/pod1/compute".to_owned(),
                counted: true,
            }],
            ..Pod::default()
        }))?;
        let qemu = self.process("qemu", Role::MainLoop)?;
        self.main_loop = self.thread(qemu, "qemu-system-x86", Role::MainLoop)?;
        for n in 0..VCPUS {
            let vcpu = self.thread(qemu, &format!("CPU {n}/KVM"), Role::Vcpu(n))?;
            self.vcpus.push(vcpu);
        }
        for n in 0..WORKERS {
            let worker = match n {
                0..4 => self.thread(qemu, &format!("IO iothread{n}"), Role::IoThread(format!("iothread{n}")))?,
                _ => self.thread(qemu, "worker", Role::BlockWorker)?,
            };
            self.workers.push(worker);
        }
        for (name, threads) in HELPERS {
            let role = Role::Helper(name.to_owned());
            let pid = self.process(name, role.clone())?;
            for _ in 0..threads {
                let helper = self.thread(pid, name, role.clone())?;
                self.helpers.push(helper);
                if name == "virtqemud" {
                    self.leaker = helper;
                }
            }
        }
        self.sample()
    }

    fn process(&mut self, name: &str, role: Role) -> Result<u32> {
        let pid = self.next_tid;
        self.emit(Body::Process(Process {
            pid,
            start_ns: self.t - SECOND,
            pod: Some(1),
            memcg: MEMCG,
            comm: name.chars().take(15).collect(),
            name: name.to_owned(),
            role,
            rss: 20 * MIB,
            rss_anon: None,
            before_attach: true,
            exited: false,
        }))?;
        Ok(pid)
    }

    fn thread(&mut self, pid: u32, comm: &str, role: Role) -> Result<Actor> {
        let actor = Actor {
            tid: self.next_tid,
            start_ns: self.t - self.rng.u64(0..SECOND),
        };
        self.next_tid += 1;
        self.name(actor, pid, comm, role, false)?;
        Ok(actor)
    }

    fn name(&mut self, actor: Actor, pid: u32, comm: &str, role: Role, exited: bool) -> Result<()> {
        self.emit(Body::Thread(Thread {
            tid: actor.tid,
            start_ns: actor.start_ns,
            pid,
            pod: Some(1),
            comm: comm.to_owned(),
            role,
            exited,
        }))
    }

    /// One charge event.
    fn charge(&mut self, actor: Actor, kind: Kind, region: Region, charged: u64, uncharged: u64) -> Result<()> {
        self.usage = self.usage + charged - uncharged;
        let total = self.totals.entry((kind, region)).or_default();
        total.0 += charged;
        total.1 += uncharged;
        self.emit(Body::Charge(Charge {
            memcg: MEMCG,
            tid: actor.tid,
            start_ns: actor.start_ns,
            kind,
            region,
            charged,
            uncharged,
        }))
    }

    /// Charged, and then placed, in as many records as a collector makes of it.
    fn place(&mut self, actor: Actor, kind: Kind, region: Region, bytes: u64) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let part = left.min(GRANULARITY);
            self.charge(actor, kind, Region::Unplaced, part, 0)?;
            self.charge(actor, kind, Region::Unplaced, 0, part)?;
            self.charge(actor, kind, region, part, 0)?;
            left -= part;
        }
        Ok(())
    }

    /// What happens between two readings of the accounts.
    fn walk(&mut self, second: u64) -> Result<()> {
        if self.guest < GUEST_RAM - 64 * MIB && second.is_multiple_of(5) {
            let vcpu = self.vcpus[self.rng.usize(0..self.vcpus.len())];
            let bytes = 4096 * self.rng.u64(1..512);
            self.place(vcpu, Kind::Anon, Region::Guest, bytes)?;
            self.guest += bytes;
            self.charge(vcpu, Kind::Pagetable, Region::Overhead, 4096, 0)?;
        }
        for index in 0..self.helpers.len() {
            if self.rng.u8(0..50) == 0 {
                self.noise(self.helpers[index])?;
            }
        }
        for index in 0..self.vcpus.len() {
            if self.rng.u8(0..20) == 0 {
                self.noise(self.vcpus[index])?;
            }
        }
        self.noise(self.main_loop)?;
        let leaked = LEAK / 10;
        self.charge(self.leaker, Kind::Anon, Region::Overhead, leaked, 0)?;
        self.truth.leaked += leaked;
        if in_burst(second) {
            self.copy(16)?;
        } else if in_window(second) {
            self.copy(1)?;
        }
        Ok(())
    }

    /// Small objects that come and go.
    fn noise(&mut self, actor: Actor) -> Result<()> {
        let bytes = 192 * self.rng.u64(1..40);
        self.charge(actor, Kind::Slab, Region::Overhead, bytes, bytes)?;
        if self.rng.u8(0..4) == 0 {
            let pages = 4096 * self.rng.u64(1..8);
            self.charge(actor, Kind::Anon, Region::Overhead, pages, pages)?;
        }
        Ok(())
    }

    /// A backup reads an image: page cache comes, and what is old is reclaimed by whoever charges.
    fn copy(&mut self, records: u64) -> Result<()> {
        for _ in 0..records {
            let worker = self.workers[self.rng.usize(0..self.workers.len())];
            let bytes = GRANULARITY * self.rng.u64(1..5);
            self.place(worker, Kind::File, Region::Overhead, bytes)?;
            self.file += bytes;
            let too_much = self.file.saturating_sub(200 * MIB);
            if too_much > 0 {
                self.charge(worker, Kind::File, Region::Overhead, 0, too_much)?;
                self.file -= too_much;
                let duration_ns = 1000 * self.rng.u64(20..4000);
                self.emit(Body::Reclaim(Reclaim {
                    memcg: MEMCG,
                    tid: worker.tid,
                    start_ns: worker.start_ns,
                    duration_ns,
                    pages: too_much / 4096,
                    order: 0,
                }))?;
            }
            self.noise(worker)?;
        }
        Ok(())
    }

    /// QEMU's thread pool: a worker that is idle ends, another one starts.
    fn change_workers(&mut self, second: u64) -> Result<()> {
        if !in_window(second) || !second.is_multiple_of(4) {
            return Ok(());
        }
        let index = self.rng.usize(4..self.workers.len());
        let qemu = self.main_loop.tid;
        let old = self.workers[index];
        self.name(old, qemu, "worker", Role::BlockWorker, true)?;
        self.workers[index] = self.thread(qemu, "worker", Role::BlockWorker)?;
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let anon = self.usage - self.file - 100 * MIB;
        let stat = [
            (Kind::Anon, anon),
            (Kind::File, self.file),
            (Kind::Shmem, 0),
            (Kind::Slab, 60 * MIB + self.rng.u64(0..MIB)),
            (Kind::Pagetable, 17 * MIB + (self.guest / 4096) * 8),
            (Kind::SecondaryPagetable, (self.guest / 4096) * 8),
            (Kind::KernelStack, 110 * (16 << 10)),
            (Kind::Vmalloc, 0),
            (Kind::Percpu, 36 << 10),
            (Kind::Sock, self.rng.u64(0..16) * 4096),
            (Kind::Kmem, 4 * MIB),
        ];
        self.emit(Body::Sample(Sample {
            memcg: MEMCG,
            pod: 1,
            usage: self.usage,
            limit: Some(LIMIT),
            peak: Some(self.usage),
            stat: stat.into(),
            reclaimable_file: self.file,
            guest_resident: Some(self.guest),
            pressure_some_us: Some(self.t / 1_000_000),
            limit_hits: 0,
            oom_kills: 0,
        }))
    }

    /// The kernel kills, and the recorder ends.
    fn end(mut self) -> Result<Truth> {
        let invoker = self.vcpus[0];
        self.truth.guest = self.guest;
        self.truth.usage = self.usage - 180 * MIB;
        let task = |tid: u32, comm: &str, role: Role| OomTask {
            tid,
            pid: self.main_loop.tid,
            comm: comm.to_owned(),
            role: Some(role),
        };
        let oom = Oom {
            pod: Some(1),
            oom_memcg: MEMCG,
            memcg: MEMCG,
            usage: self.usage,
            limit: LIMIT,
            invoker: task(invoker.tid, "CPU 0/KVM", Role::Vcpu(0)),
            victim: task(self.main_loop.tid, "qemu-system-x86", Role::MainLoop),
            ..Oom::default()
        };
        self.t += SECOND / 10;
        self.emit(Body::Oom(oom))?;
        self.t += 2 * SECOND;
        let totals = std::mem::take(&mut self.totals);
        let totals = totals.into_iter().map(|((kind, region), (charged, uncharged))| Total {
            memcg: MEMCG,
            kind,
            region,
            charged,
            uncharged,
        });
        let footer = Footer {
            totals: totals.collect(),
            ended: "oom".to_owned(),
            ..Footer::default()
        };
        self.emit(Body::Footer(footer))?;
        Ok(self.truth)
    }
}
