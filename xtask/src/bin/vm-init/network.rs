//! The loopback interface: sockets of tests need one.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};

/// Brings `lo` up.
pub fn loopback_up() -> Result<()> {
    // Any socket can carry the request.
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    // SAFETY: all zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte.cast_signed();
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(up).context("interface flags are 16 bits wide")?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a name and flags, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot bring lo up");
    }
    Ok(())
}
