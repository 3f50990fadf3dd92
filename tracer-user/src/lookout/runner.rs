//! Runs a command at each alert, in a thread of its own: whatever it does, the tracer goes on.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::program::Program;
use super::variables::Variables;
use crate::cli::say::say;

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a command may still run when the tracer ends.
const AT_END: Duration = Duration::from_secs(5);
/// How long a killed command may take to be gone: what waits for a disk is not killed before that answers.
const GONE: Duration = Duration::from_secs(2);
/// Memory is locked, so the stack counts whole. Starting a process takes some KiB.
const STACK: usize = 256 << 10;

/// What the thread and the tracer both know.
#[derive(Debug, Default)]
struct Shared {
    busy: AtomicBool,
    /// The tracer ends: a command has [`AT_END`] left, unless its own time is over before.
    ending: AtomicBool,
    /// Alerts for which the command was not run, since it ran still.
    missed: AtomicU64,
}

/// Runs a command, never twice at the same time.
#[derive(Debug)]
pub struct Runner {
    jobs: Sender<Variables>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    limit: Duration,
}

impl Runner {
    /// Starts the thread that runs the command.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(program: Program) -> io::Result<Self> {
        let (jobs, waiting) = channel();
        let shared = Arc::new(Shared::default());
        let limit = program.limit;
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name("on-alert".to_owned())
            .stack_size(STACK)
            .spawn(move || run_all(&program, &theirs, &waiting))?;
        Ok(Self {
            jobs,
            shared,
            thread,
            limit,
        })
    }

    /// Runs the command with these variables, unless it runs still: then that is counted, and said later.
    pub(super) fn run(&self, variables: Variables) {
        if self.shared.busy.swap(true, Ordering::AcqRel) {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
        } else if self.jobs.send(variables).is_err() {
            say("the thread that runs the command of alerts is gone");
        }
    }

    /// Waits for the command that runs, which ends by itself, by its time limit, or because the tracer cannot wait.
    pub(super) fn finish(self) {
        drop(self.jobs);
        self.shared.ending.store(true, Ordering::Release);
        let deadline = Instant::now() + self.limit.min(AT_END) + 2 * GONE;
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                say("the command of an alert cannot be ended, and is left behind");
                return;
            }
            sleep(LOOK);
        }
        if self.thread.join().is_err() {
            say("the thread that runs the command of alerts panicked");
        }
        tell_missed(&self.shared);
    }
}

fn run_all(program: &Program, shared: &Shared, jobs: &Receiver<Variables>) {
    for variables in jobs {
        match program.command(variables).spawn() {
            Ok(mut child) => attend(&mut child, program.limit, &shared.ending),
            Err(error) => say(format_args!("the command of an alert cannot be run: {error}")),
        }
        tell_missed(shared);
        shared.busy.store(false, Ordering::Release);
    }
}

fn tell_missed(shared: &Shared) {
    match shared.missed.swap(0, Ordering::Relaxed) {
        0 => {}
        1 => say("another alert came while the command of the one before ran: it was not run for that"),
        count => say(format_args!(
            "{count} alerts came while the command of the one before ran: it was not run for those"
        )),
    }
}

/// Waits for its end, or brings that about. Whatever it has left in its process group ends with it.
fn attend(child: &mut Child, limit: Duration, ending: &AtomicBool) {
    let begun = Instant::now();
    let ended = ends_within(child, limit, ending);
    let Some(group) = group(child) else { return };
    // It is not waited for yet, so the number is still that of its group. One that is empty cannot be killed.
    let _ = killpg(group, Signal::SIGKILL);
    if !ended {
        say(format_args!(
            "the command of an alert was killed: it had run for {:.1} s of at most {}",
            begun.elapsed().as_secs_f64(),
            limit.as_secs_f64()
        ));
        if !ends_within(child, GONE, &AtomicBool::new(false)) {
            say("the command of an alert does not end, though it was killed");
        }
    }
    match child.wait() {
        Ok(status) if ended && !status.success() => {
            say(format_args!("the command of an alert failed: {}", how(status)));
        }
        Ok(_) => {}
        Err(error) => say(format_args!("the command of an alert cannot be waited for: {error}")),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// Whether it ends in time, which is shortened once the tracer ends. It can still be waited for then.
fn ends_within(child: &Child, time: Duration, ending: &AtomicBool) -> bool {
    let Some(pid) = group(child) else { return true };
    let begun = Instant::now();
    let mut end_seen = None;
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => return true,
        }
        if end_seen.is_none() && ending.load(Ordering::Acquire) {
            end_seen = Some(Instant::now());
        }
        if begun.elapsed() >= time || end_seen.is_some_and(|seen| seen.elapsed() >= AT_END) {
            return false;
        }
        sleep(LOOK);
    }
}
