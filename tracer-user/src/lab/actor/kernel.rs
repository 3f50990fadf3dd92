//! Kernel memory on demand: pipes and sockets that nobody reads. What is opened here stays open until the process
//! ends.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

use super::memory::PAGE;

/// Size asked for each pipe and socket buffer: the most that the kernel gives without further ado.
const BUFFER: usize = 1 << 20;

/// Fills pipes with `bytes` in whole pages, telling how much each took.
///
/// # Errors
/// When the kernel gives no more pipes.
pub fn fill_pipes(bytes: u64, mut took: impl FnMut(u64)) -> io::Result<()> {
    raise_file_limit();
    let page = [1_u8; PAGE];
    fill(bytes, &mut took, || {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC)?;
        // A small pipe holds as well, only fewer bytes.
        let _ = fcntl(
            &writer,
            FcntlArg::F_SETPIPE_SZ(i32::try_from(BUFFER).unwrap_or(i32::MAX)),
        );
        mem::forget(reader);
        Ok((File::from(writer), page.as_slice()))
    })
}

/// Fills unix stream sockets.
///
/// # Errors
/// When the kernel gives no more sockets.
pub fn fill_unix_sockets(bytes: u64, mut took: impl FnMut(u64)) -> io::Result<()> {
    raise_file_limit();
    let block = vec![1_u8; 16 * PAGE];
    fill(bytes, &mut took, || {
        let (reader, writer) = UnixStream::pair()?;
        enlarge(&writer);
        writer.set_nonblocking(true)?;
        mem::forget(reader);
        Ok((writer, block.as_slice()))
    })
}

/// Fills TCP connections over the loopback device.
///
/// # Errors
/// When there is no loopback device, or no more sockets.
pub fn fill_tcp_sockets(bytes: u64, mut took: impl FnMut(u64)) -> io::Result<()> {
    raise_file_limit();
    let block = vec![1_u8; 16 * PAGE];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    fill(bytes, &mut took, || {
        let writer = TcpStream::connect(address)?;
        enlarge(&writer);
        writer.set_nonblocking(true)?;
        mem::forget(listener.accept()?);
        Ok((writer, block.as_slice()))
    })
}

/// Opens one after the other and writes blocks to each until it takes no more.
fn fill<'a, W: Write>(
    bytes: u64,
    took: &mut impl FnMut(u64),
    mut open: impl FnMut() -> io::Result<(W, &'a [u8])>,
) -> io::Result<()> {
    let mut total = 0;
    while total < bytes {
        let (mut writer, block) = open()?;
        let mut filled = 0;
        while total + filled < bytes {
            let wanted = usize::try_from(bytes - total - filled)
                .unwrap_or(usize::MAX)
                .min(block.len());
            match writer.write(&block[..wanted]) {
                Ok(written) => filled += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Err(io::Error::other("the kernel takes nothing into a new pipe or socket"));
        }
        total += filled;
        took(filled);
        mem::forget(writer);
    }
    Ok(())
}

/// Asks for a large send buffer: beyond `net.core.wmem_max` where privileged, else as much as that allows.
fn enlarge(socket: &impl AsFd) {
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
}

fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_holds_what_was_asked() {
        const WANTED: u64 = 3 << 20;
        let mut held = [0; 3];
        fill_pipes(WANTED, |bytes| held[0] += bytes).expect("pipes");
        fill_unix_sockets(WANTED, |bytes| held[1] += bytes).expect("unix sockets");
        fill_tcp_sockets(WANTED, |bytes| held[2] += bytes).expect("a loopback device");
        assert_eq!(held, [WANTED; 3]);
    }
}
