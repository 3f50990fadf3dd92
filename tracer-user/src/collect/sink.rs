//! Where events go: one sink, or a chain of them.

use crate::recording::event::Event;

/// Takes events: a recording, the flight recorder, forecasts, metrics, a status line.
pub trait EventSink {
    /// Takes an event.
    ///
    /// # Errors
    /// When it cannot be kept; the collector stops.
    fn event(&mut self, event: &Event) -> anyhow::Result<()>;

    /// Called some 40 times a second, with the time of CLOCK_BOOTTIME, whether or not there were events.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    fn tick(&mut self, _now_ns: u64) -> anyhow::Result<()> {
        Ok(())
    }

    /// Takes away the events that this sink made of those it was given (forecasts, alerts). A [`Chain`] asks after
    /// every event and tick, and hands them to all of its sinks, this one included.
    fn made(&mut self) -> Vec<Event> {
        Vec::new()
    }

    /// No more events come.
    ///
    /// # Errors
    /// When what was taken could not be kept.
    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Sinks that all get every event, in order, and the events that they make.
#[derive(Default)]
pub struct Chain {
    sinks: Vec<Box<dyn EventSink>>,
    /// Made here and not yet taken by an outer chain.
    made: Vec<Event>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain")
            .field("sinks", &self.sinks.len())
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Adds a sink at the end.
    pub fn push(&mut self, sink: impl EventSink + 'static) {
        self.sinks.push(Box::new(sink));
    }

    /// Hands on what the sinks made. What they make of that waits for the next event or tick, so that two sinks that
    /// answer each other do not hold up the collector.
    fn hand_on(&mut self) -> anyhow::Result<()> {
        let made: Vec<Event> = self.sinks.iter_mut().flat_map(|sink| sink.made()).collect();
        for event in made {
            self.sinks.iter_mut().try_for_each(|sink| sink.event(&event))?;
            self.made.push(event);
        }
        Ok(())
    }
}

impl EventSink for Chain {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.made.clear();
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))?;
        self.hand_on()
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<()> {
        self.made.clear();
        self.sinks.iter_mut().try_for_each(|sink| sink.tick(now_ns))?;
        self.hand_on()
    }

    fn made(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.made)
    }

    /// Every sink is finished, also when an earlier one fails.
    fn finish(&mut self) -> anyhow::Result<()> {
        let results: Vec<anyhow::Result<()>> = self.sinks.iter_mut().map(|sink| sink.finish()).collect();
        results.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::recording::event::{Body, Loss};

    fn event(t: u64) -> Event {
        Event {
            t,
            body: Body::Loss(Loss::default()),
        }
    }

    /// Keeps what it gets.
    #[derive(Clone, Default)]
    struct Kept(Rc<RefCell<Vec<u64>>>);

    impl EventSink for Kept {
        fn event(&mut self, event: &Event) -> anyhow::Result<()> {
            self.0.borrow_mut().push(event.t);
            Ok(())
        }
    }

    /// Makes an event a thousand later of each that it gets, its own included.
    #[derive(Default)]
    struct Echo(Vec<Event>);

    impl EventSink for Echo {
        fn event(&mut self, original: &Event) -> anyhow::Result<()> {
            self.0.push(event(original.t + 1000));
            Ok(())
        }

        fn made(&mut self) -> Vec<Event> {
            std::mem::take(&mut self.0)
        }
    }

    struct Broken;

    impl EventSink for Broken {
        fn event(&mut self, _: &Event) -> anyhow::Result<()> {
            Ok(())
        }

        fn finish(&mut self) -> anyhow::Result<()> {
            anyhow::bail!("full")
        }
    }

    #[test]
    fn what_one_sink_makes_reaches_all_of_them_and_the_outer_chain() {
        let (before, after) = (Kept::default(), Kept::default());
        let mut chain = Chain::default();
        chain.push(before.clone());
        chain.push(Echo::default());
        chain.push(after.clone());
        chain.event(&event(1)).unwrap();
        assert_eq!(*before.0.borrow(), [1, 1001]);
        assert_eq!(*after.0.borrow(), [1, 1001]);
        assert_eq!(chain.made(), [event(1001)]);
        assert!(chain.made().is_empty());
        chain.tick(5).unwrap();
        assert_eq!(
            *after.0.borrow(),
            [1, 1001, 2001],
            "an answer to itself comes a tick later"
        );
    }

    #[test]
    fn a_sink_that_fails_does_not_keep_the_others_from_their_end() {
        struct Told(Rc<RefCell<bool>>);
        impl EventSink for Told {
            fn event(&mut self, _: &Event) -> anyhow::Result<()> {
                Ok(())
            }

            fn finish(&mut self) -> anyhow::Result<()> {
                *self.0.borrow_mut() = true;
                Ok(())
            }
        }
        let told = Rc::new(RefCell::new(false));
        let mut chain = Chain::default();
        chain.push(Broken);
        chain.push(Told(Rc::clone(&told)));
        assert_eq!(chain.finish().unwrap_err().to_string(), "full");
        assert!(*told.borrow());
    }
}
