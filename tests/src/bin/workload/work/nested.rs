//! Groups below the recorded one: one that was there, and one that comes later.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use headroom::recording::event::Event;
use headroom_tests::conserve::{Check, Sums};
use nix::unistd::{ForkResult, fork, pipe, read};
use tracer_common::Kind;

use super::Workload;
use crate::memory::{MIB, Pages};
use crate::stage::{Stage, signed, standstill};

/// How long a new group may take to be noticed.
const NOTICED: Duration = Duration::from_secs(3);

/// What a group takes for its counters at least, bytes.
const COUNTERS: u64 = 1024;

/// Three processes in three groups.
#[derive(Default)]
pub struct Nested {
    /// Per-CPU memory before the third group.
    percpu: Option<i64>,
}

/// Per-CPU memory at the last standstill.
fn per_cpu(stage: &Stage) -> Option<i64> {
    stage.last()?.recorded.get(Kind::Percpu.as_str()).copied()
}

impl Workload for Nested {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(8 * MIB)?;
        pages.touch(0..8 * MIB);
        in_group("inner", 16 * MIB)?;
        standstill("two groups", &[("anon", 24 * MIB)])?;
        in_group("late", 4 * MIB)?;
        standstill("three groups", &[("anon", 28 * MIB)])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        stage.below = vec![stage.group.child("outer")?, stage.group.child("inner")?];
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase == "two groups" {
            self.percpu = per_cpu(stage);
            stage.below.push(stage.group.child("late")?);
            sleep(NOTICED);
        } else if phase == "three groups" {
            // The counters of a group are the upper group's memory, for each CPU. Tracepoints do not tell it apart.
            if let (Some(before), Some(now)) = (self.percpu, per_cpu(stage)) {
                stage.check(Check::at_least(
                    "per-CPU memory of the group that came later".to_owned(),
                    COUNTERS,
                    now.saturating_sub(before).unsigned_abs(),
                ));
            }
            let sums = Sums::of(&stage.events()?);
            for group in 0..stage.below.len() {
                let group = &stage.below[group];
                let got = sums.by_memcg.get(&(group.id()?, Kind::Anon)).copied().unwrap_or(0);
                let name = group
                    .path()
                    .file_name()
                    .context("a group has a name")?
                    .to_string_lossy()
                    .into_owned();
                let expected = signed(group.anon()?);
                let off = signed(headroom_tests::conserve::settle::stat_is_off_by()?);
                stage.check(Check::bytes(format!("anon of {name} alone"), expected, got, off));
            }
        }
        Ok(())
    }

    fn finish(&self, stage: &mut Stage, _events: &[Event]) -> Result<()> {
        let groups: BTreeMap<_, _> = stage.below.iter().map(|group| (group.path().to_owned(), ())).collect();
        stage.check(Check::at_least("groups below".to_owned(), 3, groups.len() as u64));
        Ok(())
    }
}

/// Starts a child in the sibling group of this name, which touches memory there and stays until its parent is gone.
fn in_group(name: &str, bytes: usize) -> Result<()> {
    let (touched, touches) = pipe()?;
    // SAFETY: this program has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        // The parent waits for its standstill; this one must not take its words.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        fs::write(sibling(name)?.join("cgroup.procs"), "0")?;
        let pages = Pages::small(bytes)?;
        pages.touch(0..bytes);
        drop(touches);
        loop {
            std::thread::park();
        }
    }
    drop(touches);
    read(&touched, &mut [0]).map(drop).context("the child is gone")
}

/// The folder of the group beside this process's own.
fn sibling(name: &str) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let (root, own) = text
        .lines()
        .find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            match controllers {
                "memory" => Some(("/sys/fs/cgroup/memory", path)),
                "" => Some(("/sys/fs/cgroup", path)),
                _ => None,
            }
        })
        .context("no memory cgroup")?;
    let (parent, _) = own.rsplit_once('/').context("a group has a parent")?;
    Ok(PathBuf::from(format!("{root}{parent}/{name}")))
}
