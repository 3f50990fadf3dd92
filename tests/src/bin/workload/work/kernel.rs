//! Kernel memory: page tables, pipes, threads, files.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::Result;
use headroom_tests::conserve::Check;
use headroom_tests::conserve::settle::stat_is_off_by;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{dup2_raw, pipe};
use tracer_common::Kind;

use super::Workload;
use crate::memory::{self, HUGE, MIB, PAGE, Pages};
use crate::stage::{Stage, standstill};

const PIPES: usize = 32;
/// Bytes in each pipe.
const FILLED: usize = 256 * 1024;
/// A page table maps this much.
const SPAN: usize = 512 * MIB;
const THREADS: usize = 64;
/// As many files as a process may have. Their table is too large for anything but vmalloc.
const FILES: usize = 1 << 20;
const FILE_TABLE: usize = FILES * size_of::<usize>();

/// All at once, and then none of it.
pub struct KernelMemory;

impl Workload for KernelMemory {
    fn act(&self) -> Result<()> {
        let pipes: Vec<(OwnedFd, OwnedFd)> = (0..PIPES).map(|_| filled_pipe()).collect::<Result<_>>()?;
        let sparse = Pages::small(SPAN)?;
        for offset in (0..SPAN).step_by(HUGE) {
            sparse.touch(offset..offset + PAGE);
        }
        setrlimit(Resource::RLIMIT_NOFILE, FILES as u64, FILES as u64)?;
        // SAFETY: nobody has a descriptor of this number.
        let last = unsafe { dup2_raw(std::io::stdin(), i32::try_from(FILES)? - 1) }?;
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
        drop((pipes, sparse, last));
        standstill("given back", &[])
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase == "held" {
            let recorded = stage.last().map(|phase| phase.recorded.clone()).unwrap_or_default();
            check_kinds(stage)?;
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

/// What the actor had the kernel make is there, by the kernel's own figures, with which the records have been compared.
fn check_kinds(stage: &mut Stage) -> Result<()> {
    let shown = stage.last().map(|phase| phase.kernel.clone()).unwrap_or_default();
    for (kind, least) in [
        (Kind::Pagetable, SPAN / HUGE * PAGE),
        (Kind::KernelStack, THREADS * 4 * PAGE),
        (Kind::Vmalloc, FILE_TABLE),
    ] {
        if let Some(bytes) = shown.get(kind.as_str()) {
            let least = (least as u64).saturating_sub(stat_is_off_by()?);
            stage.check(Check::at_least(format!("held: {kind} there is"), least, *bytes));
        }
    }
    Ok(())
}

fn filled_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(i32::try_from(FILLED)?))?;
    nix::unistd::write(&writer, &vec![1; FILLED])?;
    Ok((reader, writer))
}
