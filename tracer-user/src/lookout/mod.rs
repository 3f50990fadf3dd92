//! Looks ahead while a tracer runs: forecasts and alerts for all sinks, told on standard error, and a command run at each
//! alert.

mod program;
mod runner;
mod variables;

use std::collections::BTreeMap;

pub use program::{Program, ProgramError};
pub use runner::Runner;

use crate::cli::say::say;
use crate::collect::EventSink;
use crate::ledger::Foresight;
use crate::ledger::alert::Thresholds;
use crate::recording::event::{Alert, Body, Event, Pod};
use crate::report::announcement;

/// The stage that looks ahead. It belongs behind the sinks that keep or show events: it tells of an alert when the alert
/// comes round to it, after they have had it.
#[derive(Debug)]
pub struct Lookout {
    foresight: Foresight,
    boot_unix_ns: u64,
    pods: BTreeMap<u32, Pod>,
    made: Vec<Event>,
    runner: Option<Runner>,
}

impl Lookout {
    /// With these thresholds, and what runs the command at each alert.
    #[must_use]
    pub fn new(thresholds: Thresholds, runner: Option<Runner>) -> Self {
        Self {
            foresight: Foresight::new(thresholds),
            boot_unix_ns: 0,
            pods: BTreeMap::new(),
            made: Vec::new(),
            runner,
        }
    }

    fn alert(&self, t: u64, alert: &Alert) {
        let unknown = Pod::default();
        let pod = self.pods.get(&alert.pod).unwrap_or(&unknown);
        let announced = announcement(&pod.label(), alert);
        say(format_args!("alert: {announced}"));
        if let (Some(runner), true) = (&self.runner, alert.raised) {
            runner.run(variables::of(pod, alert, t, self.boot_unix_ns, &announced));
        }
    }
}

impl EventSink for Lookout {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.body {
            Body::Header(header) => self.boot_unix_ns = header.boot_unix_ns,
            Body::Pod(pod) if pod.gone => {
                self.pods.remove(&pod.pod);
            }
            Body::Pod(pod) => {
                self.pods.insert(pod.pod, pod.clone());
            }
            Body::Alert(alert) => self.alert(event.t, alert),
            _ => {}
        }
        self.made.extend(self.foresight.observe(event));
        Ok(())
    }

    fn made(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.made)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(runner) = self.runner.take() {
            runner.finish();
        }
        Ok(())
    }
}
