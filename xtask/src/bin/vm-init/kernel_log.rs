//! The kernel's own log goes home with the results: the console has only its severe part.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use xtask::vm::protocol::RESULTS;

/// Writes all of `/dev/kmsg` to `kernel.log`.
pub fn save() -> Result<()> {
    let mut source = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("cannot open /dev/kmsg")?;
    let mut log = Vec::new();
    // One read gives one record; records are at most this long (kernel: kernel/printk/internal.h).
    let mut record = [0; 8192];
    loop {
        match source.read(&mut record) {
            Ok(length) => log.extend_from_slice(&record[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Overwritten while reading; the next read continues with what there is.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error).context("cannot read /dev/kmsg"),
        }
    }
    fs::write(Path::new(RESULTS).join("kernel.log"), log).context("cannot save the kernel's log")
}
