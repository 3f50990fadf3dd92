//! What the kernel side says as it happens: records of the ring buffers.

use tracer_common::{AccountKey, OVERFLOW_TID};

use super::{CollectError, Collector};
use crate::collect::latest::latest;
use crate::collect::names::{Pods, Seen};
use crate::collect::sink::EventSink;
use crate::collect::stacks::Stacks;
use crate::probe::{Record, StackSample};
use crate::recording::event::{Body, Event, Reclaim};

/// Kills whose files are kept until somebody takes them.
const MAX_KILL_FILES: usize = 16;

impl<S: EventSink> Collector<S> {
    /// Takes what is in the ring buffer.
    pub(super) fn drain(&mut self) -> Result<(), CollectError> {
        let mut records = Vec::new();
        self.tracer.drain(|record| records.push(record));
        latest(&mut records);
        records.into_iter().try_for_each(|record| self.take(record))?;
        self.drain_stacks()
    }

    /// Takes what is in the ring buffer of stacks. Where none are sampled it is empty.
    fn drain_stacks(&mut self) -> Result<(), CollectError> {
        if self.stacks.is_none() {
            return Ok(());
        }
        let mut samples = Vec::new();
        self.tracer.drain_stacks(|sample| samples.push(sample));
        samples.into_iter().try_for_each(|sample| self.take_stack(sample))
    }

    fn take_stack(&mut self, sample: StackSample) -> Result<(), CollectError> {
        let (t, key) = (sample.t, sample.account);
        let seen = Seen {
            tid: key.tid,
            tgid: sample.tgid,
            start_ns: key.start_ns,
            memcg: key.memcg,
            comm: sample.comm,
        };
        let taken = self.stacks.as_mut().is_some_and(|stacks| stacks.take(sample));
        if taken && key.tid != OVERFLOW_TID {
            self.name(t, &seen)?;
        }
        Ok(())
    }

    /// Emits what there is of stacks.
    pub(super) fn emit_stacks(&mut self, events: impl FnOnce(&mut Stacks) -> Vec<Event>) -> Result<(), CollectError> {
        let events = self.stacks.as_mut().map_or_else(Vec::new, events);
        events.into_iter().try_for_each(|event| self.emit(event.t, event.body))
    }

    /// What was charged up to now is not added to what is charged later.
    pub(super) fn bound_stacks(&mut self, t: u64) {
        if let Some(stacks) = &mut self.stacks {
            stacks.bound(t);
        }
    }

    /// A process's addresses mean something else from now on.
    fn forget_code(&mut self, tgid: u32) {
        if let Some(stacks) = &mut self.stacks {
            stacks.forget_process(tgid);
        }
    }

    fn take(&mut self, record: Record) -> Result<(), CollectError> {
        match record {
            Record::Charge(charge, ..) => {
                let key = charge.account;
                let seen = Seen {
                    tid: key.tid,
                    tgid: charge.tgid,
                    start_ns: key.start_ns,
                    memcg: key.memcg,
                    comm: charge.comm,
                };
                self.charge(charge.t, &key, &seen, charge.charged, charge.uncharged)
            }
            Record::Reclaim(record) => {
                let seen = Seen {
                    tid: record.tid,
                    tgid: record.tgid,
                    start_ns: record.start_ns,
                    memcg: record.memcg,
                    comm: record.comm,
                };
                self.name(record.t, &seen)?;
                let body = Body::Reclaim(Reclaim {
                    memcg: record.memcg,
                    tid: record.tid,
                    start_ns: record.start_ns,
                    duration_ns: record.duration_ns,
                    pages: record.reclaimed_pages,
                    order: record.order,
                });
                self.emit(record.t, body)
            }
            Record::Oom(record) => {
                self.bound_stacks(record.t);
                self.kills.control(record);
                Ok(())
            }
            Record::Victim(record) => {
                self.bound_stacks(record.t);
                let pods = Pods(self.targets.by_memcg());
                if let Some(oom_memcg) = self.kills.victim(&self.names, &pods, &record) {
                    // At once: the victim's end changes them.
                    let read = self.targets.kill_files(record.t, oom_memcg, record.memcg);
                    self.kill_files.extend(read);
                    self.kill_files.truncate(MAX_KILL_FILES);
                }
                Ok(())
            }
            Record::Exit(record) => {
                if record.tid == record.tgid {
                    self.forget_code(record.tgid);
                }
                self.departures.exits((record.tid, record.start_ns), record.comm);
                Ok(())
            }
            Record::Rename(record) => {
                let seen = Seen {
                    tid: record.tid,
                    tgid: record.tgid,
                    start_ns: record.start_ns,
                    memcg: 0,
                    comm: record.comm,
                };
                self.name(record.t, &seen)
            }
            Record::Exec(record) => {
                self.names.forget_process(record.tgid);
                self.forget_code(record.tgid);
                self.programs_started = true;
                Ok(())
            }
        }
    }

    /// Emits what is new about a thread.
    pub(super) fn name(&mut self, t: u64, seen: &Seen) -> Result<(), CollectError> {
        for body in self.names.thread(&self.node, &Pods(self.targets.by_memcg()), seen) {
            self.emit(t, body)?;
        }
        Ok(())
    }

    /// Emits what is new in an account.
    pub(super) fn charge(
        &mut self,
        t: u64,
        key: &AccountKey,
        seen: &Seen,
        charged: u64,
        uncharged: u64,
    ) -> Result<(), CollectError> {
        let Some(charge) = self.accounts.update(key, charged, uncharged) else {
            return Ok(());
        };
        if key.tid != OVERFLOW_TID {
            self.name(t, seen)?;
        }
        self.emit(t, Body::Charge(charge))
    }
}
