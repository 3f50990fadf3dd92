//! Kernel memory: page tables, pipes, threads, files.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::Result;
use headroom_tests::conserve::Check;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::pipe;

use super::Workload;
use crate::memory::{self, HUGE, MIB, PAGE, Pages};
use crate::stage::{Stage, standstill};

const PIPES: usize = 32;
/// Bytes in each pipe.
const FILLED: usize = 256 * 1024;
/// A page table maps this much.
const SPAN: usize = 512 * MIB;
const THREADS: usize = 64;

/// All at once, and then none of it.
pub struct KernelMemory;

impl Workload for KernelMemory {
    fn act(&self) -> Result<()> {
        let pipes: Vec<(OwnedFd, OwnedFd)> = (0..PIPES).map(|_| filled_pipe()).collect::<Result<_>>()?;
        let sparse = Pages::small(SPAN)?;
        for offset in (0..SPAN).step_by(HUGE) {
            sparse.touch(offset..offset + PAGE);
        }
        let (end, ends) = pipe()?;
        let ends = File::from(ends);
        thread::scope(|scope| -> Result<()> {
            for _ in 0..THREADS {
                memory::thread().spawn_scoped(scope, || nix::unistd::read(&end, &mut [0]))?;
            }
            standstill("held", &[])?;
            (&ends).write_all(&[0; THREADS])?;
            Ok(())
        })?;
        drop(pipes);
        drop(sparse);
        standstill("given back", &[])
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase == "held" {
            let recorded = stage.last().map(|phase| phase.recorded.clone()).unwrap_or_default();
            let user = ["anon", "file", "shmem", "sock", "hugetlb"];
            let kernel = recorded.iter().filter(|(kind, _)| !user.contains(&kind.as_str()));
            let kernel: i64 = kernel.map(|(_, net)| net).sum();
            // The pipes' content, the page tables, and a stack of four pages for each thread.
            let least = PIPES * FILLED + SPAN / HUGE * PAGE + THREADS * 4 * PAGE;
            stage.check(Check::at_least(
                "kernel memory".to_owned(),
                least as u64,
                u64::try_from(kernel)?,
            ));
        }
        Ok(())
    }
}

fn filled_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(i32::try_from(FILLED)?))?;
    nix::unistd::write(&writer, &vec![1; FILLED])?;
    Ok((reader, writer))
}
