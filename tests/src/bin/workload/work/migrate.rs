//! Pages that move: from one NUMA node to another and back, and together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Workload;
use crate::memory::{MIB, PAGE, Pages};
use crate::stage::{Setting, Stage, set, standstill};

/// Whether the kernel moves pages to the node of who touches them. To see who does, it takes their mappings away for a while,
/// and then nobody can ask where they are (seen on 6.1). kernel: mm/gup.c follow_page_pte(), pte_protnone()
const BALANCING: &str = "/proc/sys/kernel/numa_balancing";

/// All kinds of user pages: small and huge anonymous ones, shared ones, page cache.
#[derive(Default)]
pub struct Migrate {
    unmoved: Option<Setting>,
}

impl Workload for Migrate {
    fn act(&self) -> Result<()> {
        let small = Pages::small(16 * MIB)?;
        small.touch(0..16 * MIB);
        let huge = Pages::huge(8 * MIB)?;
        huge.touch(0..8 * MIB);
        let memfd = fs::File::from(memfd_create("workload", MFdFlags::MFD_CLOEXEC)?);
        memfd.set_len(8 * MIB as u64)?;
        let shared = Pages::shared(&memfd, 8 * MIB)?;
        shared.touch(0..8 * MIB);
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open("mapped")?;
        file.set_len(8 * MIB as u64)?;
        let cached = Pages::shared(&file, 8 * MIB)?;
        cached.touch(0..8 * MIB);
        file.sync_all()?;
        let truth = [("anon", 24 * MIB), ("shmem", 8 * MIB)];
        standstill("held", &truth)?;
        let mut moved = BTreeSet::new();
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            migrate(from, to)?;
            for (what, pages, length) in [
                ("small", &small, 16 * MIB),
                ("huge", &huge, 8 * MIB),
                ("shared", &shared, 8 * MIB),
                ("cached", &cached, 8 * MIB),
            ] {
                let nodes = nodes(pages, length)?;
                let there = nodes.get(&to).copied().unwrap_or(0);
                eprintln!("workload: of {what} pages {there} are on node {to} now");
                // Single pages may be in use elsewhere for a moment, and of huge ones there must be a free one.
                if there * 10 > length / PAGE * 9 {
                    moved.insert(what);
                } else {
                    ensure!(what == "huge", "{what} pages, to be on node {to}, are on: {nodes:?}");
                }
            }
            standstill(&format!("moved to node {to}"), &truth)?;
        }
        ensure!(moved.len() == 4, "only these were moved: {moved:?}");
        Ok(())
    }

    fn prepare(&mut self, _stage: &mut Stage) -> Result<Option<String>> {
        let second = Path::new("/sys/devices/system/node/node1");
        ensure!(second.exists(), "boot a machine with two NUMA nodes");
        self.unmoved = Some(Setting::until_dropped(BALANCING, "0", "1")?);
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase != "held" {
            return Ok(());
        }
        set("/proc/sys/vm/compact_memory", "1")?;
        stage.compare("compacted", &BTreeMap::new())
    }
}

/// Moves this process's pages from one node to another.
pub fn migrate(from: i32, to: i32) -> Result<()> {
    let (from, to): (libc::c_ulong, libc::c_ulong) = (1 << from, 1 << to);
    // SAFETY: both masks have the bits that the count says, and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_migrate_pages,
            0,
            libc::c_ulong::BITS,
            &raw const from,
            &raw const to,
        )
    };
    let failed = Errno::result(result).context("cannot migrate")?;
    eprintln!("workload: migrated, {failed} pages did not move");
    Ok(())
}

/// How many of the pages are on each node. Negative numbers say why that is not known.
fn nodes(pages: &Pages, length: usize) -> Result<BTreeMap<i32, usize>> {
    let addresses: Vec<*const libc::c_void> = (0..length)
        .step_by(PAGE)
        .map(|offset| ptr::with_exposed_provenance(pages.address() + offset))
        .collect();
    let mut status = vec![-1_i32; addresses.len()];
    // SAFETY: without nodes the kernel only asks where the pages are; both arrays have as many elements as are told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            addresses.len(),
            addresses.as_ptr(),
            ptr::null::<i32>(),
            status.as_mut_ptr(),
            0,
        )
    };
    Errno::result(result).context("cannot ask where pages are")?;
    let mut counts = BTreeMap::new();
    for node in status {
        *counts.entry(node).or_insert(0) += 1;
    }
    Ok(counts)
}
