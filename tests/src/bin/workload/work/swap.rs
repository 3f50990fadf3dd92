//! Swapping out and in, through a file on a disk or through zram.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use headroom_tests::Memcg;
use headroom_tests::conserve::{Check, Figures};
use nix::errno::Errno;
use nix::sys::mman::MapFlags;

use super::Workload;
use crate::memory::{MIB, PAGE, Pages};
use crate::stage::{Stage, set, standstill};

const ANON: usize = 32 * MIB;
const SHARED: usize = 8 * MIB;
/// Room for what the actor holds, twice: swap space is not given back at once.
const SPACE: usize = 96 * MIB;
/// How often reclaim is asked for: what is under way to the disk is given back only by the next one.
const TRIES: usize = 40;

const ZRAM: &str = "/dev/zram0";

/// Memory that goes out and comes back.
pub struct Swap {
    zram: bool,
    space: Option<Space>,
}

impl Swap {
    /// By way of the page cache's relative, the swap cache.
    pub fn file() -> Self {
        Self {
            zram: false,
            space: None,
        }
    }

    /// Past it: what is synchronous needs no cache.
    pub fn zram() -> Self {
        Self {
            zram: true,
            space: None,
        }
    }
}

impl Workload for Swap {
    fn act(&self) -> Result<()> {
        let pages = Pages::small(ANON)?;
        pages.touch(0..ANON);
        let shared = Pages::anonymous(SHARED, MapFlags::MAP_SHARED)?;
        shared.touch(0..SHARED);
        standstill("held", &[("anon", ANON), ("shmem", SHARED)])?;
        // Written to, so that it no longer shares its content with the swap space.
        pages.touch(0..ANON);
        shared.touch(0..SHARED);
        standstill("back", &[("anon", ANON), ("shmem", SHARED)])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        if let Some(reason) = stage.cannot_follow()? {
            return Ok(Some(format!("this backend alone cannot see it: {reason}")));
        }
        let device = if self.zram {
            let size = Path::new("/sys/block/zram0/disksize");
            if !size.exists() {
                return Ok(Some("this kernel has no zram".to_owned()));
            }
            set(size, &SPACE.to_string())?;
            PathBuf::from(ZRAM)
        } else {
            stage.folder.join("swap")
        };
        self.space = Some(Space::on(device)?);
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase != "held" {
            return Ok(());
        }
        for _ in 0..TRIES {
            reclaim(&stage.group)?;
            // What goes to the disk takes its time.
            sleep(Duration::from_millis(100));
            let kinds = Figures::read(&stage.group, &[])?.kinds;
            let left = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
            if left("anon") + left("shmem") < 2 * MIB as u64 && left("swap_cache") == 0 {
                break;
            }
        }
        stage.compare("swapped out", &BTreeMap::new())?;
        let there = stage
            .last()
            .map_or(0, |phase| phase.recorded.get("anon").copied().unwrap_or(0));
        stage.check(Check {
            name: "swapped out: little is left".to_owned(),
            expected: format!("less than {}", ANON / 4),
            got: there.to_string(),
            ok: usize::try_from(there).is_ok_and(|there| there < ANON / 4),
        });
        Ok(())
    }
}

/// Swap space, as long as this lives.
struct Space {
    device: PathBuf,
}

impl Space {
    fn on(device: PathBuf) -> Result<Self> {
        swap_on(&device)?;
        Ok(Self { device })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut off = swap_off(&self.device);
        if off.is_ok() && self.device == Path::new(ZRAM) {
            off = set("/sys/block/zram0/reset", "1");
        }
        if let Err(error) = off {
            eprintln!("workload: {error:#}");
        }
    }
}

/// Has the kernel reclaim what it can of a group, in the way that it offers.
fn reclaim(group: &Memcg) -> Result<()> {
    let reclaim = group.path().join("memory.reclaim");
    if reclaim.exists() {
        // It complains where it could reclaim less than that.
        let _ = fs::write(reclaim, "64M");
        return Ok(());
    }
    if group.is_v2() {
        group.write("memory.high", "0")?;
        return group.write("memory.high", "max");
    }
    let _ = group.write("memory.force_empty", "0");
    Ok(())
}

/// Makes and enables swap space in a file or device.
///
/// kernel: include/linux/swap.h union swap_header (5.10 to 7.3)
fn swap_on(device: &Path) -> Result<()> {
    let mut header = vec![0; PAGE];
    let last_page = u32::try_from(SPACE / PAGE - 1)?;
    header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(device)?;
    if file.metadata()?.is_file() {
        // A swap file may have no holes.
        for offset in (0..SPACE).step_by(MIB) {
            file.write_all_at(&[0; MIB], offset as u64)?;
        }
    }
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero byte and outlives the call.
    let result = unsafe { libc::swapon(path.as_ptr(), 0) };
    Errno::result(result)
        .map(drop)
        .with_context(|| format!("swapon {}", device.display()))
}

fn swap_off(device: &Path) -> Result<()> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: as above.
    let result = unsafe { libc::swapoff(path.as_ptr()) };
    Errno::result(result)
        .map(drop)
        .with_context(|| format!("swapoff {}", device.display()))
}
