//! One line a second for whoever watches a recording being made.

use std::collections::BTreeMap;
use std::io::Write;

use crate::cli::say::Stderr;
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
                self.labels.insert(pod.pod, (pod.memcg, pod.label()));
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
            // A terminal that was stopped or went away is no reason to wait or stop.
            let _ = Stderr.write_all(format!("\r\x1b[2K{line}").as_bytes());
            self.shown = true;
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown {
            let _ = Stderr.write_all(b"\r\x1b[2K");
            self.shown = false;
        }
    }
}
