//! What the view is made of: the ledger, and the last half minute of every pod.

use std::collections::{BTreeMap, HashMap};

use super::history::History;
use crate::collect::EventSink;
use crate::ledger::{Foresight, Ledger};
use crate::recording::event::{Body, Event, Sample};

/// Memcgs whose figures are kept; beyond that the view shows none for new ones.
const MAX_MEMCGS: usize = 16 << 10;

/// Takes events, live or read.
#[derive(Debug, Default)]
pub struct Feed {
    ledger: Ledger,
    /// Looks ahead, unless the recording holds what was foreseen.
    foresight: Option<Foresight>,
    replay: bool,
    histories: BTreeMap<u32, (u64, History)>,
    /// Last figures of every memcg, the pods' limiting ones included, which the ledger follows only to a kill.
    samples: HashMap<u64, Sample>,
    events: u64,
}

impl Feed {
    /// A feed for a tracer's events.
    #[must_use]
    pub fn live() -> Self {
        Self {
            foresight: Some(Foresight::default()),
            ..Self::default()
        }
    }

    /// A feed for a recording's events. Forecasts that it holds are not made again.
    #[must_use]
    pub fn replay() -> Self {
        Self {
            replay: true,
            ..Self::live()
        }
    }

    /// Takes an event.
    pub fn apply(&mut self, event: &Event) {
        self.apply_unseen(event);
        if let Body::Sample(sample) = &event.body {
            self.step(event.t, sample);
        }
    }

    /// Takes an event of a time that nobody looks at, on the way to another one: the history stays as it is.
    pub fn apply_unseen(&mut self, event: &Event) {
        self.events += 1;
        self.ledger.apply(event);
        if let Some(foresight) = &mut self.foresight {
            for foreseen in foresight.observe(event) {
                self.ledger.apply(&foreseen);
            }
        }
        match &event.body {
            Body::Sample(sample) if self.samples.len() < MAX_MEMCGS || self.samples.contains_key(&sample.memcg) => {
                self.samples.insert(sample.memcg, sample.clone());
            }
            Body::Header(header) if self.replay && header.forecasts => self.foresight = None,
            Body::Pod(pod) if pod.gone => {
                self.histories.remove(&pod.pod);
                for memcg in &pod.memcgs {
                    self.samples.remove(&memcg.id);
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, t: u64, sample: &Sample) {
        let Some(pod) = self.ledger.pods().find(|pod| pod.pod.pod == sample.pod) else {
            return;
        };
        let Some((first, _)) = pod.first.as_ref().filter(|_| pod.pod.memcg == sample.memcg) else {
            return;
        };
        let (begun, history) = self.histories.entry(sample.pod).or_default();
        if *begun != *first {
            // Another memcg limits now: the ledger began anew, and so does the history.
            (*begun, *history) = (*first, History::default());
        }
        let guest = sample.guest_resident.or(pod.guest_last).unwrap_or(0);
        history.step(t, sample.usage, guest, &self.ledger.resolve(pod));
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A pod's last half minute.
    #[must_use]
    pub fn history(&self, pod: u32) -> Option<&History> {
        self.histories.get(&pod).map(|(_, history)| history)
    }

    /// A memcg's last figures.
    #[must_use]
    pub fn sample(&self, memcg: u64) -> Option<&Sample> {
        self.samples.get(&memcg)
    }

    /// Events taken.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }
}

impl EventSink for Feed {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.apply(event);
        Ok(())
    }
}
