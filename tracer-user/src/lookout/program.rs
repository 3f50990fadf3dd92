//! The command that an operator wants run at each alert.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};

use super::variables::Variables;
use crate::cli::protect;

/// Where programs are looked for without PATH.
///
/// glibc: `confstr(_CS_PATH)`, which execvp uses then.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Runs the command where the operator asked for a shell.
const SHELL: &str = "/bin/sh";

/// Why there is no such command.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProgramError {
    /// It cannot be split into words.
    #[error("a quotation mark is not closed in: {0}")]
    Quotes(String),
    /// It has no words.
    #[error("the command is empty")]
    Empty,
    /// The first word is not a program.
    #[error("no program '{0}' is here that can be run")]
    NotFound(String),
}

/// A program, its arguments, and how long it may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    /// It is killed after this time.
    pub limit: Duration,
}

impl Program {
    /// A command line, split into words at spaces outside of quotation marks. No shell sees it.
    ///
    /// # Errors
    /// When it is none, or when there is no such program: it is better to know that before the first alert.
    pub fn of_words(line: &str, limit: Duration) -> Result<Self, ProgramError> {
        let words = shlex::split(line).ok_or_else(|| ProgramError::Quotes(line.to_owned()))?;
        let mut words = words.into_iter();
        let name = words
            .next()
            .filter(|name| !name.is_empty())
            .ok_or(ProgramError::Empty)?;
        Ok(Self {
            path: find(&name).ok_or(ProgramError::NotFound(name))?,
            arguments: words.collect(),
            limit,
        })
    }

    /// A line for the shell.
    #[must_use]
    pub fn of_shell(line: &str, limit: Duration) -> Self {
        Self {
            path: SHELL.into(),
            arguments: vec!["-c".to_owned(), line.to_owned()],
            limit,
        }
    }

    /// What starts it: in a process group of its own, no more protected from the OOM killer than others.
    pub(super) fn command(&self, variables: Variables) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(stderr())
            .process_group(0);
        protect::not(&mut command);
        die_with_us(&mut command);
        command
    }
}

/// Has the kernel kill it when the thread that minds it is gone: a tracer that is killed leaves nothing behind that has no
/// time limit. A program that gained privileges when it starts would be let off (kernel: kernel/cred.c `commit_creds`).
fn die_with_us(command: &mut Command) {
    let bind = || {
        prctl::set_no_new_privs()?;
        Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
    };
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe; nothing allocates.
    unsafe {
        command.pre_exec(bind);
    }
}

/// Standard output is for findings: what the command says joins what we say.
fn stderr() -> Stdio {
    use std::os::fd::AsFd as _;
    std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map_or_else(|_| Stdio::null(), Stdio::from)
}

/// A program by its path, or by its name along PATH.
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| runs(path));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| runs(path))
}

fn runs(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn words_are_split_and_nothing_is_expanded() {
        let program = Program::of_words(r#"sh -c 'echo $HOME' "a b" $(reboot) *"#, LIMIT).unwrap();
        assert!(program.path.ends_with("sh") && program.path.is_absolute());
        assert_eq!(program.arguments, ["-c", "echo $HOME", "a b", "$(reboot)", "*"]);
    }

    #[test]
    fn what_cannot_run_is_told() {
        assert_eq!(Program::of_words("  ", LIMIT), Err(ProgramError::Empty));
        assert!(matches!(
            Program::of_words("sh 'x", LIMIT),
            Err(ProgramError::Quotes(_))
        ));
        for missing in ["no-such-program-here", "/etc/passwd", "/etc", "./x y"] {
            assert!(
                matches!(Program::of_words(missing, LIMIT), Err(ProgramError::NotFound(_))),
                "{missing}"
            );
        }
    }
}
