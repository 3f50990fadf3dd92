//! Forecasts and alerts as one stage: events in, the events that follow from them out.

use super::Ledger;
use super::alert::{Alerts, Thresholds};
use super::forecast::Forecaster;
use crate::recording::event::{Body, Event};

/// Looks ahead for every pod, and alerts.
#[derive(Debug, Default)]
pub struct Foresight {
    forecaster: Forecaster,
    alerts: Alerts,
}

impl Foresight {
    /// With these thresholds for alerts.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            forecaster: Forecaster::new(),
            alerts: Alerts::new(thresholds),
        }
    }

    /// Takes an event; gives the forecasts and alerts that follow from it, for the same time.
    pub fn observe(&mut self, event: &Event) -> Vec<Event> {
        let forecast = self.forecaster.observe(event);
        let mut bodies: Vec<Body> = forecast.map(Body::Forecast).into_iter().collect();
        match &event.body {
            Body::Sample(sample) => {
                // A sample of another memcg of the pod changes nothing.
                let view = self.forecaster.view(sample.pod).filter(|view| view.t == event.t);
                if let Some(view) = view {
                    bodies.extend(self.alerts.observe(sample.pod, view).into_iter().map(Body::Alert));
                }
            }
            Body::Pod(pod) if pod.gone => self.alerts.forget(pod.pod),
            Body::Oom(oom) => {
                if let Some(pod) = oom.pod {
                    self.alerts.forget(pod);
                }
            }
            _ => {}
        }
        bodies.into_iter().map(|body| Event { t: event.t, body }).collect()
    }

    /// The forecaster, for who shows how pods look now.
    #[must_use]
    pub const fn forecaster(&self) -> &Forecaster {
        &self.forecaster
    }
}

/// Adds a recording up. One that was made without forecasts gets them now, by the same code.
#[derive(Debug, Default)]
pub struct Replay {
    ledger: Ledger,
    foresight: Option<Foresight>,
}

impl Replay {
    /// Adds an event.
    pub fn apply(&mut self, event: &Event) {
        if let Body::Header(header) = &event.body {
            self.foresight = (!header.forecasts).then(Foresight::default);
        }
        self.ledger.apply(event);
        if let Some(foresight) = &mut self.foresight {
            foresight
                .observe(event)
                .iter()
                .for_each(|event| self.ledger.apply(event));
        }
    }

    /// What it adds up to.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
