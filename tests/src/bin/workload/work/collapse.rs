//! Small pages that become huge ones: on demand, and by khugepaged.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headroom::recording::event::Event;
use headroom_tests::PATIENCE;
use headroom_tests::conserve::figures::threads_named;
use headroom_tests::conserve::{Check, Sums};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tracer_common::Kind;

use super::Workload;
use crate::memory::{HUGE, MADV_COLLAPSE, MIB, Pages};
use crate::stage::{Stage, set, standstill};

const SIZE: usize = 16 * MIB;
const KHUGEPAGED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged";

/// Collapsed by `madvise`, in the thread that asks.
pub struct Advised;

impl Workload for Advised {
    fn act(&self) -> Result<()> {
        let pages = Pages::aligned(SIZE)?;
        pages.touch(0..SIZE);
        ensure!(pages.in_huge_pages()? == 0, "huge from the start");
        standstill("small", &[("anon", SIZE)])?;
        pages.advise(0..SIZE, libc::MADV_HUGEPAGE)?;
        pages.advise(0..SIZE, MADV_COLLAPSE).context("cannot collapse")?;
        ensure!(pages.in_huge_pages()? == SIZE as u64, "not collapsed");
        standstill("collapsed", &[("anon", SIZE)])?;
        // Two of three pages of a huge page are enough: the rest is charged by the collapse.
        let holes = Pages::aligned(SIZE)?;
        for huge in (0..SIZE).step_by(HUGE) {
            holes.touch(huge..huge + HUGE / 2);
        }
        standstill("half of each", &[("anon", SIZE + SIZE / 2)])?;
        holes.advise(0..SIZE, libc::MADV_HUGEPAGE)?;
        holes.advise(0..SIZE, MADV_COLLAPSE).context("cannot collapse")?;
        standstill("filled up", &[("anon", 2 * SIZE)])?;
        let memfd = fs::File::from(memfd_create("workload", MFdFlags::MFD_CLOEXEC)?);
        memfd.set_len(SIZE as u64)?;
        let shared = Pages::shared(&memfd, SIZE)?;
        shared.touch(0..SIZE);
        // Shared memory can be collapsed where its address happens to be right; where not, it stays as it is.
        let said = shared.advise(0..SIZE, MADV_COLLAPSE);
        eprintln!(
            "workload: collapse of shared memory: {said:?}, {} huge",
            shared.in_huge_pages()?
        );
        standstill("shared", &[("anon", 2 * SIZE), ("shmem", SIZE)])
    }

    fn prepare(&mut self, _stage: &mut Stage) -> Result<Option<String>> {
        let trial = Pages::aligned(HUGE)?;
        trial.touch(0..HUGE);
        trial.advise(0..HUGE, libc::MADV_HUGEPAGE)?;
        match trial.advise(0..HUGE, MADV_COLLAPSE) {
            Err(Errno::EINVAL) => Ok(Some("this kernel has no MADV_COLLAPSE".to_owned())),
            _ => Ok(None),
        }
    }
}

/// Collapsed by the kernel's own thread, on the memcg's behalf.
pub struct Khugepaged;

impl Workload for Khugepaged {
    fn act(&self) -> Result<()> {
        let pages = Pages::aligned(SIZE)?;
        for huge in (0..SIZE).step_by(HUGE) {
            pages.touch(huge..huge + HUGE / 2);
        }
        standstill("small", &[("anon", SIZE / 2)])?;
        pages.advise(0..SIZE, libc::MADV_HUGEPAGE)?;
        let begun = Instant::now();
        while pages.in_huge_pages()? < SIZE as u64 {
            if begun.elapsed() > PATIENCE {
                bail!("khugepaged does not come: {} huge", pages.in_huge_pages()?);
            }
            sleep(Duration::from_millis(50));
        }
        standstill("collapsed", &[("anon", SIZE)])
    }

    fn after(&mut self, _stage: &mut Stage, phase: &str) -> Result<()> {
        match phase {
            "small" => wake_khugepaged("4096", "10"),
            // Nor is it to come to the workloads after this one.
            _ => wake_khugepaged("0", "3600000"),
        }
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let by = Sums::of(events).charged_by(&threads_named(events, "khugepaged"), Kind::Anon);
        stage.check(Check::at_least("charged by khugepaged".to_owned(), SIZE as u64, by));
        Ok(())
    }
}

/// Sets how many pages khugepaged looks at before it sleeps, and how long. It is awake from the second write on.
fn wake_khugepaged(pages: &str, sleep_ms: &str) -> Result<()> {
    if pages != "0" {
        set(format!("{KHUGEPAGED}/pages_to_scan"), pages)?;
    }
    set(format!("{KHUGEPAGED}/alloc_sleep_millisecs"), "10")?;
    set(format!("{KHUGEPAGED}/scan_sleep_millisecs"), sleep_ms)
}
