//! Leading a pod's processes through the phases of a plan.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::actor::PART;
use super::cleanup::{self, Stopped};
use super::plan::{Member, Plan, Program};
use super::real::serial::Serial;
use super::real::smaps;
use super::run::Say;
use super::spawn;
use super::tree::{Tree, TreeError};
use super::truth::{Event, Truth};
use super::waiting;
use crate::units::Bytes;

/// The slowest phase of a sensible scenario takes a small part of this, even on an emulated machine.
const PHASE_DEADLINE: Duration = Duration::from_secs(120);
/// How often the lab looks for signals, kills and ended processes: what survivors of a kill allocate until it has
/// looked is in the truth, but not in what led to the kill.
const TICK: Duration = Duration::from_millis(5);
/// How long a killed process may take to end, and another to follow it.
const KILL: Duration = Duration::from_millis(500);
/// How long the last words of a killed process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Why a scenario could not be played.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A process could not be started.
    #[error("cannot start {name}: {source}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// An actor could not do its part.
    #[error("{name} could not do its part: {error}")]
    Part {
        /// Which.
        name: String,
        /// Why.
        error: String,
    },
    /// A process ended that should not have.
    #[error("{name} ended early ({status})")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: std::process::ExitStatus,
    },
    /// A phase took too long.
    #[error("phase {phase} was not over after {PHASE_DEADLINE:?}: still to be heard of: {silent}")]
    Late {
        /// Which. In phase 0 everybody says hello.
        phase: u32,
        /// The processes that have not said all that they have to say, and what their threads are at.
        silent: String,
    },
    /// The memcg tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A signal came.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every phase was played to its end.
    Survived,
    /// The kernel killed these processes.
    Killed(Vec<String>),
}

struct Actor {
    member: Member,
    child: Child,
    input: Option<ChildStdin>,
}

/// Understands a member's lines.
type Listener = Box<dyn FnMut(&str) -> Option<Event> + Send>;

/// The processes of the pod.
pub struct Stage<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    actors: Vec<Actor>,
    events: Receiver<(usize, Event)>,
    teller: Sender<(usize, Event)>,
    truth: Truth,
    looked: Instant,
    told: Instant,
    say: Say<'a>,
}

impl<'a> Stage<'a> {
    /// Starts the cast and waits until every thread is there.
    ///
    /// # Errors
    /// When a process does not start.
    pub fn start(tree: &'a Tree, plan: &'a Plan, say: Say<'a>) -> Result<Self, StageError> {
        let (teller, events) = channel();
        let mut stage = Self {
            tree,
            plan,
            actors: Vec::new(),
            events,
            teller,
            truth: Truth::default(),
            looked: Instant::now(),
            told: Instant::now(),
            say,
        };
        for member in &plan.cast {
            stage.enter(member).map_err(|source| StageError::Start {
                name: member.name.clone(),
                source,
            })?;
        }
        let threads: usize = stage.actors.iter().map(|actor| actor.member.threads()).sum();
        stage.until(0, threads, |event| matches!(event, Event::Ready { .. }))?;
        Ok(stage)
    }

    fn enter(&mut self, member: &Member) -> io::Result<()> {
        let mut command = command(member)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        spawn::bind(&mut command, Some(self.tree.scope()))?;
        let mut child = command.spawn()?;
        if let Some(output) = child.stdout.take() {
            let (index, teller) = (self.actors.len(), self.teller.clone());
            let mut understand = listener(member);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let Some(event) = understand(&line) else {
                        continue;
                    };
                    if teller.send((index, event)).is_err() {
                        break;
                    }
                }
            });
        }
        self.actors.push(Actor {
            member: member.clone(),
            input: child.stdin.take(),
            child,
        });
        Ok(())
    }

    /// Plays every phase, or as far as the kernel lets it.
    ///
    /// # Errors
    /// When an actor fails, a phase takes too long, or a signal comes.
    pub fn play(&mut self) -> Result<Outcome, StageError> {
        let last = self
            .actors
            .iter()
            .map(|actor| actor.member.last_phase())
            .max()
            .unwrap_or(0);
        for phase in 1..=last {
            log::info!("phase {phase} of {last}");
            let mut expected = 0;
            for actor in &mut self.actors {
                expected += actor.member.busy_threads(phase);
                cue(actor, phase);
            }
            let done = |event: &Event| matches!(event, Event::Done { phase: done, .. } if *done == phase);
            if let Some(killed) = self.until(phase, expected, done)? {
                self.drain();
                return Ok(Outcome::Killed(killed));
            }
        }
        Ok(Outcome::Survived)
    }

    /// What was allocated so far.
    #[must_use]
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Resident guest RAM of a real QEMU, bytes; `None` where a stand-in plays it, or it is gone.
    #[must_use]
    pub fn guest_resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps", self.real_qemu()?)).ok()?;
        Some(smaps::guest_resident(&text, self.plan.guest_ram)).filter(|resident| *resident > 0)
    }

    fn real_qemu(&self) -> Option<u32> {
        let real = |actor: &&Actor| matches!(actor.member.program, Program::Real(_));
        self.actors.iter().find(real).map(|actor| actor.child.id())
    }

    /// Waits for `expected` threads to say something. The processes that the kernel killed, if it did.
    fn until(
        &mut self,
        phase: u32,
        expected: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Option<Vec<String>>, StageError> {
        let deadline = Instant::now() + PHASE_DEADLINE;
        let mut heard = BTreeSet::new();
        while heard.len() < expected {
            cleanup::check()?;
            if Instant::now() >= deadline {
                let silent = self.silent(phase, &heard);
                return Err(StageError::Late { phase, silent });
            }
            if self.looked.elapsed() >= TICK {
                self.looked = Instant::now();
                self.show_usage();
                if let Some(killed) = self.ended()? {
                    return Ok(Some(killed));
                }
            }
            if let Ok((index, event)) = self.events.recv_timeout(TICK) {
                if let (true, Some(tid)) = (wanted(&event), event.tid()) {
                    heard.insert((index, tid));
                }
                self.hear(index, event)?;
            }
        }
        self.ended()
    }

    /// Who has not said all that belongs to a phase, and why that may be.
    fn silent(&self, phase: u32, heard: &BTreeSet<(usize, u32)>) -> String {
        let actors = self.actors.iter().enumerate();
        let silent = actors.filter_map(|(index, actor)| {
            let expected = match phase {
                0 => actor.member.threads(),
                _ => actor.member.busy_threads(phase),
            };
            let said = heard.iter().filter(|(by, _)| *by == index).count();
            let threads = || waiting::threads(Path::new("/proc"), actor.child.id());
            (said < expected).then(|| format!("{} ({said} of {expected}; {})", actor.member.name, threads()))
        });
        silent.collect::<Vec<_>>().join(", ")
    }

    fn hear(&mut self, index: usize, event: Event) -> Result<(), StageError> {
        let name = &self.actors[index].member.name;
        match event {
            Event::Alloc(alloc) => self.truth.add(name, &alloc),
            Event::Failed { error, .. } => {
                return Err(StageError::Part {
                    name: name.clone(),
                    error,
                });
            }
            Event::Ready { tid, comm, role, .. } => log::debug!("{name}: thread {tid} {comm} is {role}"),
            Event::Done { tid, phase, .. } => log::debug!("{name}: thread {tid} is through with phase {phase}"),
        }
        Ok(())
    }

    /// The processes that the kernel killed, if any.
    ///
    /// Whoever keeps charging while the victim's memory is not free yet may be the next: one that is found dead is
    /// given a moment for company.
    fn ended(&mut self) -> Result<Option<Vec<String>>, StageError> {
        if self.tree.oom_kills() == 0 {
            return self.killed().map(|_| None);
        }
        self.stop();
        thread::sleep(KILL);
        Ok(Some(self.killed()?).filter(|killed| !killed.is_empty()))
    }

    /// Looks which processes ended: by the kernel's hand, or otherwise, which is an error.
    fn killed(&mut self) -> Result<Vec<String>, StageError> {
        let mut killed = Vec::new();
        for actor in &mut self.actors {
            let Ok(Some(status)) = actor.child.try_wait() else {
                continue;
            };
            let name = actor.member.name.clone();
            if status.signal() != Some(libc::SIGKILL) || self.tree.oom_kills() == 0 {
                return Err(StageError::Ended { name, status });
            }
            killed.push(name);
        }
        Ok(killed)
    }

    /// Stops the survivors of a kill, so that what they allocated is final.
    fn stop(&mut self) {
        for actor in &mut self.actors {
            // The id of one that was waited for may be another's by now.
            if let (Ok(None), Ok(pid)) = (actor.child.try_wait(), i32::try_from(actor.child.id())) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
            }
        }
    }

    /// Hears what was said before the kill and is still on its way.
    fn drain(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        while let Ok((index, event)) = self
            .events
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            // What others fail at after the kill is no news.
            let _ = self.hear(index, event);
        }
    }

    /// Tells once per second how full the pod is.
    fn show_usage(&mut self) {
        if self.told.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.told = Instant::now();
        if let Ok(usage) = self.tree.usage() {
            let limit = Bytes(self.plan.limit);
            (self.say)(&format!("playing the scenario: usage {} of {limit}", Bytes(usage)));
        }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for actor in &mut self.actors {
            // One that is gone already is all the better.
            let _ = actor.child.kill();
            let _ = actor.child.wait();
        }
    }
}

fn command(member: &Member) -> io::Result<Command> {
    let mut command = match &member.program {
        Program::StandIn(spec) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.env_clear().env(PART, serde_json::to_string(spec)?);
            command
        }
        Program::Real(part) => Command::new(&part.program),
    };
    let (arg0, args) = member
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("an empty command line"))?;
    command.arg0(arg0).args(args);
    Ok(command)
}

/// Turns the lines of a member's output into events.
fn listener(member: &Member) -> Listener {
    match &member.program {
        // A killed process may leave half a line behind.
        Program::StandIn(_) => Box::new(|line| serde_json::from_str(line).ok()),
        Program::Real(part) => {
            let mut serial = Serial::new(part.clone());
            Box::new(move |line| serial.hear(line))
        }
    }
}

/// Tells a member that a phase begins.
fn cue(actor: &mut Actor, phase: u32) {
    let Some(input) = &mut actor.input else { return };
    // A process that is gone is noticed while waiting for it.
    let _ = match &actor.member.program {
        Program::StandIn(_) => writeln!(input, "phase {phase}"),
        Program::Real(part) => match part.tasks.get(phase as usize - 1) {
            Some(task) => input.write_all(task.line().as_bytes()),
            None => Ok(()),
        },
    };
}
