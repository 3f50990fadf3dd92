//! A terminal of one's own, in tmux: keys in, screen out.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use xtask::setup;

/// How long a screen may take to show what is expected.
const SHOWN: Duration = Duration::from_secs(30);

/// A tmux server of one's own with one window; killed when dropped.
#[derive(Debug)]
pub struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// Opens a window of this size, and runs a shell command in it.
    ///
    /// # Errors
    /// When there is no tmux.
    pub fn open(size: (u16, u16), command: &str) -> Result<Self> {
        setup::observers()?;
        let this = Self {
            folder: tempfile::tempdir()?,
        };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        this.tmux(&["new-session", "-d", "-x", &width, "-y", &height, command])?;
        Ok(this)
    }

    /// A folder of the window's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.folder.path().join("tmux");
        let output = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(socket)
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .env_remove("TMUX")
            .output()
            .context("cannot run tmux")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Presses keys, by tmux's names.
    ///
    /// # Errors
    /// When the window is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        let arguments: Vec<&str> = ["send-keys"].into_iter().chain(keys.iter().copied()).collect();
        self.tmux(&arguments).map(drop)
    }

    /// What is on the screen, without colours, blanks at the ends of lines taken away.
    ///
    /// # Errors
    /// When the window is gone.
    pub fn screen(&self) -> Result<String> {
        let screen = self.tmux(&["capture-pane", "-p"])?;
        Ok(screen.lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }

    /// What is on the screen, with the sequences that colour it.
    ///
    /// # Errors
    /// When the window is gone.
    pub fn colored_screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// A value that tmux knows of the window, such as `alternate_on`.
    ///
    /// # Errors
    /// When the window is gone.
    pub fn value(&self, name: &str) -> Result<String> {
        let value = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")])?;
        Ok(value.trim_end().to_owned())
    }

    /// Gives the window another size.
    ///
    /// # Errors
    /// When the window is gone.
    pub fn resize(&self, size: (u16, u16)) -> Result<()> {
        let (width, height) = (size.0.to_string(), size.1.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]).map(drop)
    }

    /// Waits until the screen is as wanted.
    ///
    /// # Errors
    /// Shows the screen that is there instead.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + SHOWN;
        loop {
            let screen = self.screen()?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("the screen never showed {what}:\n{screen}");
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the screen contains a text.
    ///
    /// # Errors
    /// As [`Tmux::wait`].
    pub fn wait_for(&self, text: &str) -> Result<String> {
        self.wait(text, |screen| screen.contains(text))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Fails only where its window has ended and it with it.
        let _ = self.tmux(&["kill-server"]);
    }
}
