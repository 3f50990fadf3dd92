//! Messages to whoever started us, who may not listen: a recorder must outlive a full disk behind its standard error, a
//! pipe that nobody empties, and a terminal that was stopped.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A line that is longer may fill a pipe that just had room.
///
/// kernel: a pipe is ready for writing while PIPE_BUF bytes have room (fs/pipe.c `pipe_poll`).
const LONGEST: usize = 4096;

/// Whether whatever is behind the descriptor takes a line without making us wait.
pub fn takes(descriptor: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Says a line on standard error, if somebody takes it.
pub fn say(line: impl Display) {
    // Nobody to tell is no reason to stop.
    let _ = Stderr.write_all(format!("headroom: {line}\n").as_bytes());
}

/// Standard error that never makes us wait and never fails: what it does not take is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let line = &bytes[..bytes.len().min(LONGEST)];
        if takes(&stderr) {
            let _ = stderr.lock().write_all(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
