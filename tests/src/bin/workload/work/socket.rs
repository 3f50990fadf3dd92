//! Buffers of sockets that nobody reads.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use headroom::recording::event::Event;
use headroom_tests::conserve::Check;
use nix::sys::socket::{setsockopt, sockopt};

use super::Workload;
use crate::memory::MIB;
use crate::stage::{Stage, standstill};

/// TCP over the loopback interface, and a pair of Unix sockets.
pub struct Sockets;

const BUFFER: usize = 4 * MIB;

impl Workload for Sockets {
    fn act(&self) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        setsockopt(&listener, sockopt::RcvBufForce, &BUFFER)?;
        let mut sender = TcpStream::connect(listener.local_addr()?)?;
        let (receiver, _) = listener.accept()?;
        setsockopt(&sender, sockopt::SndBufForce, &BUFFER)?;
        fill(&mut sender)?;
        let (mut left, right) = UnixStream::pair()?;
        setsockopt(&left, sockopt::SndBufForce, &BUFFER)?;
        left.set_nonblocking(true)?;
        fill_unix(&mut left)?;
        standstill("unread", &[])?;
        drop((sender, receiver, listener));
        drop((left, right));
        standstill("closed", &[])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        let apart = "v1 counts socket buffers apart, not in its usage".to_owned();
        Ok((!stage.group.is_v2()).then_some(apart))
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase == "unread" {
            let held = stage.last().and_then(|phase| phase.recorded.get("sock")).copied();
            let held = u64::try_from(held.context("no socket buffers were recorded")?)?;
            stage.check(Check::at_least("buffered".to_owned(), MIB as u64, held));
        }
        Ok(())
    }

    fn finish(&self, _stage: &mut Stage, _events: &[Event]) -> Result<()> {
        Ok(())
    }
}

fn fill(stream: &mut TcpStream) -> Result<()> {
    stream.set_nonblocking(true)?;
    fill_with(|chunk| stream.write(chunk))
}

fn fill_unix(stream: &mut UnixStream) -> Result<()> {
    fill_with(|chunk| stream.write(chunk))
}

/// Writes until there is no room, also not a moment later.
fn fill_with(mut write: impl FnMut(&[u8]) -> std::io::Result<usize>) -> Result<()> {
    let chunk = vec![1; 64 * 1024];
    let mut refused = 0;
    while refused < 5 {
        match write(&chunk) {
            Ok(_) => refused = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
