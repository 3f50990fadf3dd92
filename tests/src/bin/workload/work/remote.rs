//! Charges by somebody else: a process outside, page cache that others brought, a worker of the kernel.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Event;
use headroom_tests::conserve::figures::threads_named;
use headroom_tests::conserve::{Check, Sums};
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use nix::unistd::gettid;
use tracer_common::Kind;

use super::Workload;
use crate::memory::{MIB, Pages};
use crate::stage::{Stage, signed, standstill};

const SIZE: usize = 16 * MIB;
/// Where the actor leaves the address of its memory.
const ADDRESS: &str = "address";
/// What the process outside brings into the page cache.
const FOREIGN: &str = "foreign";

/// Memory that a process of another memcg fills: charged here, by a thread that is not of here. And page cache that it
/// brought: charged there, whoever reads it here.
pub struct Remote;

impl Workload for Remote {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(SIZE)?;
        fs::write(ADDRESS, pages.address().to_string())?;
        standstill("mapped", &[("anon", 0)])?;
        let file = OpenOptions::new().read(true).write(true).open(FOREIGN)?;
        let foreign = Pages::shared(&file, SIZE)?;
        foreign.touch(0..SIZE);
        ensure!(fs::read(FOREIGN)?.len() == SIZE, "the file is short");
        standstill("foreign page cache used", &[("anon", SIZE)])
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        let cached = stage
            .last()
            .and_then(|phase| phase.recorded.get("file"))
            .copied()
            .unwrap_or(0);
        if phase == "mapped" {
            let address = fs::read_to_string(stage.folder.join(ADDRESS))?.parse()?;
            write_to(stage.actor, address)?;
            fs::write(stage.folder.join(FOREIGN), vec![1; SIZE])?;
            return stage.compare(
                "written from outside",
                &BTreeMap::from([("anon".to_owned(), SIZE as u64)]),
            );
        }
        // The file system's own pages apart.
        stage.check(Check::bytes(
            "page cache of others".to_owned(),
            0,
            cached,
            signed(MIB as u64 / 2),
        ));
        Ok(())
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let this = u32::try_from(gettid().as_raw())?;
        let by = Sums::of(events).charged_by(&HashSet::from([this]), Kind::Anon);
        stage.check(Check::bytes(
            "charged by the thread outside".to_owned(),
            signed(SIZE as u64),
            signed(by),
            0,
        ));
        Ok(())
    }
}

/// Writes to another process's memory.
fn write_to(pid: u32, address: usize) -> Result<()> {
    let content = vec![1_u8; SIZE];
    let local = libc::iovec {
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: SIZE,
    };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(address),
        iov_len: SIZE,
    };
    let pid = i32::try_from(pid)?;
    // SAFETY: the local vector describes `content`, which is only read; the remote one is the other process's affair.
    let written = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    let written = Errno::result(written).context("cannot write to the actor's memory")?;
    ensure!(usize::try_from(written)? == SIZE, "only {written} bytes written");
    Ok(())
}

/// Page cache that workers of an io_uring write for their owner.
pub struct Ring;

impl Workload for Ring {
    fn act(&self) -> Result<()> {
        const CHUNK: usize = 64 * 1024;
        let file = OpenOptions::new().create_new(true).write(true).open("written")?;
        let mut ring = IoUring::new(8)?;
        let chunk = vec![1_u8; CHUNK];
        standstill("before", &[])?;
        for offset in (0..SIZE).step_by(CHUNK) {
            let write = opcode::Write::new(types::Fd(file.as_raw_fd()), chunk.as_ptr(), u32::try_from(CHUNK)?)
                .offset(offset as u64)
                .build()
                // Never at once: by a worker.
                .flags(squeue::Flags::ASYNC);
            // SAFETY: file and buffer outlive the request, which is waited for below.
            unsafe { ring.submission().push(&write) }?;
            ring.submit_and_wait(1)?;
            let done = ring.completion().next().context("no completion")?;
            ensure!(
                usize::try_from(done.result())? == CHUNK,
                "write failed: {}",
                done.result()
            );
        }
        file.sync_all()?;
        standstill("written", &[])
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        // kernel: fs/io-wq.c, threads of the process from 5.12 on, kernel threads before.
        let mut workers = threads_named(events, "iou-wrk");
        workers.extend(threads_named(events, "io_wqe_worker"));
        let by = Sums::of(events).charged_by(&workers, Kind::File);
        stage.check(Check::at_least(
            "page cache charged by workers".to_owned(),
            SIZE as u64,
            by,
        ));
        Ok(())
    }
}
