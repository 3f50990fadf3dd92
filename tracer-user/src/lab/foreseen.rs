//! How early and how exactly a run's end was foreseen, against what the lab knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::plan::MIB;
use super::run::Played;
use crate::ledger::Foresight;
use crate::ledger::alert::Thresholds;
use crate::recording::event::{AlertKind, Body, Driver, Event, Forecast, Sample};
use crate::recording::{ReadError, Reader};
use crate::role::Role;

/// An operator's threshold, longer than any run of the lab: alerts come as early as they can.
const ETA: Duration = Duration::from_mins(5);

/// What came of looking ahead. Seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Foreseen {
    /// Alerts raised by a threshold of five minutes.
    pub alerts: usize,
    /// From the first growth to the kill: no warning can come earlier. Absent without a kill.
    pub most_lead_s: Option<f64>,
    /// From the first alert to the kill.
    pub lead_s: Option<f64>,
    /// When half of the headroom that there was at the first sample of the growth was left.
    pub half: Option<Half>,
}

/// A moment on the way to a kill. Seconds from then on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Half {
    /// To the kill.
    pub real_s: f64,
    /// To the forecast kill; absent where none was forecast.
    pub expected_s: Option<f64>,
    /// To its lower bound.
    pub low_s: Option<f64>,
    /// To its upper bound, where it has one.
    pub high_s: Option<f64>,
    /// Who was said to drive it.
    pub driver: Option<String>,
    /// That is who did, or one of several who grew alike.
    pub driver_right: bool,
}

/// Compares a recording with the truth.
///
/// # Errors
/// When it cannot be read.
pub fn foreseen(file: &Path, played: &Played) -> Result<Foreseen, ReadError> {
    let events = Reader::open(file)?.collect::<Result<Vec<Event>, _>>()?;
    Ok(compare(&events, played))
}

/// Whose overhead grew in truth.
#[derive(Debug)]
struct Growers<'a> {
    /// Overhead of each, bytes.
    bytes: BTreeMap<(&'a str, &'a Role), u64>,
    /// The most among them.
    most: u64,
    /// When the one with the most began.
    onset: u64,
}

impl Growers<'_> {
    /// Whether the driver is who grew most. Who grew by hardly less is as good an answer: by the figures of one moment
    /// they cannot be told apart.
    fn right(&self, driver: &Driver) -> bool {
        let hardly = (self.most / 50).max(MIB);
        self.bytes.iter().any(|((process, role), bytes)| {
            // Helpers are blamed as a whole.
            let same = driver.process == *process && (*process != "qemu" || driver.role == **role);
            same && bytes + hardly >= self.most
        })
    }
}

/// Who grew; `None` where nobody did.
fn growers(played: &Played) -> Option<Growers<'_>> {
    let mut sums: BTreeMap<(&str, &Role), (u64, u64)> = BTreeMap::new();
    for entry in played.allocated.iter().filter(|entry| entry.key.region == "overhead") {
        let key = (entry.key.process.as_str(), &entry.key.role);
        let (bytes, first) = sums.entry(key).or_insert((0, entry.first_t));
        *bytes += entry.bytes;
        *first = entry.first_t.min(*first);
    }
    let (most, onset) = sums.values().copied().max_by_key(|(bytes, _)| *bytes)?;
    Some(Growers {
        bytes: sums.into_iter().map(|(key, (bytes, _))| (key, bytes)).collect(),
        most,
        onset,
    })
}

fn compare(events: &[Event], played: &Played) -> Foreseen {
    let alerts = alerts(events);
    let mut foreseen = Foreseen {
        alerts: alerts.len(),
        ..Foreseen::default()
    };
    let kill = events.iter().find(|event| matches!(event.body, Body::Oom(_)));
    let (Some(kill), Some(growers)) = (kill.map(|event| event.t), growers(played)) else {
        return foreseen;
    };
    foreseen.most_lead_s = Some(seconds(growers.onset, kill));
    foreseen.lead_s = alerts.first().map(|first| seconds(*first, kill));
    foreseen.half = half(events, growers.onset, kill, |driver| growers.right(driver));
    foreseen
}

/// When alerts would have been raised.
fn alerts(events: &[Event]) -> Vec<u64> {
    let mut foresight = Foresight::new(Thresholds {
        eta: Some(ETA),
        ..Thresholds::default()
    });
    let made = events.iter().flat_map(|event| foresight.observe(event));
    made.filter_map(|event| match event.body {
        Body::Alert(alert) if alert.raised && alert.alert == AlertKind::Eta => Some(event.t),
        _ => None,
    })
    .collect()
}

fn half(events: &[Event], onset: u64, kill: u64, right: impl Fn(&Driver) -> bool) -> Option<Half> {
    let memcg = events.iter().find_map(|event| match &event.body {
        Body::Pod(pod) => Some(pod.memcg),
        _ => None,
    })?;
    let samples: Vec<(u64, i128)> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Sample(sample) if sample.memcg == memcg => Some((event.t, available(sample)?)),
            _ => None,
        })
        .collect();
    // Not the sample before the first growth: a guest that fills its RAM has come far since then.
    let mut grown = samples.iter().filter(|(t, _)| (onset..kill).contains(t));
    let (_, at_onset) = grown.next()?;
    let (t, _) = grown.find(|(_, left)| left * 2 <= *at_onset)?;
    // What was said by then and not taken back.
    let said = events.iter().rev().find_map(|event| match &event.body {
        Body::Forecast(forecast) if event.t <= *t => Some(forecast),
        _ => None,
    });
    let said = said.filter(|forecast| forecast.kill_at.is_some());
    let to = |of: fn(&Forecast) -> Option<u64>| said.and_then(of).map(|at| seconds(*t, at));
    let driver = said.and_then(|forecast| forecast.driver.as_ref());
    Some(Half {
        real_s: seconds(*t, kill),
        expected_s: to(|forecast| forecast.kill_at),
        low_s: to(|forecast| forecast.low),
        high_s: to(|forecast| forecast.high),
        driver: driver.map(|driver| format!("{}, {}", driver.process, driver.role)),
        driver_right: driver.is_some_and(right),
    })
}

fn available(sample: &Sample) -> Option<i128> {
    let kept = i128::from(sample.usage) - i128::from(sample.reclaimable_file);
    Some(i128::from(sample.limit?) - kept)
}

#[expect(clippy::cast_precision_loss, reason = "seconds to a microsecond")]
fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::truth::{Entry, Key};
    use crate::recording::event::{Oom, Pod};

    const SECOND: u64 = 1_000_000_000;

    fn played(iothread: u64) -> Played {
        let entry = |process: &str, role: Role, bytes, first_t| Entry {
            key: Key {
                process: process.to_owned(),
                role,
                kind: "anon".to_owned(),
                region: "overhead".to_owned(),
            },
            bytes,
            exact: true,
            first_t,
            last_t: 9 * SECOND,
        };
        Played {
            limit: 100,
            guest_charged: true,
            allocated: vec![
                entry("qemu", Role::BlockWorker, 80 * MIB, 2 * SECOND),
                entry("qemu", Role::IoThread("iothread1".to_owned()), iothread, 2 * SECOND),
                entry("passt", Role::Helper("passt".to_owned()), 10 * MIB, SECOND),
            ],
            ..Played::default()
        }
    }

    fn events() -> Vec<Event> {
        let at = |second: u64, body| Event {
            t: second * SECOND,
            body,
        };
        let sample = |second, usage| {
            at(
                second,
                Body::Sample(Sample {
                    memcg: 7,
                    usage,
                    limit: Some(100),
                    ..Sample::default()
                }),
            )
        };
        let forecast = |second, kill_at: Option<u64>| {
            at(
                second,
                Body::Forecast(Forecast {
                    kill_at: kill_at.map(|at| at * SECOND),
                    driver: Some(Driver {
                        role: Role::BlockWorker,
                        process: "qemu".to_owned(),
                    }),
                    ..Forecast::default()
                }),
            )
        };
        vec![
            at(
                0,
                Body::Pod(Pod {
                    memcg: 7,
                    ..Pod::default()
                }),
            ),
            sample(1, 0),
            sample(2, 10),
            sample(3, 30),
            forecast(3, Some(20)),
            sample(6, 60),
            forecast(6, Some(12)),
            sample(8, 80),
            forecast(8, Some(10)),
            at(11, Body::Oom(Oom::default())),
        ]
    }

    #[test]
    fn the_forecast_that_stands_when_half_is_left_is_compared() {
        let foreseen = compare(&events(), &played(0));
        assert_eq!(foreseen.most_lead_s, Some(9.0), "from the largest grower's first byte");
        let half = foreseen.half.expect("half was left at 6 s");
        assert_eq!((half.real_s, half.expected_s), (5.0, Some(6.0)));
        assert!(half.driver_right, "{half:?}");
    }

    #[test]
    fn of_two_that_grow_alike_either_is_right() {
        let driver = Driver {
            role: Role::IoThread("iothread1".to_owned()),
            process: "qemu".to_owned(),
        };
        for (iothread, right) in [(79, true), (85, true), (81, true), (77, false)] {
            let played = played(iothread * MIB);
            let growers = growers(&played).expect("they grew");
            assert_eq!(growers.right(&driver), right, "{iothread} MiB");
        }
    }

    #[test]
    fn a_forecast_that_was_taken_back_is_none() {
        let mut events = events();
        if let Body::Forecast(forecast) = &mut events[6].body {
            forecast.kill_at = None;
        }
        let half = compare(&events, &played(0)).half.expect("half was left");
        assert_eq!(half.expected_s, None);
        assert!(!half.driver_right);
    }

    #[test]
    fn without_a_kill_only_alerts_count() {
        let events = &events()[..9];
        assert_eq!(compare(events, &played(0)), Foreseen::default());
    }
}
