//! A made-up pod that tests make grow, seen through the events that a tracer would give.

use tracer_common::{Kind, Region};

use super::{Forecaster, View};
use crate::recording::event::{Body, Charge, Event, Forecast, Header, Memcg, Pod, Sample};
use crate::recording::made_up;
use crate::role::Role;

pub const MIB: f64 = 1048576.0;
const MEMCG: u64 = 10;
pub const QEMU: u32 = 100;
pub const HELPER: u32 = 50;

/// A pod with a QEMU, whose vCPU has the QEMU's process id, and a helper.
pub struct Simulation {
    pub forecaster: Forecaster,
    pub limit: f64,
    pub guest_ram: f64,
    /// What a sample shows at least: QEMU's and the helper's memory at the start.
    pub base: f64,
    /// Overhead of the helper.
    pub helper: f64,
    /// Overhead of QEMU's first vCPU.
    pub vcpu: f64,
    pub guest: f64,
    /// Reclaimable page cache.
    pub cache: f64,
    /// Seconds.
    pub t: f64,
    charged: [f64; 4],
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

impl Simulation {
    pub fn new(limit: f64, guest_ram: f64) -> Self {
        let mut this = Self {
            forecaster: Forecaster::new(),
            limit,
            guest_ram,
            base: 30.0 * MIB,
            helper: 0.0,
            vcpu: 0.0,
            guest: 0.0,
            cache: 0.0,
            t: 1.0,
            charged: [0.0; 4],
        };
        let header = Header {
            page_size: 4096,
            cpus: 2,
            ..Header::default()
        };
        this.send(Body::Header(header));
        this.send(Body::Pod(Pod {
            pod: 1,
            memcg: MEMCG,
            limit: Some(limit as u64),
            guest_ram: guest_ram as u64,
            qemu_pid: QEMU,
            memcgs: vec![Memcg {
                id: MEMCG,
                path: "/pod".to_owned(),
                counted: true,
            }],
            ..Pod::default()
        }));
        for (pid, name, role, thread) in [
            (QEMU, "qemu", Role::MainLoop, Role::Vcpu(0)),
            (HELPER, "virtqemud", helper(), helper()),
        ] {
            this.send(Body::Process(made_up::process(pid, MEMCG, name, role)));
            this.send(Body::Thread(made_up::thread(pid, pid, name, thread)));
        }
        this
    }

    pub fn send(&mut self, body: Body) -> Option<Forecast> {
        self.forecaster.observe(&Event { t: ns(self.t), body })
    }

    /// What is available as the forecaster should see it.
    pub fn available(&self) -> f64 {
        self.limit - self.base - self.helper - self.vcpu - self.guest
    }

    /// Charges what grew since the last sample, and takes a sample.
    pub fn sample(&mut self) -> Option<Forecast> {
        let now = [self.helper, self.vcpu, self.guest, self.cache];
        let cells = [
            (HELPER, Kind::Anon, Region::Overhead),
            (QEMU, Kind::Anon, Region::Overhead),
            (QEMU, Kind::Anon, Region::Guest),
            (HELPER, Kind::File, Region::Overhead),
        ];
        for ((tid, kind, region), (now, before)) in cells.into_iter().zip(now.into_iter().zip(self.charged)) {
            let charge = Charge {
                memcg: MEMCG,
                tid,
                start_ns: 1,
                kind,
                region,
                charged: (now - before).max(0.0) as u64,
                uncharged: (before - now).max(0.0) as u64,
            };
            self.send(Body::Charge(charge));
        }
        self.charged = now;
        let kept = self.base + self.helper + self.vcpu + self.guest;
        let sample = Sample {
            memcg: MEMCG,
            pod: 1,
            usage: (kept + self.cache).max(0.0) as u64,
            limit: Some(self.limit as u64),
            reclaimable_file: self.cache as u64,
            guest_resident: Some(self.guest as u64),
            ..Sample::default()
        };
        self.send(Body::Sample(sample))
    }

    /// A second goes by.
    pub fn second(&mut self) -> Option<Forecast> {
        self.t += 1.0;
        self.sample()
    }

    pub fn view(&self) -> &View {
        self.forecaster.view(1).expect("a sample was taken")
    }

    /// Seconds from now to the forecast kill: low, expected, high.
    pub fn left(&self) -> Option<(f64, f64, Option<f64>)> {
        let kill = self.view().kill?;
        let left = |at: u64| at as f64 / 1e9 - self.t;
        Some((left(kill.low), left(kill.at), kill.high.map(left)))
    }

    pub fn driver(&self) -> Option<String> {
        self.view().driver.as_ref().map(|driver| driver.role.to_string())
    }
}

pub fn helper() -> Role {
    Role::Helper("virtqemud".to_owned())
}
