//! One pod's history and what was last said about it.

use crate::ledger::account::ThreadKey;
use crate::ledger::culprit::Entity;
use crate::ledger::forecast::drivers::{Drivers, float};
use crate::ledger::forecast::history::{History, Moment};
use crate::ledger::forecast::outlook::{Outlook, Room, look};
use crate::ledger::forecast::quantile;
use crate::recording::event::{Basis, Driver, Forecast, Pod, Sample};

/// Page tables of guest RAM: each page of 4 KiB takes an entry of 8 bytes in QEMU's page tables and another in KVM's.
const PAGE_TABLES: f64 = 16.0 / 4096.0;
/// What is charged runs ahead of usage by up to the tolerance, which is an extreme; deviations are this part of it.
const NOISE: f64 = 0.25;
/// Samples without a forecast until the last one is withdrawn.
const PATIENCE: u32 = 3;
/// A kill that moves by more than this part of the time left is news.
const MATERIAL: f64 = 0.1;
/// Bounds are news only when they move by more than this part of the time left.
const MATERIAL_BOUND: f64 = 0.3;
/// Least time between two forecasts of a pod: a second, less what its samples jitter.
const CADENCE_NS: u64 = 900_000_000;
/// Growth of less than this part of overhead's is nobody's doing in particular.
const PARTICULAR: f64 = 0.1;
/// Who drives a rate that leads nowhere yet is looked up this far back, seconds.
const RECENT: f64 = 30.0;

/// When the limit is met. CLOCK_BOOTTIME nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Expected.
    pub at: u64,
    /// Hardly earlier.
    pub low: u64,
    /// Hardly later; absent where it may never come.
    pub high: Option<u64>,
}

/// How a pod looks at a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When.
    pub t: u64,
    /// The figures.
    pub basis: Basis,
    /// Overhead surely grows.
    pub growing: bool,
    /// What is forecast, where anything is.
    pub kill: Option<Kill>,
    /// Who drives it.
    pub driver: Option<Driver>,
}

/// One pod.
#[derive(Debug, Default)]
pub(super) struct PodForecast {
    memcg: u64,
    guest_ram: u64,
    pub(super) drivers: Drivers,
    history: History,
    /// Guest RAM resident at the first sample, and charged by then as the probes saw it.
    guest_at_start: Option<(f64, f64)>,
    start_t: u64,
    missing: u32,
    pub(super) view: Option<View>,
    said: Option<(u64, Forecast)>,
}

impl PodForecast {
    pub(super) fn describe(&mut self, pod: &Pod) {
        if self.memcg != 0 && self.memcg != pod.memcg {
            // Another memcg limits now.
            self.start_over();
        }
        self.memcg = pod.memcg;
        self.guest_ram = pod.guest_ram;
    }

    /// Forgets what led here: after a kill nothing goes on as before.
    pub(super) fn start_over(&mut self) {
        *self = Self {
            memcg: self.memcg,
            guest_ram: self.guest_ram,
            ..Self::default()
        };
    }

    /// Takes a sample; gives what is to be said, if that is new.
    pub(super) fn sample(
        &mut self,
        t: u64,
        sample: &Sample,
        tolerance: u64,
        entity: impl Fn(ThreadKey) -> Entity,
        ended: impl Fn(ThreadKey) -> bool,
    ) -> Option<Forecast> {
        if sample.memcg != self.memcg {
            return None;
        }
        let Some(limit) = sample.limit else {
            self.view = None;
            self.history.clear();
            return None;
        };
        if self.history.last().is_none() {
            self.start_t = t;
        }
        let seconds = seconds_between(self.start_t, t);
        if self.history.last().is_some_and(|last| last.t >= seconds) {
            return None;
        }
        let moment = self.moment(seconds, sample, entity, ended);
        let used = moment.overhead + moment.guest;
        let room = Room {
            available: whole(limit) - used,
            guest_left: (whole(self.guest_ram) * (1.0 + PAGE_TABLES) - moment.guest).max(0.0),
            noise: NOISE * whole(tolerance),
            standing: self.view.as_ref().is_some_and(|view| view.kill.is_some()),
        };
        self.history.push(moment);
        let outlook = look(&self.history, &room, quantile);
        self.view = Some(self.view(t, &room, &outlook));
        self.news(t, sample.pod)
    }

    /// Splits usage into guest RAM and the overhead that stays.
    fn moment(
        &mut self,
        t: f64,
        sample: &Sample,
        entity: impl Fn(ThreadKey) -> Entity,
        ended: impl Fn(ThreadKey) -> bool,
    ) -> Moment {
        let kept = whole(sample.usage.saturating_sub(sample.reclaimable_file));
        let charged = float(self.drivers.guest()).max(0.0);
        let resident = sample.guest_resident.map_or(charged, whole).min(whole(self.guest_ram));
        let (resident_at_start, charged_at_start) = *self.guest_at_start.get_or_insert((resident, charged));
        let hidden = (resident - resident_at_start) - (charged - charged_at_start);
        let guest = (resident * (1.0 + PAGE_TABLES)).min(kept);
        let overhead = kept - guest;
        Moment {
            t,
            overhead,
            peak: overhead,
            guest,
            drivers: self.drivers.growth(hidden.max(0.0), entity, ended),
        }
    }

    fn view(&mut self, t: u64, room: &Room, outlook: &Outlook) -> View {
        let kill = outlook.arrival.map(|arrival| Kill {
            at: after(t, arrival.expected),
            low: after(t, arrival.low),
            high: arrival.high.map(|high| after(t, high)),
        });
        self.missing = if kill.is_some() {
            0
        } else {
            self.missing.saturating_add(1)
        };
        let before = self.view.as_ref();
        // Once said, a forecast stands until its ground is gone for some time.
        let kept = before
            .and_then(|view| view.kill)
            .filter(|kill| self.missing < PATIENCE && kill.at > t);
        let driver = self
            .driver(outlook)
            .or_else(|| before.filter(|_| kept.is_some()).and_then(|view| view.driver.clone()));
        View {
            t,
            basis: Basis {
                available: bytes(room.available),
                overhead_rate: bytes(outlook.overhead.rate),
                guest_rate: bytes(outlook.guest.rate),
                guest_left: u64::try_from(bytes(room.guest_left)).unwrap_or(0),
                seen_ns: after(
                    0,
                    if outlook.by_guest {
                        outlook.guest.span
                    } else {
                        outlook.overhead.span
                    },
                ),
            },
            growing: outlook.growing,
            kill: kill.or(kept),
            driver,
        }
    }

    /// Whose overhead grew most while the growth at hand was seen; where the guest's own RAM is what meets the limit,
    /// who took the overhead that leaves no room for it.
    fn driver(&self, outlook: &Outlook) -> Option<Driver> {
        let now = self.history.last()?;
        let since = match (outlook.growing, outlook.by_guest) {
            (true, _) => now.t - outlook.overhead.span,
            (false, true) => f64::NEG_INFINITY,
            (false, false) => now.t - RECENT,
        };
        let then = self.history.iter().find(|moment| moment.t >= since)?;
        let grown = |column: usize| {
            let before = then.drivers.get(column).copied().unwrap_or(0.0);
            now.drivers.get(column).copied().unwrap_or(0.0) - before
        };
        let (column, most) = (0..now.drivers.len())
            .map(|column| (column, grown(column)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        let enough = (PARTICULAR * (now.overhead - then.overhead)).max(1.0);
        let entity = self.drivers.entity(column).filter(|_| most >= enough)?;
        Some(Driver {
            role: entity.role.clone(),
            process: entity.process.clone(),
        })
    }

    /// What is to be said now, if it differs from what was said.
    fn news(&mut self, t: u64, pod: u32) -> Option<Forecast> {
        let view = self.view.as_ref()?;
        let said = self.said.as_ref();
        let standing = said.and_then(|(_, forecast)| Some((forecast, forecast.kill_at?)));
        let new = match (standing, view.kill) {
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
            (Some((forecast, kill_at)), Some(kill)) => {
                let left = seconds_between(t, kill.at).max(1.0);
                let moved = |from: u64, to: u64| seconds_between(from.min(to), from.max(to)) / left;
                let bound = match (forecast.high, kill.high) {
                    (Some(from), Some(to)) => moved(from, to),
                    (None, None) => 0.0,
                    _ => f64::INFINITY,
                };
                moved(kill_at, kill.at) > MATERIAL
                    || bound > MATERIAL_BOUND
                    || moved(forecast.low.unwrap_or(kill_at), kill.low) > MATERIAL_BOUND
                    || forecast.driver != view.driver
            }
        };
        if !new || said.is_some_and(|(at, _)| t.saturating_sub(*at) < CADENCE_NS) {
            return None;
        }
        let forecast = Forecast {
            pod,
            kill_at: view.kill.map(|kill| kill.at),
            low: view.kill.map(|kill| kill.low),
            high: view.kill.and_then(|kill| kill.high),
            driver: view.driver.clone().filter(|_| view.kill.is_some()),
            basis: view.basis,
        };
        self.said = Some((t, forecast.clone()));
        Some(forecast)
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes to fifteen digits")]
fn whole(bytes: u64) -> f64 {
    bytes as f64
}

/// Seconds from one time to a later one.
fn seconds_between(from: u64, to: u64) -> f64 {
    whole(to.saturating_sub(from)) / 1e9
}

/// So many seconds after `t`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a week at most; casts from float saturate"
)]
fn after(t: u64, seconds: f64) -> u64 {
    t.saturating_add((seconds * 1e9) as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "casts from float saturate")]
fn bytes(value: f64) -> i64 {
    value as i64
}
