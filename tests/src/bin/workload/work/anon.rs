//! Private anonymous memory: small pages, huge pages, copy-on-write after a fork, the exit of a large process.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe, read};

use super::Workload;
use crate::memory::{MIB, Pages, thread};
use crate::stage::{Setting, Stage, standstill};

/// Whether anonymous memory gets huge pages at all.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// 4 KiB pages.
pub struct Small;

impl Workload for Small {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(40 * MIB)?;
        pages.touch(0..40 * MIB);
        standstill("held", &[("anon", 40 * MIB)])?;
        pages.give_back(0..20 * MIB)?;
        standstill("half given back", &[("anon", 20 * MIB)])?;
        pages.touch(0..10 * MIB);
        drop(pages);
        standstill("unmapped", &[("anon", 0)])
    }
}

/// Transparent huge pages.
pub struct Huge;

impl Workload for Huge {
    fn act(&self) -> Result<()> {
        let pages = Pages::huge(40 * MIB)?;
        pages.touch(0..40 * MIB);
        ensure!(pages.in_huge_pages()? == 40 * MIB as u64, "no huge pages");
        standstill("held", &[("anon", 40 * MIB)])?;
        pages.give_back(0..20 * MIB)?;
        standstill("half given back", &[("anon", 20 * MIB)])?;
        // Mapped as small pages, still a huge page below: in use as a whole.
        pages.advise(20 * MIB..21 * MIB, libc::MADV_NOHUGEPAGE)?;
        let half = pages.in_huge_pages()?;
        ensure!(half < 20 * MIB as u64, "the huge page's mapping was not split: {half}");
        standstill("mapping split", &[("anon", 20 * MIB)])
    }
}

/// The same with transparent huge pages switched off.
#[derive(Default)]
pub struct HugeForbidden {
    off: Option<Setting>,
}

impl Workload for HugeForbidden {
    fn act(&self) -> Result<()> {
        let pages = Pages::huge(24 * MIB)?;
        pages.touch(0..24 * MIB);
        ensure!(pages.in_huge_pages()? == 0, "huge pages are not off");
        standstill("held", &[("anon", 24 * MIB)])?;
        pages.give_back(0..12 * MIB)?;
        standstill("half given back", &[("anon", 12 * MIB)])
    }

    fn prepare(&mut self, _stage: &mut Stage) -> Result<Option<String>> {
        let all = fs::read_to_string(ENABLED)?;
        let chosen = all.split(['[', ']']).nth(1).context("one of them is chosen")?;
        self.off = Some(Setting::until_dropped(ENABLED, "never", chosen)?);
        Ok(None)
    }
}

/// Copy-on-write: a child writes to half of what it shares with its parent, and ends.
pub struct Fork;

impl Workload for Fork {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(24 * MIB)?;
        pages.touch(0..24 * MIB);
        standstill("before", &[("anon", 24 * MIB)])?;
        let (copied, copies) = pipe()?;
        let (end, ends) = pipe()?;
        // SAFETY: this program has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(ends);
                pages.touch(0..12 * MIB);
                drop(copies);
                // Until the parent is done comparing.
                let _ = read(&end, &mut [0]);
                std::process::exit(0);
            }
            ForkResult::Parent { child } => {
                drop(copies);
                read(&copied, &mut [0])?;
                standstill("half copied", &[("anon", 36 * MIB)])?;
                pages.touch(12 * MIB..18 * MIB);
                standstill("parent copied", &[("anon", 42 * MIB)])?;
                drop(ends);
                ensure!(
                    matches!(waitpid(child, None)?, WaitStatus::Exited(_, 0)),
                    "the child failed"
                );
            }
        }
        standstill("child gone", &[("anon", 24 * MIB)])
    }
}

/// The exit of a process with 1 GiB, of which two threads touched half each.
pub struct Exit;

impl Workload for Exit {
    fn act(&self) -> Result<()> {
        let pages = [Pages::small(512 * MIB)?, Pages::huge(512 * MIB)?].map(Shared);
        std::thread::scope(|scope| {
            for part in &pages {
                thread().spawn_scoped(scope, move || part.0.touch(0..512 * MIB))?;
            }
            Ok::<_, std::io::Error>(())
        })?;
        standstill("held", &[("anon", 1024 * MIB)])?;
        // It is up to the kernel to give it all back.
        for part in pages {
            std::mem::forget(part);
        }
        Ok(())
    }
}

/// Pages that one thread at a time touches.
struct Shared(Pages);

// SAFETY: touching writes bytes that nobody reads, and each part has one thread.
unsafe impl Sync for Shared {}
