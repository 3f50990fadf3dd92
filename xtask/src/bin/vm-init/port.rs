//! The serial port to the host.

use std::fs::{File, OpenOptions};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use xtask::vm::protocol::{self, Message};

/// The port, shared by the threads that copy output.
pub struct Port(Mutex<File>);

impl Port {
    /// Opens it for bytes that arrive as they are sent.
    pub fn open() -> Result<Self> {
        let path = protocol::PORT;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {path}"))?;
        let mut settings = tcgetattr(&file).with_context(|| format!("{path} is no terminal"))?;
        cfmakeraw(&mut settings);
        tcsetattr(&file, SetArg::TCSANOW, &settings).with_context(|| format!("cannot set up {path}"))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Sends a message.
    pub fn send(&self, message: &Message) -> Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message with its payload.
    pub fn send_with(&self, message: &Message, payload: &[u8]) -> Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::send(&mut *file, message, payload).context("cannot write to the host")
    }

    /// Waits until all is sent.
    pub fn drain(&self) -> Result<()> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tcdrain(&*file).context("cannot wait for the serial port")
    }
}
