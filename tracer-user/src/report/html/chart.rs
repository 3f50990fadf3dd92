//! The timeline as the page's script reads it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cell::{name, unix_ms};
use crate::report::{AlertReport, Forecast, Growth, MarkReport, PodReport, Timeline, TimelinePoint};

/// Roles and processes with a colour of their own; the rest is added up.
const COLOURED: usize = 8;

/// Points in a page, all pods together, so that a page about a whole node stays one that can be mailed.
const POINTS: usize = 16 << 10;

/// Forecasts and alerts drawn; of more, every so many-th is, the first and the last among them.
const FORECASTS: usize = 32;

#[derive(Serialize)]
struct Chart {
    /// Milliseconds since the Unix epoch.
    t: Vec<u64>,
    usage: Vec<u64>,
    limit: Vec<Option<u64>>,
    guest: Vec<Option<u64>>,
    reclaimable: Vec<u64>,
    /// Overhead that was there at the window's start.
    start: i64,
    budget: Option<i64>,
    roles: Vec<Layer>,
    kinds: Vec<Layer>,
    kills: Vec<Mark>,
    forecasts: Vec<ForecastMark>,
    alerts: Vec<Mark>,
    /// What somebody said that happens.
    marks: Vec<Mark>,
    /// The role that is to blame, as it is called in `roles`.
    blamed: Option<String>,
}

/// What one role or kind grew by, at every point.
#[derive(Serialize)]
struct Layer {
    name: String,
    bytes: Vec<i64>,
}

#[derive(Serialize)]
struct Mark {
    t: i64,
    label: String,
}

#[derive(Serialize)]
struct ForecastMark {
    at: i64,
    kill: i64,
    low: i64,
    high: i64,
    driver: String,
}

/// The chart of one of `pods` pods as JSON that is safe within a script element; nothing without two points.
pub(super) fn json(pod: &PodReport, pods: usize) -> Option<String> {
    let timeline = &pod.timeline;
    if timeline.points.len() < 2 {
        return None;
    }
    let kept = kept(timeline.points.len(), pods);
    let points: Vec<&TimelinePoint> = kept.iter().filter_map(|index| timeline.points.get(*index)).collect();
    let chart = Chart {
        t: points.iter().map(|point| point.unix_ms).collect(),
        usage: points.iter().map(|point| point.usage).collect(),
        limit: points.iter().map(|point| point.limit).collect(),
        guest: points.iter().map(|point| point.guest_resident).collect(),
        reclaimable: points.iter().map(|point| point.reclaimable_file).collect(),
        start: pod.overhead.start,
        budget: pod.budget,
        roles: layers(timeline, &kept, who),
        kinds: layers(timeline, &kept, |growth| growth.kind.as_str().to_owned()),
        kills: kills(pod),
        forecasts: forecasts(&pod.forecasts),
        alerts: alerts(&pod.alerts),
        marks: marks(&pod.marks),
        blamed: pod
            .culprit
            .as_ref()
            .map(|culprit| label(&culprit.role.to_string(), &culprit.process)),
    };
    serde_json::to_string(&chart).ok().map(|json| for_script(&json))
}

/// Indices of the points that are drawn, the first and the last among them.
fn kept(points: usize, pods: usize) -> Vec<usize> {
    let stride = (points * pods.max(1)).div_ceil(POINTS).max(1);
    let mut kept: Vec<usize> = (0..points).step_by(stride).collect();
    if kept.last() != Some(&(points - 1)) {
        kept.push(points - 1);
    }
    kept
}

/// Helpers are called by their role; what has no telling one by its process as well.
fn label(role: &str, process: &str) -> String {
    let of_qemu = process == "qemu" || role.ends_with(process);
    name(if of_qemu {
        role.to_owned()
    } else {
        format!("{role} ({process})")
    })
}

fn who(growth: &Growth) -> String {
    label(&growth.role.to_string(), &growth.process)
}

/// Growth added up by `by`, the largest first, what is too small for a colour as `others`.
fn layers(timeline: &Timeline, kept: &[usize], by: impl Fn(&Growth) -> String) -> Vec<Layer> {
    let mut sums: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for growth in &timeline.growth {
        let sum = sums.entry(by(growth)).or_insert_with(|| vec![0; kept.len()]);
        add(
            sum,
            kept.iter().map(|index| growth.bytes.get(*index).copied().unwrap_or(0)),
        );
    }
    let mut layers: Vec<Layer> = sums.into_iter().map(|(name, bytes)| Layer { name, bytes }).collect();
    let size = |layer: &Layer| layer.bytes.iter().map(|bytes| bytes.unsigned_abs()).max();
    layers.sort_by_key(|layer| std::cmp::Reverse(size(layer)));
    if layers.len() > COLOURED + 1 {
        let rest = layers.split_off(COLOURED);
        let mut others = vec![0; kept.len()];
        for layer in &rest {
            add(&mut others, layer.bytes.iter().copied());
        }
        layers.push(Layer {
            name: format!("{} others", rest.len()),
            bytes: others,
        });
    }
    layers
}

fn add(sum: &mut [i64], bytes: impl Iterator<Item = i64>) {
    for (sum, bytes) in sum.iter_mut().zip(bytes) {
        *sum = sum.saturating_add(bytes);
    }
}

fn kills(pod: &PodReport) -> Vec<Mark> {
    let mark = |oom: &crate::report::OomReport| {
        Some(Mark {
            t: unix_ms(&oom.at)?,
            label: format!("{} killed", name(&oom.victim.comm)),
        })
    };
    pod.oom.iter().filter_map(mark).collect()
}

/// Where alerts were raised. Their end is in the table.
fn alerts(all: &[AlertReport]) -> Vec<Mark> {
    let raised: Vec<&AlertReport> = all.iter().filter(|alert| alert.raised).collect();
    let stride = raised.len().div_ceil(FORECASTS).max(1);
    let mark = |alert: &&AlertReport| {
        Some(Mark {
            t: unix_ms(&alert.at)?,
            label: format!("alert: {}", alert.alert),
        })
    };
    raised.iter().step_by(stride).filter_map(mark).collect()
}

/// Marks that somebody set.
fn marks(all: &[MarkReport]) -> Vec<Mark> {
    let stride = all.len().div_ceil(FORECASTS).max(1);
    let mark = |mark: &MarkReport| {
        Some(Mark {
            t: unix_ms(&mark.at)?,
            label: name(&mark.text),
        })
    };
    all.iter().step_by(stride).filter_map(mark).collect()
}

fn forecasts(all: &[Forecast]) -> Vec<ForecastMark> {
    let stride = all.len().div_ceil(FORECASTS).max(1);
    let drawn = |index: usize| index.is_multiple_of(stride) || index + 1 == all.len();
    let mark = |(index, forecast): (usize, &Forecast)| {
        Some(ForecastMark {
            at: unix_ms(&forecast.at).filter(|_| drawn(index))?,
            kill: unix_ms(&forecast.kill_at)?,
            low: unix_ms(&forecast.low)?,
            high: unix_ms(forecast.high.as_ref().unwrap_or(&forecast.kill_at))?,
            driver: name(&forecast.driver),
        })
    };
    all.iter().enumerate().filter_map(mark).collect()
}

/// JSON in which no `<` can end the script element, and which no character reads as something else.
///
/// All of these stand in strings only, where `\u003c` means the same.
fn for_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\'' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_script_ends_it() {
        let text = "</script><!--<script>&'\u{2028}";
        let json = for_script(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\'', '\u{2028}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_thinned_timeline_keeps_both_ends() {
        assert_eq!(kept(5, 1), [0, 1, 2, 3, 4]);
        let many = kept(1000, 100);
        assert!(many.len() * 100 <= POINTS + 100, "{}", many.len());
        assert_eq!((many.first(), many.last()), (Some(&0), Some(&999)));
    }

    #[test]
    fn small_layers_are_added_up() {
        let growth = |number: i64| Growth {
            role: crate::role::Role::Other(format!("r{number}")),
            process: format!("r{number}"),
            kind: tracer_common::Kind::Anon,
            bytes: vec![0, number],
        };
        let timeline = Timeline {
            points: Vec::new(),
            growth: (1..=20).map(growth).collect(),
        };
        let layers = layers(&timeline, &[0, 1], who);
        assert_eq!(layers.len(), COLOURED + 1);
        assert_eq!((layers[0].name.as_str(), &layers[0].bytes), ("other r20", &vec![0, 20]));
        let last = layers.last().unwrap();
        assert_eq!((last.name.as_str(), &last.bytes), ("12 others", &vec![0, 78]));
    }
}
