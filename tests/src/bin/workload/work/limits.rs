//! Limits: throttling, reclaim, and the kill of a whole group.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use anyhow::{Result, ensure};
use headroom::recording::event::{Body, Event};
use headroom_tests::conserve::Check;
use nix::unistd::{ForkResult, fork};

use super::Workload;
use crate::memory::{MIB, Pages};
use crate::stage::{Stage, standstill};

/// More page cache than `memory.high` lets grow: its writer reclaims, and is slowed down.
pub struct High;

/// Writes a file that is larger than what may be kept of it.
fn write_much() -> Result<()> {
    let file = OpenOptions::new().create_new(true).write(true).open("much")?;
    let chunk = vec![1; MIB];
    for offset in (0..64 * MIB).step_by(MIB) {
        file.write_all_at(&chunk, offset as u64)?;
        if offset % (8 * MIB) == 0 {
            // Only what has been written down can be given up.
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    standstill("written", &[])
}

impl Workload for High {
    fn act(&self) -> Result<()> {
        write_much()
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        if !stage.group.is_v2() {
            return Ok(Some("v1 has no memory.high".to_owned()));
        }
        stage.group.write("memory.high", &(24 * MIB).to_string())?;
        Ok(None)
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let high = stage.group.count("memory.events", "high")?;
        stage.check(Check::at_least("times above memory.high".to_owned(), 1, high));
        reclaimed(stage, events);
        Ok(())
    }
}

/// The same under a hard limit.
pub struct Limit;

impl Workload for Limit {
    fn act(&self) -> Result<()> {
        write_much()
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        limit(stage, 24 * MIB)?;
        Ok(None)
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let hits = if stage.group.is_v2() {
            stage.group.count("memory.events", "max")?
        } else {
            stage.group.read("memory.failcnt")?.trim().parse()?
        };
        stage.check(Check::at_least("times at the limit".to_owned(), 1, hits));
        reclaimed(stage, events);
        Ok(())
    }
}

fn limit(stage: &Stage, bytes: usize) -> Result<()> {
    let file = if stage.group.is_v2() {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    stage.group.write(file, &bytes.to_string())
}

/// What a thread spent reclaiming has been recorded.
fn reclaimed(stage: &mut Stage, events: &[Event]) {
    let pages = events.iter().map(|event| match &event.body {
        Body::Reclaim(reclaim) => reclaim.pages,
        _ => 0,
    });
    // Two thirds of the file had to go.
    let least = (40 * MIB / 2 / 4096) as u64;
    stage.check(Check::at_least(
        "pages reclaimed by charges".to_owned(),
        least,
        pages.sum(),
    ));
}

/// Two processes above their limit, which are killed together.
pub struct OomGroup;

impl Workload for OomGroup {
    fn act(&self) -> Result<()> {
        let mine = Pages::small(80 * MIB)?;
        // SAFETY: this program has one thread.
        if let ForkResult::Child = unsafe { fork() }? {
            let other = Pages::small(8 * MIB)?;
            other.touch(0..8 * MIB);
            loop {
                std::thread::park();
            }
        }
        mine.touch(0..16 * MIB);
        standstill("held", &[("anon", 24 * MIB)])?;
        mine.touch(16 * MIB..80 * MIB);
        anyhow::bail!("there was no kill")
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        if !stage.group.is_v2() {
            return Ok(Some("v1 has no memory.oom.group".to_owned()));
        }
        stage.group.write("memory.oom.group", "1")?;
        limit(stage, 48 * MIB)?;
        Ok(None)
    }

    fn ended(&mut self, stage: &mut Stage, status: ExitStatus) -> Result<()> {
        ensure!(status.signal() == Some(libc::SIGKILL), "not killed: {status}");
        let killed = stage.group.count("memory.events", "oom_kill")?;
        stage.check(Check::at_least("killed".to_owned(), 2, killed));
        let left = stage.group.read("cgroup.procs")?;
        ensure!(left.is_empty(), "not all of the group was killed: {left}");
        Ok(())
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let kills = events.iter().filter(|event| matches!(event.body, Body::Oom(_))).count();
        stage.check(Check::at_least("kills recorded".to_owned(), 1, kills as u64));
        Ok(())
    }
}
