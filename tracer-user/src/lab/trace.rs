//! The tracer, run from outside as an operator runs it: `headroom record`, then `headroom report`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::cleanup::{self, Stopped};
use super::spawn;
use crate::probe::BackendChoice;
use crate::recording::Reader;

/// What `headroom record` prints to standard error once every probe is attached.
const ATTACHED: &str = "headroom: attached";
/// Attaching takes a second; on an emulated machine under load, many.
const ATTACH_DEADLINE: Duration = Duration::from_secs(60);
/// After the kill or the interrupt, the recorder has its last two seconds to write and its maps to read.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Accounts are handed over at least every 100 ms: by then the last allocation is in the recording.
const SETTLE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(50);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A command of this program could not be started or waited for.
    #[error("headroom {command}: {source}")]
    Run {
        /// Which.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A command of this program failed.
    #[error("headroom {command}: {said}")]
    Failed {
        /// Which.
        command: &'static str,
        /// The last line it said.
        said: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The recorder does not come to an end, or does not begin.
    #[error("headroom record did not {0} in time")]
    Late(&'static str),
    /// The report is not JSON.
    #[error("headroom report: {0}")]
    Json(#[from] serde_json::Error),
    /// A signal came.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn run(command: &'static str) -> impl FnOnce(io::Error) -> TraceError {
    move |source| TraceError::Run { command, source }
}

/// A running `headroom record`.
pub struct Recorder {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Recorder {
    /// Starts recording a cgroup (its path below the memory controller's root) with this backend, with stacks or without, and
    /// waits until every probe is attached.
    ///
    /// # Errors
    /// When this node cannot trace.
    pub fn start(cgroup: &Path, file: &Path, backend: BackendChoice, stacks: bool) -> Result<Self, TraceError> {
        let mut target = OsString::from("cgroup:/");
        target.push(cgroup);
        let mut command = headroom("record").map_err(run("record"))?;
        command.arg(target).args(["--until-oom", "-o"]).arg(file);
        if let Some(backend) = backend.to_possible_value() {
            command.args(["--backend", backend.get_name()]);
        }
        if stacks {
            command.arg("--stacks");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        spawn::bind(&mut command, None).map_err(run("record"))?;
        let mut child = command.spawn().map_err(run("record"))?;
        let (teller, lines) = channel();
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log::debug!("record: {line}");
                    if teller.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let mut recorder = Self {
            child,
            lines,
            said: String::new(),
        };
        recorder.await_attached()?;
        Ok(recorder)
    }

    fn await_attached(&mut self) -> Result<(), TraceError> {
        let deadline = Instant::now() + ATTACH_DEADLINE;
        while Instant::now() < deadline {
            cleanup::check()?;
            match self.lines.recv_timeout(TICK) {
                Ok(line) if line.starts_with(ATTACHED) => return Ok(()),
                Ok(line) => self.said = line,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_err(run("record"))?;
                    return Err(self.failed(status));
                }
            }
        }
        Err(TraceError::Late("attach"))
    }

    /// Ends the recording: by itself after a kill, else on request.
    ///
    /// # Errors
    /// When the recorder failed.
    pub fn finish(mut self, killed: bool) -> Result<(), TraceError> {
        if !killed {
            thread::sleep(SETTLE);
            self.interrupt();
        }
        let deadline = Instant::now() + END_DEADLINE;
        while Instant::now() < deadline {
            cleanup::check()?;
            if let Some(status) = self.child.try_wait().map_err(run("record"))? {
                if status.success() {
                    return Ok(());
                }
                if let Some(line) = self.lines.iter().last() {
                    self.said = line;
                }
                return Err(self.failed(status));
            }
            thread::sleep(TICK);
        }
        Err(TraceError::Late("end"))
    }

    fn interrupt(&mut self) {
        // Not waited for yet, so the id is still the recorder's.
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }

    fn failed(&self, status: ExitStatus) -> TraceError {
        failed("record", &self.said, status)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // One that is gone already is all the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether whoever records this follows pages.
#[must_use]
pub fn follows_pages(file: &Path) -> bool {
    Reader::open(file).is_ok_and(|reader| reader.header().live.as_ref().is_some_and(|live| live.on))
}

/// The report on a recording, as data.
///
/// # Errors
/// When `headroom report` fails.
pub fn report_json(file: &Path) -> Result<Value, TraceError> {
    Ok(serde_json::from_slice(&report(file, &["--format", "json"])?)?)
}

/// The report on a recording, to be read.
///
/// # Errors
/// When `headroom report` fails.
pub fn report_text(file: &Path) -> Result<Vec<u8>, TraceError> {
    report(file, &[])
}

fn report(file: &Path, options: &[&str]) -> Result<Vec<u8>, TraceError> {
    let output = headroom("report")
        .and_then(|mut command| command.args([file.as_os_str()]).args(options).output())
        .map_err(run("report"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed("report", said.lines().last().unwrap_or_default(), output.status));
    }
    Ok(output.stdout)
}

fn failed(command: &'static str, said: &str, status: ExitStatus) -> TraceError {
    let said = said.strip_prefix("headroom: ").unwrap_or(said);
    TraceError::Failed {
        command,
        said: if said.is_empty() {
            status.to_string()
        } else {
            said.to_owned()
        },
        status,
    }
}

fn headroom(subcommand: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand);
    Ok(command)
}
