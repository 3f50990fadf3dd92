//! Allocates in the memcg that it was started in, as fast or as slowly as a test wants it.

use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use std::{env, ffi::CString};

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::boot_ns;
use headroom_tests::work::{COMM, WORK};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::sys::prctl::set_name;

const PAGE: usize = 4096;
/// What a thread touches and gives back at a time. Eight of them stay far below what a test may use.
const BATCH: usize = 4 << 20;
/// Time between two steps of growth.
const STEP: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let work = env::var(WORK).with_context(|| format!("set {WORK}"))?;
    if let Ok(comm) = env::var(COMM) {
        set_name(&unhex(&comm)?)?;
    }
    let words: Vec<&str> = work.split_whitespace().collect();
    say("ready")?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Ok(());
    }
    match words.as_slice() {
        ["storm", threads, seconds] => storm(threads.parse()?, Duration::from_secs(seconds.parse()?))?,
        ["grow", rate] => grow(rate.parse()?)?,
        ["cache", file, rate, most, teeth] => cache(file.as_ref(), rate.parse()?, most.parse()?, teeth.parse()?)?,
        _ => bail!("unknown work: {work}"),
    }
    // What was allocated stays until the test has looked at it.
    io::stdin().read_line(&mut line)?;
    Ok(())
}

fn say(line: &str) -> Result<()> {
    println!("{line}");
    io::stdout().flush().context("nobody listens")
}

fn unhex(text: &str) -> Result<CString> {
    let digits: Vec<u8> = text.bytes().collect();
    let bytes: Result<Vec<u8>, _> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16))
        .collect();
    Ok(CString::new(bytes?)?)
}

/// Anonymous memory in small pages, so that a page is a charge.
fn map(length: usize) -> Result<NonNull<std::ffi::c_void>> {
    let size = NonZeroUsize::new(length).context("nothing to map")?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let memory = unsafe {
        mmap_anonymous(
            None,
            size,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        )
    }?;
    // SAFETY: the mapping is ours, and the advice does not change what is in it.
    unsafe { madvise(memory, length, MmapAdvise::MADV_NOHUGEPAGE) }?;
    Ok(memory)
}

/// Writes to each page of `memory` that begins in `from..to`.
fn touch(memory: NonNull<std::ffi::c_void>, from: usize, to: usize) {
    let start = memory.cast::<u8>();
    for offset in (from..to).step_by(PAGE) {
        // SAFETY: the mapping is longer than `offset`, as every caller maps at least `to` bytes.
        let byte = unsafe { start.add(offset) };
        // SAFETY: the byte is mapped, writable, and no other thread knows of it.
        unsafe { byte.write_volatile(1) };
    }
}

fn storm(threads: usize, time: Duration) -> Result<()> {
    let pages = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| batches(&pages, begun + time)))
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
    })?;
    say(&format!(
        "{} {}",
        pages.load(Ordering::Relaxed),
        begun.elapsed().as_nanos()
    ))
}

fn batches(pages: &AtomicU64, deadline: Instant) -> Result<()> {
    let memory = map(BATCH)?;
    while Instant::now() < deadline {
        touch(memory, 0, BATCH);
        // SAFETY: the mapping is ours, and what was in it is not needed any more.
        unsafe { madvise(memory, BATCH, MmapAdvise::MADV_DONTNEED) }?;
        pages.fetch_add((BATCH / PAGE) as u64, Ordering::Relaxed);
    }
    // A quarter stays, so that there is growth to be found at the end.
    touch(memory, 0, BATCH / 4);
    pages.fetch_add((BATCH / 4 / PAGE) as u64, Ordering::Relaxed);
    Ok(())
}

/// Writes a file of `most` MiB again and again. Its page cache is dropped each time, but for the last.
fn cache(file: &Path, mib_per_second: u64, most: u64, teeth: usize) -> Result<()> {
    let block = vec![1; 1 << 20];
    for tooth in 1..=teeth {
        let mut file = File::create(file)?;
        let begun = Instant::now();
        for written in 0..most {
            file.write_all(&block)?;
            let due = Duration::from_millis(1000 * written / mib_per_second);
            sleep(due.saturating_sub(begun.elapsed()));
        }
        // Only clean pages can be dropped.
        file.sync_all()?;
        if tooth < teeth {
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        say(&format!("{} {}", boot_ns(), most << 20))?;
    }
    Ok(())
}

fn grow(mib_per_second: usize) -> Result<()> {
    const MOST: usize = 1 << 30;
    let memory = map(MOST)?;
    let step = (mib_per_second << 20) * 50 / 1000 / PAGE * PAGE;
    ensure!(step > 0, "too slow to be seen");
    let mut held = 0;
    while held + step <= MOST {
        touch(memory, held, held + step);
        held += step;
        say(&format!("{} {held}", boot_ns()))?;
        sleep(STEP);
    }
    Ok(())
}
