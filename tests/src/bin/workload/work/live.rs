//! What threads hold: told from what they were charged and gave back, also when they are gone, when others give it back,
//! and when pages split, move, are copied or leave the page cache.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Event;
use headroom_tests::conserve::figures::{held_by, threads_named};
use headroom_tests::conserve::{Check, Sums};
use headroom_tests::recording::footer;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe, read};
use tracer_common::Kind;

use super::Workload;
use super::migrate::migrate;
use crate::memory::{HUGE, MIB, PAGE, Pages, thread};
use crate::stage::{Stage, signed, standstill};

/// What a thread needs itself: its stack, and what its first allocations take.
const THREAD: i64 = 256 * 1024;

/// Standstills, with what a thread holds of a kind then.
const HELD: [(&str, &str, Kind, usize); 12] = [
    ("spent", "spender", Kind::Anon, 10 * MIB),
    ("spender gone", "spender", Kind::Anon, 10 * MIB),
    ("given back by another", "spender", Kind::Anon, 6 * MIB),
    ("huge", "splitter", Kind::Anon, 8 * MIB),
    ("split", "splitter", Kind::Anon, 7 * MIB),
    ("moved", "mover", Kind::Anon, 4 * MIB),
    ("moved", "spender", Kind::Anon, 6 * MIB),
    ("copied", "copier", Kind::Anon, 2 * MIB),
    ("copied", "spender", Kind::Anon, 6 * MIB),
    ("copier gone", "copier", Kind::Anon, 0),
    ("cached", "filer", Kind::File, 8 * MIB),
    ("truncated", "sharer", Kind::Shmem, MIB),
];

/// Threads that spend and end, and what others do with what they leave.
pub struct Live;

impl Workload for Live {
    fn act(&self) -> Result<()> {
        let spent = by_thread("spender", || {
            let pages = Pages::small(300 * MIB)?;
            pages.touch(0..300 * MIB);
            pages.give_back(10 * MIB..300 * MIB)?;
            standstill("spent", &[("anon", 10 * MIB)])?;
            Ok(pages)
        })?;
        standstill("spender gone", &[("anon", 10 * MIB)])?;
        spent.give_back(0..4 * MIB)?;
        standstill("given back by another", &[("anon", 6 * MIB)])?;
        split()?;
        let moved = by_thread("mover", || {
            let pages = Pages::small(4 * MIB)?;
            pages.touch(0..4 * MIB);
            Ok(pages)
        })?;
        migrate(0, 1)?;
        migrate(1, 0)?;
        standstill("moved", &[("anon", 10 * MIB)])?;
        drop(moved);
        copy(&spent)?;
        cache()?;
        share()
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        let reason = stage.cannot_follow()?;
        Ok(reason.map(|reason| format!("this backend alone cannot follow pages: {reason}")))
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        let expected: Vec<_> = HELD.iter().filter(|(of, ..)| *of == phase).collect();
        if expected.is_empty() || !stage.follows() {
            return Ok(());
        }
        let events = stage.events()?;
        for (_, name, kind, bytes) in expected {
            let threads = threads_named(&events, name);
            ensure!(!threads.is_empty(), "no thread {name} was charged");
            let held = signed(held_by(&events, &threads, *kind));
            let bytes = i64::try_from(*bytes)?;
            let name = format!("{phase}: {kind} held by {name}");
            stage.check(Check::told(name, bytes, THREAD, held, stage.told_missed));
        }
        Ok(())
    }
}

/// Does something in a thread of this name, to its end.
fn by_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let running = thread().name(name.to_owned()).spawn_scoped(scope, work)?;
        running.join().map_err(|_| anyhow::anyhow!("{name} panicked"))?
    })
}

/// A huge page is split, and half of it given back.
fn split() -> Result<()> {
    let huge = by_thread("splitter", || {
        let pages = Pages::huge(8 * MIB)?;
        pages.touch(0..8 * MIB);
        Ok(pages)
    })?;
    ensure!(huge.in_huge_pages()? == 8 * MIB as u64, "no huge pages");
    standstill("huge", &[("anon", 14 * MIB)])?;
    // What is cold in part is split. kernel: mm/madvise.c madvise_cold_or_pageout_pte_range() (5.4 to 7.3)
    huge.advise(0..HUGE / 2, libc::MADV_COLD)
        .context("cannot make memory cold")?;
    huge.give_back(0..HUGE / 2)?;
    standstill("split", &[("anon", 13 * MIB)])
}

/// A child writes to what it shares, and ends.
fn copy(pages: &Pages) -> Result<()> {
    let (copied, copies) = pipe()?;
    let (end, ends) = pipe()?;
    // SAFETY: this program has one thread by now.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ends);
            nix::sys::prctl::set_name(c"copier")?;
            pages.touch(4 * MIB..6 * MIB);
            drop(copies);
            // Until the parent is done comparing.
            let _ = read(&end, &mut [0]);
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            drop(copies);
            read(&copied, &mut [0])?;
            standstill("copied", &[("anon", 8 * MIB)])?;
            drop(ends);
            let status = waitpid(child, None)?;
            ensure!(matches!(status, WaitStatus::Exited(_, 0)), "the child failed");
        }
    }
    standstill("copier gone", &[("anon", 6 * MIB)])
}

/// Page cache that outlives who wrote it, until it is dropped.
fn cache() -> Result<()> {
    let file = by_thread("filer", || {
        let mut file = OpenOptions::new().create_new(true).write(true).open("filed")?;
        let block = vec![7; MIB];
        for _ in 0..8 {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok(file)
    })?;
    standstill("cached", &[])?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    standstill("dropped", &[])
}

/// Shared memory that is truncated.
fn share() -> Result<()> {
    let file = File::from(memfd_create("shared", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(4 * MIB as u64)?;
    let shared = by_thread("sharer", || {
        let pages = Pages::shared(&file, 4 * MIB)?;
        pages.touch(0..4 * MIB);
        Ok(pages)
    })?;
    standstill("shared", &[("shmem", 4 * MIB)])?;
    file.set_len(MIB as u64)?;
    standstill("truncated", &[("shmem", MIB)])?;
    drop(shared);
    Ok(())
}

/// Pages that there is room to follow in [`Overflow`].
const ROOM: usize = 2048;

/// More pages than there is room to follow: those that are not are told.
pub struct Overflow;

impl Workload for Overflow {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(40 * MIB)?;
        pages.touch(0..40 * MIB);
        standstill("held", &[("anon", 40 * MIB)])?;
        pages.give_back(0..40 * MIB)?;
        pages.touch(0..4 * MIB);
        standstill("again", &[("anon", 4 * MIB)])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        let reason = stage.cannot_follow()?;
        Ok(reason.map(|reason| format!("this backend alone cannot follow pages: {reason}")))
    }

    fn options(&self) -> &'static [&'static str] {
        &["--live-room", "2048"]
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if !stage.follows() {
            return Ok(());
        }
        let sums = Sums::of(&stage.events()?);
        let held: i64 = sums.live.values().sum();
        let room = i64::try_from(ROOM * PAGE)?;
        let (least, most) = match phase {
            // A hash table that is filled in advance may have a few entries per CPU beyond.
            "held" => (room / 10 * 9, room / 10 * 11),
            _ => (i64::try_from(4 * MIB)?, room / 10 * 11),
        };
        stage.check(Check {
            name: format!("{phase}: followed"),
            expected: format!("{least} to {most}"),
            got: held.to_string(),
            ok: (least..=most).contains(&held),
        });
        if phase == "held" {
            let all: i64 = [
                Kind::Anon,
                Kind::File,
                Kind::Shmem,
                Kind::Kmem,
                Kind::Pagetable,
                Kind::KernelStack,
            ]
            .iter()
            .map(|kind| sums.of_kind(*kind))
            .sum();
            let told = held + signed(sums.not_followed);
            stage.check(Check::at_least(
                "held: followed or told not to be".to_owned(),
                u64::try_from(all)?,
                u64::try_from(told)?,
            ));
        }
        Ok(())
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        if stage.follows() {
            let told = signed(Sums::of(events).not_followed);
            let lost = signed(footer(events)?.loss.not_followed);
            stage.check(Check::bytes("not followed, by account".to_owned(), lost, told, 0));
            stage.check(Check::at_least(
                "not followed".to_owned(),
                30 * MIB as u64,
                footer(events)?.loss.not_followed,
            ));
        }
        Ok(())
    }
}
