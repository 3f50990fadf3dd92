//! A part of a recording as if it were one of its own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracer_common::{Kind, Region};

use super::account::Flow;
use crate::recording::event::{Baseline, Body, Event, Loss, Mark, Total};

/// From when to when, CLOCK_BOOTTIME nanoseconds; open where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Nothing before this counts.
    pub from: Option<u64>,
    /// Nothing after this counts.
    pub to: Option<u64>,
}

/// A bound that a recording does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no mark '{bound}'{after}, and it is no time: {marks}")]
pub struct NoBound {
    bound: String,
    after: &'static str,
    marks: String,
}

/// Marks that an error names.
const NAMED: usize = 10;

impl Bounds {
    /// The bounds that these words stand for: the first mark of that name, or a time (RFC 3339). The end lies behind the
    /// start. `boot_unix_ns` is the recording's.
    ///
    /// # Errors
    /// When there is no such mark and it is no time.
    pub fn find(
        from: Option<&str>,
        to: Option<&str>,
        marks: &[(u64, Mark)],
        boot_unix_ns: u64,
    ) -> Result<Self, NoBound> {
        let moment = |bound: &str, least: u64, after: &'static str| {
            let mark = marks.iter().find(|(t, mark)| *t >= least && mark.text == bound);
            mark.map(|(t, _)| *t)
                .or_else(|| since_boot(bound, boot_unix_ns).filter(|t| *t >= least))
                .ok_or_else(|| NoBound {
                    bound: bound.to_owned(),
                    after,
                    marks: listed(marks),
                })
        };
        let from = from.map(|from| moment(from, 0, "")).transpose()?;
        let after = if from.is_some() { " behind the first" } else { "" };
        let least = from.map_or(0, |from| from.saturating_add(1));
        let to = to.map(|to| moment(to, least, after)).transpose()?;
        Ok(Self { from, to })
    }
}

fn since_boot(time: &str, boot_unix_ns: u64) -> Option<u64> {
    let time: Timestamp = time.parse().ok()?;
    let since = time.as_nanosecond() - i128::from(boot_unix_ns);
    // A time before boot is before everything.
    Some(u64::try_from(since.max(0)).unwrap_or(u64::MAX))
}

fn listed(marks: &[(u64, Mark)]) -> String {
    if marks.is_empty() {
        return "it has no marks".to_owned();
    }
    let mut names: Vec<String> = marks
        .iter()
        .take(NAMED)
        .map(|(_, mark)| format!("'{}'", mark.text))
        .collect();
    if marks.len() > NAMED {
        names.push("...".to_owned());
    }
    format!("it has {}", names.join(", "))
}

/// Leaves out of a recording what lies outside of the bounds, as a flight recorder does: who is who stays, and what was
/// charged before becomes a baseline.
#[derive(Debug, Default)]
pub struct Excerpt {
    bounds: Bounds,
    totals: BTreeMap<(u64, Kind, Region), Flow>,
    loss: Loss,
    begun: bool,
}

impl Excerpt {
    /// What lies within these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// Takes an event, and gives on what is left of it.
    pub fn take(&mut self, event: Event, mut give: impl FnMut(&Event)) {
        if matches!(event.body, Body::Header(_)) {
            let t = self.bounds.from.map_or(event.t, |from| from.max(event.t));
            return give(&Event { t, body: event.body });
        }
        if self.bounds.to.is_some_and(|to| event.t > to) {
            return;
        }
        let Some(from) = self.bounds.from.filter(|_| !self.begun) else {
            return give(&event);
        };
        if event.t >= from {
            self.begun = true;
            give(&self.baseline(from));
            return give(&event);
        }
        match event.body {
            Body::Charge(charge) => self.add(
                (charge.memcg, charge.kind, charge.region),
                charge.charged,
                charge.uncharged,
            ),
            Body::Baseline(baseline) => {
                self.loss = baseline.loss;
                for total in baseline.totals {
                    self.add((total.memcg, total.kind, total.region), total.charged, total.uncharged);
                }
            }
            Body::Loss(loss) => self.loss = loss,
            body @ (Body::Pod(_)
            | Body::Process(_)
            | Body::Thread(_)
            | Body::Live(_)
            | Body::Frame(_)
            | Body::Stack(_)) => {
                give(&Event { t: from, body });
            }
            _ => {}
        }
    }

    fn add(&mut self, key: (u64, Kind, Region), charged: u64, uncharged: u64) {
        self.totals.entry(key).or_default().add(charged, uncharged);
    }

    fn baseline(&mut self, from: u64) -> Event {
        let totals = std::mem::take(&mut self.totals).into_iter();
        let totals = totals.map(|((memcg, kind, region), flow)| Total {
            memcg,
            kind,
            region,
            charged: flow.charged,
            uncharged: flow.uncharged,
        });
        Event {
            t: from,
            body: Body::Baseline(Baseline {
                attached: from,
                totals: totals.collect(),
                loss: self.loss,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::recording::event::{Charge, Footer, Header, Pod, Sample};

    const MIB: u64 = 1 << 20;

    /// A pod that is charged 1 MiB before each second's sample, with a mark behind each sample.
    fn events() -> Vec<Event> {
        let at = |t: u64, body: Body| Event { t, body };
        let mut events = vec![
            at(1, Body::Header(Header::default())),
            at(
                2,
                Body::Pod(Pod {
                    memcg: 7,
                    limit: Some(100 * MIB),
                    ..Pod::default()
                }),
            ),
        ];
        for second in 1..=9_u64 {
            let t = second * 1000;
            let charge = Charge {
                memcg: 7,
                tid: 5,
                start_ns: 1,
                kind: Kind::Anon,
                region: Region::Overhead,
                charged: MIB,
                uncharged: 0,
            };
            let sample = Sample {
                memcg: 7,
                usage: second * MIB,
                limit: Some(100 * MIB),
                ..Sample::default()
            };
            events.push(at(t, Body::Charge(charge)));
            events.push(at(t + 1, Body::Sample(sample.clone())));
            let mark = Mark {
                text: format!("mark {second}"),
                pod: None,
            };
            events.push(at(t + 2, Body::Mark(mark)));
            events.push(at(t + 3, Body::Sample(sample)));
        }
        let total = Total {
            memcg: 7,
            kind: Kind::Anon,
            region: Region::Overhead,
            charged: 9 * MIB,
            uncharged: 0,
        };
        events.push(at(
            9900,
            Body::Footer(Footer {
                totals: vec![total],
                ..Footer::default()
            }),
        ));
        events
    }

    fn ledger(bounds: Bounds) -> Ledger {
        let mut ledger = Ledger::new();
        let mut excerpt = Excerpt::new(bounds);
        for event in events() {
            excerpt.take(event, |event| ledger.apply(event));
        }
        ledger
    }

    fn growth(ledger: &Ledger) -> (u64, u64, i128) {
        let pod = ledger.pods().next().unwrap();
        let (start, end) = pod.usage();
        (start / MIB, end / MIB, pod.total().total() / i128::from(MIB))
    }

    #[test]
    fn growth_between_two_marks_is_what_was_charged_between_them() {
        let all = ledger(Bounds::default());
        assert_eq!(growth(&all), (1, 9, 8));
        let part = ledger(Bounds {
            from: Some(3002),
            to: Some(7002),
        });
        assert_eq!(growth(&part), (3, 7, 4));
        assert_eq!(part.window(), (3002, 7002));
        assert!(part.footer().is_none(), "the sums at the end are none of the part's");
        let marks: Vec<&str> = part.marks().iter().map(|(_, mark)| mark.text.as_str()).collect();
        assert_eq!(marks, ["mark 3", "mark 4", "mark 5", "mark 6", "mark 7"]);
    }

    #[test]
    fn a_part_up_to_the_end_still_adds_up_to_the_footer() {
        let part = ledger(Bounds {
            from: Some(5002),
            to: None,
        });
        assert_eq!(growth(&part), (5, 9, 4));
        assert!(part.footer().is_some());
        assert_eq!(part.disagreements(), []);
    }

    #[test]
    fn bounds_are_marks_or_times() {
        let mark = |t: u64, text: &str| {
            let text = text.to_owned();
            (t, Mark { text, pod: None })
        };
        let marks = [mark(10, "begin"), mark(20, "end"), mark(30, "begin"), mark(40, "end")];
        let find = |from, to| Bounds::find(from, to, &marks, 1_000_000_000);
        let bounds = |from, to| Ok(Bounds { from, to });
        assert_eq!(find(Some("begin"), Some("end")), bounds(Some(10), Some(20)));
        assert_eq!(find(Some("end"), Some("begin")), bounds(Some(20), Some(30)));
        assert_eq!(find(Some("begin"), Some("begin")), bounds(Some(10), Some(30)));
        assert_eq!(find(None, Some("end")), bounds(None, Some(20)));
        assert_eq!(
            find(Some("1970-01-01T00:00:01.000000015Z"), None),
            bounds(Some(15), None)
        );
        let error = find(Some("end"), Some("x")).unwrap_err().to_string();
        assert!(
            error.contains("'x' behind the first") && error.contains("'begin', 'end'"),
            "{error}"
        );
    }

    #[test]
    fn a_part_without_anything_in_it_is_empty() {
        let part = ledger(Bounds {
            from: Some(1 << 40),
            to: None,
        });
        let pod = part.pods().next().unwrap();
        assert!(pod.window().is_none());
    }
}
