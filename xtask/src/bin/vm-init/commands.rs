//! Running a command of the plan, with its output sent to the host as it comes.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use xtask::vm::protocol::{Message, Status, Stream};

use crate::port::Port;

/// Runs a command to its end, and ends everything that it left running.
pub fn run(words: &[String], environment: &[(String, String)], port: &Port) -> Result<Status> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(Status::NotStarted("the command line is empty".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs([
            ("PATH", "/bin:/usr/bin:/usr/local/bin:/sbin:/usr/sbin"),
            ("HOME", "/tmp"),
            ("RUST_BACKTRACE", "1"),
        ])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Status::NotStarted(error.to_string())),
    };
    let stdout = child.stdout.take().context("standard output is piped")?;
    let stderr = child.stderr.take().context("standard error is piped")?;
    thread::scope(|scope| {
        let copies = [
            scope.spawn(|| copy(stdout, Stream::Stdout, port)),
            scope.spawn(|| copy(stderr, Stream::Stderr, port)),
        ];
        let status = child.wait().context("cannot wait for the command")?;
        // Copying ends when nobody holds the pipes any more.
        end_all_others();
        for copy in copies {
            copy.join().map_err(|_| anyhow::anyhow!("copying output panicked"))??;
        }
        Ok(self::status(status))
    })
}

fn copy(mut from: impl Read, stream: Stream, port: &Port) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = from.read(&mut buffer).context("cannot read the command's output")?;
        if length == 0 {
            return Ok(());
        }
        port.send_with(&Message::Output { stream, length }, &buffer[..length])?;
    }
}

fn status(status: ExitStatus) -> Status {
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Exited(code),
        (None, signal) => Status::Signalled(signal.unwrap_or_default()),
    }
}

/// Kills every process but this one, and reaps them: orphans become children of the first process.
fn end_all_others() {
    // Fails only where there is nobody to kill.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
