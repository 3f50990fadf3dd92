//! Page cache of files on a disk.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::ExitStatus;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::Workload;
use crate::memory::MIB;
use crate::stage::{Stage, set, standstill};

/// Where caches are dropped.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Written and read; given up in part, and then as a whole when nobody is left.
pub struct File;

/// What a file system keeps of its own in the page cache: directories, bitmaps, inodes.
const METADATA: usize = MIB / 2;

impl Workload for File {
    fn act(&self) -> Result<()> {
        let written = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open("written")?;
        let mut chunk = vec![1; MIB];
        for offset in (0..24 * MIB).step_by(MIB) {
            written.write_all_at(&chunk, offset as u64)?;
        }
        written.sync_all()?;
        let mut read = fs::File::open("there")?;
        let mut length = 0;
        loop {
            match read.read(&mut chunk)? {
                0 => break,
                more => length += more,
            }
        }
        ensure!(length == 16 * MIB, "{length} bytes read");
        standstill("held", &[])?;
        // SAFETY: the descriptor is open; nothing is read or written by the call.
        let result = unsafe { libc::posix_fadvise(written.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(result == 0, "fadvise: {}", Errno::from_raw(result));
        standstill("half given up", &[])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        fs::write(stage.folder.join("there"), vec![1; 16 * MIB])?;
        nix::unistd::sync();
        set(DROP_CACHES, "3")?;
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        let expected = match phase {
            "held" => 40 * MIB,
            _ => 16 * MIB,
        };
        let got = stage.last().and_then(|phase| phase.recorded.get("file")).copied();
        let got = u64::try_from(got.context("no page cache")?)?;
        let ok = (expected..=expected + METADATA).contains(&usize::try_from(got)?);
        stage.check(headroom_tests::conserve::Check {
            name: format!("{phase}: file by the actor"),
            expected: format!("{expected} and up to {METADATA} of the file system"),
            got: got.to_string(),
            ok,
        });
        Ok(())
    }

    fn ended(&mut self, stage: &mut Stage, status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "the actor failed: {status}");
        set(DROP_CACHES, "3")?;
        stage.compare("dropped from outside", &BTreeMap::new())
    }
}
