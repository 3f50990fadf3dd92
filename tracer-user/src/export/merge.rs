//! Several recordings as one stream of events.

use std::io::Read;

use super::{ExportError, Source};
use crate::ledger::Ledger;
use crate::recording::event::Event;
use crate::recording::{ReadError, Reader, Summary};

/// In which order events of several recordings come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they happened, by UTC.
    ByTime,
    /// One recording after another, in the order given.
    OneAfterAnother,
}

/// A recording and where it is read.
struct Input<R> {
    reader: Reader<R>,
    ledger: Ledger,
    /// The event to come, and when it happened: nanoseconds since the Unix epoch.
    next: Option<(u64, Event)>,
}

impl<R: Read> Input<R> {
    fn advance(&mut self) -> Result<(), ReadError> {
        let boot_unix_ns = self.reader.header().boot_unix_ns;
        self.next = match self.reader.next() {
            Some(event) => {
                let event = event?;
                Some((boot_unix_ns.saturating_add(event.t), event))
            }
            None => None,
        };
        Ok(())
    }
}

/// Recordings being read, each with the ledger that its events go to.
pub(super) struct Merge<R> {
    inputs: Vec<Input<R>>,
    order: Order,
    began: bool,
}

impl<R: Read> Merge<R> {
    pub(super) fn new(readers: Vec<Reader<R>>, order: Order, ledger: impl Fn() -> Ledger) -> Self {
        let input = |reader| Input {
            reader,
            ledger: ledger(),
            next: None,
        };
        Self {
            inputs: readers.into_iter().map(input).collect(),
            order,
            began: false,
        }
    }

    /// The next event, which its ledger has taken; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<(Source<'_>, Event)>, ExportError> {
        let failed = |recording| move |error| ExportError::Read { recording, error };
        if !self.began {
            self.began = true;
            for (number, input) in self.inputs.iter_mut().enumerate() {
                input.advance().map_err(failed(number))?;
            }
        }
        let waiting = self.inputs.iter().enumerate();
        let waiting = waiting.filter_map(|(number, input)| Some((number, input.next.as_ref()?.0)));
        let next = match self.order {
            Order::ByTime => waiting.min_by_key(|(_, unix_ns)| *unix_ns),
            Order::OneAfterAnother => waiting.min_by_key(|(number, _)| *number),
        };
        let Some((number, _)) = next else { return Ok(None) };
        let Some(input) = self.inputs.get_mut(number) else {
            return Ok(None);
        };
        let Some((_, event)) = input.next.take() else {
            return Ok(None);
        };
        input.advance().map_err(failed(number))?;
        input.ledger.apply(&event);
        let source = Source {
            number,
            ledger: &input.ledger,
        };
        Ok(Some((source, event)))
    }

    /// All recordings, as far as they were read.
    pub(super) fn sources(&self) -> Vec<Source<'_>> {
        let inputs = self.inputs.iter().enumerate();
        inputs
            .map(|(number, input)| Source {
                number,
                ledger: &input.ledger,
            })
            .collect()
    }

    /// In which state each was.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        self.inputs.iter().map(|input| input.reader.summary()).collect()
    }
}
