//! Huge pages of hugetlbfs, where the kernel charges them to the memory controller.

use anyhow::Result;
use headroom_tests::conserve::Check;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::mman::MapFlags;

use super::Workload;
use crate::memory::{HUGE, MIB, Pages};
use crate::stage::{Setting, Stage, signed, standstill};

const SIZE: usize = 16 * MIB;
const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Faulted in and given back.
#[derive(Default)]
pub struct Hugetlb {
    pool: Option<Setting>,
    accounting: Option<Accounting>,
}

/// The kernel charges huge pages to groups as long as this lives.
struct Accounting;

impl Accounting {
    fn until_dropped() -> Result<Self, Errno> {
        remount(Some("memory_hugetlb_accounting")).map(|()| Self)
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if let Err(error) = remount(None) {
            eprintln!("workload: cannot remount the cgroups: {error}");
        }
    }
}

fn remount(option: Option<&str>) -> Result<(), Errno> {
    mount(
        None::<&str>,
        "/sys/fs/cgroup",
        None::<&str>,
        MsFlags::MS_REMOUNT,
        option,
    )
}

impl Workload for Hugetlb {
    fn act(&self) -> Result<()> {
        let pages = Pages::anonymous(SIZE, MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB)?;
        pages.touch(0..SIZE);
        standstill("held", &[("hugetlb", SIZE)])?;
        pages.give_back(0..SIZE / 2)?;
        standstill("half given back", &[("hugetlb", SIZE / 2)])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        if !stage.group.is_v2() {
            return Ok(Some("v1 never charges hugetlb to memory".to_owned()));
        }
        let Ok(accounting) = Accounting::until_dropped() else {
            return Ok(Some("this kernel has no memory_hugetlb_accounting".to_owned()));
        };
        self.accounting = Some(accounting);
        let pages = (2 * SIZE / HUGE).to_string();
        self.pool = Some(Setting::until_dropped(POOL, &pages, "0")?);
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        // 6.12 charges them, but its memory.stat does not show them: usage does.
        let Some(last) = stage.last() else { return Ok(()) };
        let Some(counted) = last.kernel.get("hugetlb").copied() else {
            return Ok(());
        };
        let got = last.recorded.get("hugetlb").copied().unwrap_or(0);
        stage.check(Check::bytes(format!("{phase}: hugetlb"), signed(counted), got, 0));
        Ok(())
    }
}
