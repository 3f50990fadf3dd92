//! Watching a VM from power-on to its verdict.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::initramfs;
use super::machine::Machine;
use super::protocol::{Decoder, Message, Status, Stream};
use super::results;

/// How often the host looks for new messages.
const POLL: Duration = Duration::from_millis(20);

/// How long powering off may take after the verdict.
const POWER_OFF: Duration = Duration::from_secs(10);

/// What a VM did.
#[derive(Debug)]
pub struct VmRun {
    /// The exact kernel, as `uname -r` printed it.
    pub release: String,
    /// What became of each command.
    pub commands: Vec<CommandRun>,
    folder: PathBuf,
}

/// What became of a command.
#[derive(Debug)]
pub struct CommandRun {
    /// Its command line.
    pub words: Vec<String>,
    /// How it ended.
    pub status: Status,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl VmRun {
    /// The kernel's messages on the console (severe ones only; all of them are in the file `kernel.log`).
    ///
    /// # Errors
    /// When the log is gone.
    pub fn console(&self) -> Result<String> {
        read_lossily(&self.folder.join("console.log"))
    }

    /// The files that were there when the kernel started init.
    ///
    /// # Errors
    /// When the archive that the VM was booted with is gone.
    pub fn root(&self) -> Result<BTreeSet<String>> {
        let mut files = BTreeSet::new();
        initramfs::entries(&self.folder.join("initramfs.cpio"), |name, content| {
            // Folders are empty.
            if io::copy(content, &mut io::sink())? > 0 {
                files.insert(name.to_owned());
            }
            Ok(())
        })?;
        Ok(files)
    }

    /// The host's copy of what a command left as `/results/NAME`. `kernel.log` is always there.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("results").join(name)
    }

    /// Fails, with what the command said last, unless all commands exited with status 0.
    ///
    /// # Errors
    /// Names the first command that did not.
    pub fn expect_success(&self) -> Result<()> {
        for command in &self.commands {
            if command.status != Status::Exited(0) {
                let said = format!("{}{}", command.stdout(), command.stderr());
                bail!(
                    "in the VM, `{}` ended with {:?}:\n{}",
                    command.words.join(" "),
                    command.status,
                    tail(&said)
                );
            }
        }
        Ok(())
    }
}

impl CommandRun {
    /// Standard output as text.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Boots the machine and follows it to the end of its plan.
pub(super) fn run(machine: &Machine, commands: Vec<Vec<String>>, timeout: Duration, echo: bool) -> Result<VmRun> {
    let started = Instant::now();
    let mut running = machine.start()?;
    let path = machine.messages();
    let mut port = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut follower = Follower::new(commands, echo);
    while !follower.done {
        // Asked before reading: what was written before it went off is then read for certain.
        let off = running.is_off()?;
        follower.read(&mut port)?;
        let problem = match &follower.failure {
            _ if follower.done => continue,
            Some(failure) => format!("init failed: {failure}"),
            None if off => "it went off before its verdict".to_owned(),
            None if started.elapsed() > timeout => format!("no verdict within {} s", timeout.as_secs()),
            None => {
                sleep(POLL);
                continue;
            }
        };
        bail!("{problem}; {}\n{}", follower.progress(), last_words(machine));
    }
    let verdict = Instant::now();
    while !running.is_off()? && verdict.elapsed() < POWER_OFF {
        sleep(POLL);
    }
    drop(running);
    results::unpack(&machine.results_disk(), &machine.folder.join("results"))?;
    follower.finish(machine.folder)
}

/// Takes messages and keeps what they tell.
struct Follower {
    decoder: Decoder,
    /// Commands that have not ended, the next one last.
    waiting: Vec<Vec<String>>,
    ended: Vec<CommandRun>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    release: Option<String>,
    failure: Option<String>,
    done: bool,
    echo: bool,
}

impl Follower {
    fn new(mut commands: Vec<Vec<String>>, echo: bool) -> Self {
        commands.reverse();
        Self {
            decoder: Decoder::default(),
            waiting: commands,
            ended: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            release: None,
            failure: None,
            done: false,
            echo,
        }
    }

    fn read(&mut self, port: &mut File) -> Result<()> {
        let mut bytes = Vec::new();
        port.read_to_end(&mut bytes).context("cannot read the VM's messages")?;
        self.decoder.push(&bytes);
        while !self.done {
            match self.decoder.take() {
                Ok(None) => break,
                Ok(Some((message, payload))) => self.take(message, &payload)?,
                Err(garbled) => bail!("the VM sent something else than messages: {}", garbled.0),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message, payload: &[u8]) -> Result<()> {
        match message {
            Message::Up { release } => self.release = Some(release),
            Message::Output { stream, .. } => self.output(stream, payload)?,
            Message::Ended(status) => {
                let words = self
                    .waiting
                    .pop()
                    .context("the VM ended a command that it was not given")?;
                self.ended.push(CommandRun {
                    words,
                    status,
                    stdout: std::mem::take(&mut self.stdout),
                    stderr: std::mem::take(&mut self.stderr),
                });
            }
            Message::Failed(reason) => self.failure = Some(reason),
            Message::Done => self.done = true,
        }
        Ok(())
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        let (kept, mut terminal): (_, Box<dyn io::Write>) = match stream {
            Stream::Stdout => (&mut self.stdout, Box::new(io::stdout())),
            Stream::Stderr => (&mut self.stderr, Box::new(io::stderr())),
        };
        kept.extend_from_slice(bytes);
        if self.echo {
            terminal
                .write_all(bytes)
                .and_then(|()| terminal.flush())
                .context("cannot print the VM's output")?;
        }
        Ok(())
    }

    /// Where it stands, for the report of a failure.
    fn progress(&self) -> String {
        match (&self.release, self.waiting.last()) {
            (None, _) => "it did not reach init".to_owned(),
            (Some(_), None) => "all commands had ended".to_owned(),
            (Some(_), Some(words)) => {
                let said = format!(
                    "{}{}",
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.stderr)
                );
                format!("`{}` was running and had written:\n{}", words.join(" "), tail(&said))
            }
        }
    }

    fn finish(self, folder: &Path) -> Result<VmRun> {
        if !self.waiting.is_empty() {
            bail!("the VM finished without running all commands");
        }
        for (index, command) in self.ended.iter().enumerate() {
            for (stream, bytes) in [("stdout", &command.stdout), ("stderr", &command.stderr)] {
                let path = folder.join(format!("{index}.{stream}"));
                fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(VmRun {
            release: self.release.context("the VM did not say which kernel it runs")?,
            commands: self.ended,
            folder: folder.to_owned(),
        })
    }
}

/// The ends of the console and of QEMU's own messages.
fn last_words(machine: &Machine) -> String {
    let console = read_lossily(&machine.console()).unwrap_or_default();
    let qemu = read_lossily(&machine.folder.join("qemu.log")).unwrap_or_default();
    format!("{}\n--- console:\n{}", tail(&qemu), tail(&console))
}

fn read_lossily(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines: enough for a kernel's panic with its call trace.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::protocol::send;
    use super::*;

    fn follow(messages: &[(Message, &[u8])]) -> (Follower, Result<()>) {
        let mut port = tempfile::NamedTempFile::new().unwrap();
        for (message, payload) in messages {
            send(&mut port, message, payload).unwrap();
        }
        let mut follower = Follower::new(vec![vec!["first".to_owned()], vec!["second".to_owned()]], false);
        let result = follower.read(&mut File::open(port.path()).unwrap());
        (follower, result)
    }

    fn output(stream: Stream, bytes: &[u8]) -> (Message, &[u8]) {
        let length = bytes.len();
        (Message::Output { stream, length }, bytes)
    }

    fn up() -> (Message, &'static [u8]) {
        let release = "6.12".to_owned();
        (Message::Up { release }, b"")
    }

    #[test]
    fn output_belongs_to_the_command_that_ends_next() {
        let (follower, result) = follow(&[
            up(),
            output(Stream::Stdout, b"one\n"),
            (Message::Ended(Status::Exited(0)), b""),
            output(Stream::Stderr, b"two\n"),
            output(Stream::Stdout, b"{}"),
            (Message::Ended(Status::Signalled(9)), b""),
            (Message::Done, b""),
        ]);
        result.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = follower.finish(folder.path()).unwrap();
        assert_eq!(run.commands[0].stdout(), "one\n");
        assert_eq!(
            (run.commands[1].stdout(), run.commands[1].stderr()),
            ("{}".to_owned(), "two\n".to_owned())
        );
        let error = run.expect_success().unwrap_err().to_string();
        assert!(error.contains("`second` ended with Signalled(9)"), "{error}");
        assert_eq!(fs::read(folder.path().join("1.stderr")).unwrap(), b"two\n");
    }

    #[test]
    fn a_verdict_without_all_commands_is_a_failure() {
        let (follower, result) = follow(&[up(), (Message::Ended(Status::Exited(0)), b""), (Message::Done, b"")]);
        result.unwrap();
        assert!(follower.done && follower.finish(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn more_ends_than_commands_are_a_failure() {
        let end = || (Message::Ended(Status::Exited(0)), &b""[..]);
        assert!(follow(&[up(), end(), end(), end()]).1.is_err());
    }

    #[test]
    fn progress_names_the_command_that_hangs() {
        let (follower, _) = follow(&[up(), output(Stream::Stdout, b"so far")]);
        let progress = follower.progress();
        assert!(
            progress.contains("`first`") && progress.contains("so far"),
            "{progress}"
        );
    }
}
