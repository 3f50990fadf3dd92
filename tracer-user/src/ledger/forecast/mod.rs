//! When a pod will meet its limit, and who drives it: computed at every sample, from the same events live and in replay.
//!
//! Usage is split into what behaves differently: guest RAM grows up to its size and no further, page cache is given back
//! by reclaim and so counts as free, and the rest is overhead, whose trend is measured. `docs/forecast.md` has the method
//! and how well it does.

mod drivers;
mod history;
mod outlook;
mod pod;
mod project;
mod trend;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::account::ThreadKey;
use super::culprit::Entity;
use crate::recording::event::{Body, Event, Forecast, Header, Process, Thread};

pub use pod::{Kill, View};

use pod::PodForecast;

/// Threads whose names are kept; beyond that the names of those that ended are forgotten.
const MAX_THREADS: usize = 16 << 10;
/// Bounds are those that a real time lies below and above in one case of twenty each, were the model true.
const ONE_SIDED: f64 = 0.95;

/// Student's t distribution at [`ONE_SIDED`], by degrees of freedom.
static QUANTILES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    (1..=16_u8)
        .filter_map(|freedom| StudentsT::new(0.0, 1.0, f64::from(freedom)).ok())
        .map(|distribution| distribution.inverse_cdf(ONE_SIDED))
        .collect()
});

/// How many standard deviations the bounds are away, for so many degrees of freedom.
fn quantile(freedom: usize) -> f64 {
    let last = QUANTILES.len().saturating_sub(1);
    QUANTILES
        .get(freedom.saturating_sub(1).min(last))
        .copied()
        .unwrap_or(2.0)
}

/// Watches events and says when forecasts change.
#[derive(Debug, Default)]
pub struct Forecaster {
    header: Header,
    pods: BTreeMap<u32, PodForecast>,
    memcgs: HashMap<u64, u32>,
    names: Names,
}

/// What is known of threads and processes.
#[derive(Debug, Default)]
struct Names {
    threads: HashMap<ThreadKey, Thread>,
    processes: HashMap<u32, Process>,
}

impl Names {
    fn entity(&self, key: ThreadKey) -> Entity {
        super::entity_by_key(key, self.threads.get(&key), &self.processes)
    }

    fn trim(&mut self) {
        if self.threads.len() > MAX_THREADS {
            self.threads.retain(|_, thread| !thread.exited);
            self.processes.retain(|_, process| !process.exited);
        }
    }
}

impl Forecaster {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event. At a pod's sample, gives what is to be said, if that is something new.
    pub fn observe(&mut self, event: &Event) -> Option<Forecast> {
        match &event.body {
            Body::Header(header) => self.header = header.clone(),
            Body::Pod(pod) => {
                for memcg in pod.memcgs.iter().filter(|memcg| memcg.counted) {
                    self.memcgs.insert(memcg.id, pod.pod);
                }
                self.memcgs.insert(pod.memcg, pod.pod);
                if pod.gone {
                    self.pods.remove(&pod.pod);
                    self.memcgs.retain(|_, of| *of != pod.pod);
                } else {
                    self.pods.entry(pod.pod).or_default().describe(pod);
                }
            }
            Body::Process(process) => {
                self.names.processes.insert(process.pid, process.clone());
            }
            Body::Thread(thread) => {
                let key = ThreadKey {
                    tid: thread.tid,
                    start_ns: thread.start_ns,
                };
                self.names.threads.insert(key, thread.clone());
            }
            Body::Charge(charge) => {
                if let Some(pod) = self.memcgs.get(&charge.memcg)
                    && let Some(pod) = self.pods.get_mut(pod)
                {
                    pod.drivers.charge(charge);
                }
            }
            Body::Sample(sample) => {
                self.names.trim();
                let noise = super::tolerance(&self.header);
                let names = &self.names;
                let pod = self.pods.get_mut(&sample.pod)?;
                let ended = |key| names.threads.get(&key).is_some_and(|thread| thread.exited);
                return pod.sample(event.t, sample, noise, |key| names.entity(key), ended);
            }
            Body::Oom(oom) => {
                let pod = oom.pod.or_else(|| self.memcgs.get(&oom.oom_memcg).copied());
                if let Some(pod) = pod.and_then(|pod| self.pods.get_mut(&pod)) {
                    pod.start_over();
                }
            }
            _ => {}
        }
        None
    }

    /// How a pod looked at its last sample; `None` before there was one, and without a limit.
    #[must_use]
    pub fn view(&self, pod: u32) -> Option<&View> {
        self.pods.get(&pod)?.view.as_ref()
    }
}

#[cfg(test)]
mod simulated_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
