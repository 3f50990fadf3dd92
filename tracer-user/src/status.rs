//! One line a second for whoever watches a recording being made.

use std::collections::BTreeMap;
use std::io::Write;

use crate::escape::terminal;
use crate::recording::event::{Body, Event};
use crate::units::Bytes;

/// A line on a terminal that is written over; silent where there is no terminal.
#[derive(Debug)]
pub struct StatusLine {
    terminal: bool,
    charges: u64,
    labels: BTreeMap<u32, (u64, String)>,
    shown: bool,
}

impl StatusLine {
    /// A status line, if there is a terminal to show it on.
    #[must_use]
    pub const fn new(terminal: bool) -> Self {
        Self {
            terminal,
            charges: 0,
            labels: BTreeMap::new(),
            shown: false,
        }
    }

    /// Takes an event; shows a line at each pod's sample.
    pub fn event(&mut self, event: &Event) {
        match &event.body {
            Body::Pod(pod) => {
                let label = if pod.namespace.is_empty() {
                    pod.vm.clone()
                } else {
                    format!("{}/{}", pod.namespace, pod.vm)
                };
                self.labels.insert(pod.pod, (pod.memcg, label));
            }
            Body::Charge(_) => self.charges += 1,
            Body::Sample(sample) => {
                if let Some((memcg, label)) = self.labels.get(&sample.pod)
                    && *memcg == sample.memcg
                {
                    let limit = sample.limit.map_or_else(
                        || "no limit".to_owned(),
                        |limit| {
                            let headroom = Bytes(limit.saturating_sub(sample.usage));
                            format!("limit {}, headroom {headroom}", Bytes(limit))
                        },
                    );
                    let guest = sample
                        .guest_resident
                        .map_or_else(String::new, |guest| format!(", guest RAM {}", Bytes(guest)));
                    let line = format!(
                        "{}: usage {}, {limit}{guest}; {} charges",
                        terminal(label),
                        Bytes(sample.usage),
                        self.charges
                    );
                    self.show(&line);
                }
            }
            _ => {}
        }
    }

    fn show(&mut self, line: &str) {
        if self.terminal {
            let mut stderr = std::io::stderr().lock();
            // A terminal that went away is no reason to stop recording.
            let _ = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
            self.shown = true;
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
            self.shown = false;
        }
    }
}
