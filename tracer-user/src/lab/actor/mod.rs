//! Actors: processes of this executable that play the processes of a pod.
//!
//! An actor learns its part from an environment variable, since its command line belongs to the process that it
//! plays. It reads `phase N` lines from its standard input, tells what it allocates on its standard output, and ends
//! when its input does.

mod kernel;
mod memory;
pub mod spec;
mod step;

use std::ffi::CString;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use nix::sys::prctl;
use nix::unistd::gettid;

use self::memory::Mapping;
use self::spec::{GuestRam, Spec, Thread, Work};
use self::step::{Doer, Tell};
use super::truth::{Alloc, Event, now};

/// Environment variable with the part of an actor, as JSON.
pub const PART: &str = "HEADROOM_LAB_ACTOR";

/// Plays a part if this process was started for one.
#[must_use]
pub fn play_if_asked() -> Option<ExitCode> {
    let part = std::env::var(PART).ok()?;
    Some(
        match serde_json::from_str(&part)
            .map_err(io::Error::from)
            .and_then(|spec| play(&spec))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                Stage.say(&Event::Failed {
                    tid: tid(),
                    error: error.to_string(),
                });
                ExitCode::FAILURE
            }
        },
    )
}

fn tid() -> u32 {
    gettid().as_raw().unsigned_abs()
}

/// The actor's standard output: whole lines, each in one write, which a pipe keeps apart from other threads' lines.
struct Stage;

impl Stage {
    fn say(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else {
            return;
        };
        line.push(b'\n');
        // The lab is gone when this fails, and the kernel ends this process then.
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    }
}

impl Tell for Stage {
    fn tell(&self, alloc: &Alloc) {
        self.say(&Event::Alloc(alloc.clone()));
    }
}

/// The phase that has begun; threads wait here for the next.
#[derive(Default)]
struct Gate {
    phase: Mutex<u32>,
    moved: Condvar,
}

impl Gate {
    fn open(&self, phase: u32) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.moved.notify_all();
    }

    fn wait(&self, phase: u32) {
        let mut now = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        while *now < phase {
            now = self.moved.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn play(spec: &Spec) -> io::Result<()> {
    let guest = spec
        .guest_ram
        .map(|ram| Mapping::guest(ram).map(|mapping| (ram, mapping)))
        .transpose()?;
    let (main, others) = spec
        .threads
        .split_first()
        .ok_or_else(|| io::Error::other("a part without a main thread"))?;
    let gate = Arc::new(Gate::default());
    for part in others {
        let (part, gate) = (part.clone(), Arc::clone(&gate));
        thread::Builder::new().spawn(move || other_thread(&part, guest, &gate))?;
    }
    main_thread(main, guest, &gate)
}

/// The main thread opens the gate for the others and does its own work in between.
fn main_thread(part: &Thread, guest: Option<(GuestRam, Mapping)>, gate: &Gate) -> io::Result<()> {
    enter(part);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let phase = line
            .strip_prefix("phase ")
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| io::Error::other(format!("'{line}' is not a phase")))?;
        gate.open(phase);
        do_phase(part, guest, phase);
    }
    Ok(())
}

fn other_thread(part: &Thread, guest: Option<(GuestRam, Mapping)>, gate: &Gate) {
    enter(part);
    let mut phases: Vec<u32> = part.work.iter().map(|work| work.phase).collect();
    phases.dedup();
    for phase in phases {
        gate.wait(phase);
        do_phase(part, guest, phase);
    }
    loop {
        thread::park();
    }
}

fn enter(part: &Thread) {
    if let Ok(name) = CString::new(part.comm.as_str()) {
        let _ = prctl::set_name(&name);
    }
    Stage.say(&Event::Ready {
        t: now(),
        tid: tid(),
        comm: part.comm.clone(),
        role: part.role.clone(),
    });
}

fn do_phase(part: &Thread, guest: Option<(GuestRam, Mapping)>, phase: u32) {
    let doer = Doer {
        guest,
        role: &part.role,
        truth: &Stage,
    };
    let mut steps = part.work.iter().filter(|work| work.phase == phase).peekable();
    if steps.peek().is_none() {
        return;
    }
    for Work { step, .. } in steps {
        if let Err(error) = doer.perform(step) {
            Stage.say(&Event::Failed {
                tid: tid(),
                error: format!("{}: {error}", part.comm),
            });
            return;
        }
    }
    Stage.say(&Event::Done {
        t: now(),
        tid: tid(),
        phase,
    });
}
