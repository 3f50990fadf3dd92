//! The built `headroom`, run to its end or in the background.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::build::binaries;

/// Longest that anything may take that a test waits for. Attaching takes a second, in an emulated machine ten, and an
/// emulated machine gives way to whatever else its host does: it may get a tenth of a CPU for a while.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// `headroom` with nothing of the environment that changes its output.
///
/// # Errors
/// When it cannot be built.
pub fn headroom() -> Result<Command> {
    let mut command = Command::new(binaries()?.headroom());
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env("NO_COLOR", "1");
    Ok(command)
}

/// `headroom` as [`headroom()`], started by another program: its arguments end with what it is to start.
///
/// # Errors
/// When `headroom` cannot be built.
pub fn behind(wrapper: &[String]) -> Result<Command> {
    let program = headroom()?;
    let [first, rest @ ..] = wrapper else {
        return Ok(program);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(program.get_program());
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env("NO_COLOR", "1");
    Ok(command)
}

/// What a run of `headroom` did.
#[derive(Debug)]
pub struct Run {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started, or writes something else than UTF-8.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot run headroom")?;
        Ok(Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).context("standard output is no text")?,
            stderr: String::from_utf8(output.stderr).context("standard error is no text")?,
        })
    }

    /// Runs `headroom` with these arguments.
    ///
    /// # Errors
    /// See [`Run::of`].
    pub fn headroom<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::of(headroom()?.args(arguments))
    }

    /// The last line of standard error.
    #[must_use]
    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// Fails unless it ended with this status and one line on standard error that holds `words`.
    ///
    /// # Errors
    /// Shows what it did instead.
    pub fn expect_one_line(&self, status: i32, words: &[&str]) -> Result<()> {
        ensure!(self.status == Some(status), "status {status} expected: {self:?}");
        ensure!(self.stderr.lines().count() == 1, "one line expected: {self:?}");
        for word in words {
            ensure!(self.stderr.contains(word), "no '{word}' in: {self:?}");
        }
        ensure!(!self.stderr.contains("panicked"), "{self:?}");
        Ok(())
    }
}

/// `headroom record` or `headroom watch` in the background; killed when dropped.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    lines: Receiver<String>,
    /// What it said so far.
    pub said: Vec<String>,
    /// Its recording, or the folder of its incidents.
    pub file: PathBuf,
}

impl Recorder {
    /// Records `target` into `file` with more `options`, and waits until every probe is attached.
    ///
    /// # Errors
    /// When it ends or takes too long before that.
    pub fn start(target: &str, file: impl Into<PathBuf>, options: &[&str]) -> Result<Self> {
        Self::attach("record", &[target], file.into(), options)
    }

    /// Records every VM pod of the node, otherwise as [`Recorder::start`].
    ///
    /// # Errors
    /// When it ends or takes too long before that.
    pub fn everything(file: impl Into<PathBuf>, options: &[&str]) -> Result<Self> {
        Self::attach("record", &[], file.into(), options)
    }

    /// `headroom watch` of these targets, all without any, with incident folders in `folder`.
    ///
    /// # Errors
    /// When it ends or takes too long before it is attached.
    pub fn watch(targets: &[&str], folder: impl Into<PathBuf>, options: &[&str]) -> Result<Self> {
        Self::attach("watch", targets, folder.into(), options)
    }

    /// `headroom record` or `headroom watch` of these targets, started by a program that becomes headroom, as setpriv
    /// does.
    ///
    /// # Errors
    /// When it ends or takes too long before it is attached.
    pub fn behind(
        wrapper: &[String],
        subcommand: &str,
        targets: &[&str],
        file: impl Into<PathBuf>,
        options: &[&str],
    ) -> Result<Self> {
        Self::launch(behind(wrapper)?, subcommand, targets, file.into(), options)
    }

    fn attach(subcommand: &str, targets: &[&str], file: PathBuf, options: &[&str]) -> Result<Self> {
        Self::launch(headroom()?, subcommand, targets, file, options)
    }

    /// The same, by a command that becomes headroom and takes its arguments.
    ///
    /// # Errors
    /// When it ends or takes too long before it is attached.
    pub fn launch(
        mut command: Command,
        subcommand: &str,
        targets: &[&str],
        file: PathBuf,
        options: &[&str],
    ) -> Result<Self> {
        command.arg(subcommand).args(targets).arg("-o").arg(&file).args(options);
        let mut recorder = Self::spawn(&mut command, file)?;
        recorder.await_attached()?;
        Ok(recorder)
    }

    /// Starts a command, which need not attach at once. `file` is what it writes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command, file: impl Into<PathBuf>) -> Result<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            said: Vec::new(),
            file: file.into(),
        })
    }

    /// Waits until every probe is attached.
    ///
    /// # Errors
    /// When it ends or takes too long before that.
    pub fn await_attached(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.iter().any(|line| line.starts_with("headroom: attached")) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => bail!("it did not attach in time: {:?}", self.said),
                Err(RecvTimeoutError::Disconnected) => bail!("it ended early: {:?}", self.said),
            }
        }
        Ok(())
    }

    /// Waits until it says a line with these words.
    ///
    /// # Errors
    /// When it ends, or says nothing of the kind in time.
    pub fn await_line(&mut self, words: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.iter().any(|line| line.contains(words)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            self.said
                .push(line.with_context(|| format!("no '{words}' in {:?}", self.said))?);
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process ids are small")?;
        kill(Pid::from_raw(pid), signal).context("headroom is gone")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.said.extend(self.lines.iter());
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "headroom did not end in time: {:?}",
                self.said
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Errors
    /// When it fails.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::SIGINT)?;
        let status = self.wait()?;
        ensure!(status.success(), "headroom failed ({status}): {:?}", self.said);
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
