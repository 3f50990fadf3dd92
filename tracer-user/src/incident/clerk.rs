//! Writes incidents in a thread of its own: a slow disk must not hold up the tracer.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::contents::Incident;
use super::store::Store;
use crate::cli::say::say;
use crate::escape::terminal;
use crate::node::Node;

/// Incidents that may wait for the disk. Each holds on to what the flight recorder had when it happened.
const QUEUE: usize = 4;

/// The writing thread.
#[derive(Debug)]
pub struct Clerk {
    queue: Option<SyncSender<Incident>>,
    thread: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Starts it. What it has written, and what it could not write, it says on standard error.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(store: Store, node: Node) -> std::io::Result<Self> {
        let (queue, incidents) = sync_channel(QUEUE);
        let thread = Builder::new()
            .name("incidents".to_owned())
            .spawn(move || write_all(&store, &node, &incidents))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Hands over an incident. With several waiting for the disk already, this one is lost, and that is said.
    pub fn write(&self, incident: Incident) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(incident) {
            Ok(()) => {}
            Err(TrySendError::Full(incident)) => {
                log::error!("{} is lost: {QUEUE} incidents wait for the disk", incident.folder());
            }
            Err(TrySendError::Disconnected(incident)) => {
                log::error!(
                    "{} is lost: the thread that writes incidents is gone",
                    incident.folder()
                );
            }
        }
    }

    /// Waits until everything is written.
    pub fn finish(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that writes incidents panicked");
        }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.join();
    }
}

fn write_all(store: &Store, node: &Node, incidents: &Receiver<Incident>) {
    for incident in incidents {
        match incident.write(store, node) {
            Ok(folder) => {
                let folder = folder.display().to_string();
                say(format_args!("incident {}", terminal(&folder)));
            }
            // Watching goes on: the next incident may find room.
            Err(error) => log::error!("{}: {error}", incident.folder()),
        }
    }
}
