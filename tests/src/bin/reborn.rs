//! Memory cgroups that come and go, some of them watched, at addresses where others were: what the kernel side remembers of
//! an address must not outlive who was there, nor that nobody asked for it.
//!
//! `reborn BACKEND`, for tests in VMs.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::{BackendChoice, Options, Tracer};
use headroom_tests::Memcg;
use headroom_tests::memory::Pages;
use tracer_common::{Kind, Watched};

/// Memory cgroups, one after the other.
const GROUPS: usize = 150;
/// What is touched in each.
const TOUCHED: usize = 1 << 20;

fn main() -> Result<ExitCode> {
    match env::args().nth(1).as_deref() {
        Some("touch") => touch().map(|()| ExitCode::SUCCESS),
        Some("fentry") => come_and_go(BackendChoice::Fentry),
        Some("kprobe") => come_and_go(BackendChoice::Kprobe),
        _ => bail!("usage: reborn fentry|kprobe"),
    }
}

fn touch() -> Result<()> {
    let pages = Pages::small(TOUCHED)?;
    pages.touch(0..TOUCHED);
    Ok(())
}

fn come_and_go(backend: BackendChoice) -> Result<ExitCode> {
    let options = Options {
        backend,
        ..Options::default()
    };
    let mut tracer = Tracer::attach(Path::new("/"), options).context("cannot attach")?;
    for number in 0..GROUPS {
        let group = Memcg::create()?;
        let id = group.id()?;
        let watched = Watched { qemu_tgid: 0, pod: 0 };
        let before = charged(&tracer);
        let what = ["watched", "never watched", "watched late"][number % 3];
        if what == "watched" {
            tracer.watch(id, watched)?;
        } else {
            work(&group)?;
            ensure!(
                charged(&tracer) == before,
                "group {number}, {what}: charges were counted"
            );
        }
        if what != "never watched" {
            tracer.watch(id, watched)?;
            work(&group)?;
            let counted = charged(&tracer);
            for kind in [Kind::Anon, Kind::Kmem] {
                let least = if kind == Kind::Anon { TOUCHED as u64 } else { 4096 };
                let bytes = counted.get(&(id, kind as u8)).copied().unwrap_or(0);
                ensure!(
                    bytes >= least,
                    "group {number}, {what}: {bytes} B of {} charged",
                    kind.as_str()
                );
            }
            let others = counted.iter().filter(|((memcg, _), _)| *memcg != id);
            ensure!(
                others.eq(before.iter()),
                "group {number}, {what}: charges were counted for another"
            );
            tracer.unwatch(id)?;
            tracer.close_overflow(id);
        }
        group.remove()?;
    }
    println!("{GROUPS} groups by {}", tracer.backend().as_str());
    Ok(ExitCode::SUCCESS)
}

/// Has a process touch memory in a group, and end.
fn work(group: &Memcg) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    group.join(command.arg("touch"))?;
    let status = command.status()?;
    ensure!(status.success(), "the process that touches memory ended with {status}");
    Ok(())
}

/// Bytes charged, by memory cgroup and kind.
fn charged(tracer: &Tracer) -> BTreeMap<(u64, u8), u64> {
    let mut sums = BTreeMap::new();
    for (_, account) in tracer.accounts() {
        *sums.entry((account.key.memcg, account.key.kind)).or_insert(0) += account.charged;
    }
    sums.retain(|_, bytes| *bytes > 0);
    sums
}
