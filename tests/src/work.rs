//! Processes that allocate in a watched group and say how much: the other half is the program `storm` of this crate.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::memcg::Memcg;

/// The variable that tells `storm` what to do: its command line is free to look like anything.
pub const WORK: &str = "HEADROOM_TEST_WORK";
/// The variable with the name that its threads take, in hexadecimal.
pub const COMM: &str = "HEADROOM_TEST_COMM";

/// A process that waits in a group for the word to begin; killed when dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `storm` in `group`. `work` is what it is to do:
    /// - `storm THREADS SECONDS`: touch and give back anonymous pages as fast as can be, then print `PAGES NANOS`;
    /// - `grow MIB_PER_SECOND`: take more and more, printing `BOOTTIME_NS BYTES` at each step;
    /// - `cache FILE MIB_PER_SECOND MIB TIMES`: write a file of so many MiB again and again, printing `BOOTTIME_NS BYTES`
    ///   each time, when its page cache has been dropped. The last one's stays.
    ///
    /// # Errors
    /// When it cannot be started in the group.
    pub fn start(storm: impl AsRef<Path>, group: &Memcg, work: &str) -> Result<Self> {
        Self::of(Command::new(storm.as_ref()).env(WORK, work), group)
    }

    /// Starts a command, which ends up in `storm`, in `group`.
    ///
    /// # Errors
    /// When it cannot be started in the group.
    pub fn of(command: &mut Command, group: &Memcg) -> Result<Self> {
        group.join(command)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut worker = Self { child, stdin, stdout };
        if worker.line()? != "ready" {
            bail!("the worker is not ready");
        }
        Ok(worker)
    }

    /// Has it begin.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it has been told to end")?;
        writeln!(stdin, "go").context("the worker is gone")
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// When it is gone.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the worker is gone");
        }
        Ok(line.trim_end().to_owned())
    }

    /// The next line that it prints; `None` when it has ended.
    ///
    /// # Errors
    /// When it prints no text.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let length = self.stdout.read_line(&mut line)?;
        Ok((length > 0).then(|| line.trim_end().to_owned()))
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        Ok(self.child.wait()?)
    }

    /// The two numbers of its next line.
    ///
    /// # Errors
    /// When it is gone.
    pub fn numbers(&mut self) -> Result<(u64, u64)> {
        let line = self.line()?;
        let (first, second) = line
            .split_once(' ')
            .with_context(|| format!("no two numbers: {line}"))?;
        Ok((first.parse()?, second.parse()?))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn end(&mut self) -> Result<()> {
        self.stdin = None;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.end();
    }
}
