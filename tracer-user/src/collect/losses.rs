//! What could not be done as meant: counted by the kernel side, and told when there is more of it.

use tracer_common::LossCounter;

use crate::probe::{ProbeError, Tracer};
use crate::recording::event::Loss;

/// Runs of programs that the kernel left out, and that no second program made up for: counts since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Runs {
    /// Times that the first program of a pair, or the only one, was left out.
    missed: u64,
    /// Times that a second program did what a first was kept from.
    made_up: u64,
}

impl Runs {
    /// Runs whose bytes are in no account, of those since `before`. What comes before counts for nothing: while programs
    /// are attached one after the other, a second one runs where there is no first yet, and makes up for nothing.
    #[must_use]
    const fn lost_since(self, before: Self) -> u64 {
        let missed = self.missed.saturating_sub(before.missed);
        missed.saturating_sub(self.made_up.saturating_sub(before.made_up))
    }
}

/// The losses of a recording.
#[derive(Debug, Default)]
pub(super) struct Losses {
    told: Loss,
    /// As last looked at: it takes a file per program to know.
    missed_runs: u64,
    /// Runs that were missed before anything was watched.
    runs_before: Runs,
    /// Records were dropped, and some may have said that a thread exits.
    exits_dropped: bool,
}

impl Losses {
    /// Those from now on, when the programs are attached and watch nothing yet.
    pub(super) fn attached(tracer: &Tracer) -> Result<Self, ProbeError> {
        let missed_runs = tracer.missed_runs();
        Ok(Self {
            missed_runs,
            runs_before: Runs {
                missed: missed_runs,
                made_up: tracer.losses()?[LossCounter::RunsMadeUp as usize],
            },
            ..Self::default()
        })
    }

    /// As last told.
    pub(super) const fn told(&self) -> Loss {
        self.told
    }

    /// Looks at how often programs were left out.
    pub(super) fn look_at_programs(&mut self, tracer: &Tracer) {
        self.missed_runs = tracer.missed_runs();
    }

    /// Whether threads may have ended unheard since this was last asked.
    pub(super) const fn take_exits_dropped(&mut self) -> bool {
        std::mem::replace(&mut self.exits_dropped, false)
    }

    /// The losses, where there are more than were told before. `stacks_unknown` of them are user space's own; what did not
    /// fit into the ring is late by at most `late_ns`.
    pub(super) fn news(
        &mut self,
        tracer: &Tracer,
        stacks_unknown: u64,
        late_ns: u64,
    ) -> Result<Option<Loss>, ProbeError> {
        let counters = tracer.losses()?;
        let count = |counter: LossCounter| counters[counter as usize];
        let runs = Runs {
            missed: self.missed_runs,
            made_up: count(LossCounter::RunsMadeUp),
        };
        let mut loss = Loss {
            ring_full: count(LossCounter::RingFull),
            accounts_full: count(LossCounter::AccountsFull),
            lost_bytes: count(LossCounter::LostBytes),
            events_dropped: count(LossCounter::EventsDropped) + tracer.malformed(),
            files_full: count(LossCounter::FilesFull),
            missed_runs: runs.lost_since(self.runs_before) + count(LossCounter::ReturnsMissed),
            stacks_dropped: count(LossCounter::StacksDropped),
            stacks_unknown,
            not_followed: count(LossCounter::LiveFull),
            max_delay_ns: self.told.max_delay_ns,
        };
        if loss.ring_full > self.told.ring_full {
            loss.max_delay_ns = loss.max_delay_ns.max(late_ns);
        }
        if loss == self.told {
            return Ok(None);
        }
        self.exits_dropped |= loss.events_dropped > self.told.events_dropped;
        self.told = loss;
        Ok(Some(loss))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_while_attaching_makes_up_for_nothing_later() {
        let attached = Runs { missed: 1, made_up: 40 };
        let later = |missed, made_up| Runs { missed, made_up }.lost_since(attached);
        assert_eq!(later(1, 40), 0);
        assert_eq!(later(11, 50), 0, "all made up for");
        assert_eq!(later(11, 48), 2);
        assert_eq!(later(3, 60), 0);
    }
}
