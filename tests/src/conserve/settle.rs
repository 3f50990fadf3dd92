//! Standstills: a memcg is compared only once the kernel has come to rest.

use std::fs;
use std::ptr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;

use super::figures::Figures;
use crate::memcg::Memcg;
use crate::program::PATIENCE;

/// How long nothing may change. memory.stat is brought up to date every 2 s.
/// kernel: mm/memcontrol.c FLUSH_TIME (5.16 to 7.3)
const QUIET: Duration = Duration::from_millis(2300);
/// How long where it is brought up to date on demand.
const QUIET_ON_DEMAND: Duration = Duration::from_millis(700);
/// How often it is looked at.
const STEP: Duration = Duration::from_millis(100);

/// Waits until a group's figures stay what they are, and returns them.
///
/// # Errors
/// When they do not come to rest.
pub fn settle(group: &Memcg, below: &[&Memcg]) -> Result<Figures> {
    let begun = Instant::now();
    drain()?;
    let quiet = if flush(group)? { QUIET_ON_DEMAND } else { QUIET };
    let mut figures = Figures::read(group, below)?;
    let mut since = Instant::now();
    while since.elapsed() < quiet {
        if begun.elapsed() > PATIENCE {
            bail!("{} does not come to rest", group.path().display());
        }
        sleep(STEP);
        // What has moved since may have left pages aside again.
        drain()?;
        flush(group)?;
        let now = Figures::read(group, below)?;
        if now != figures {
            figures = now;
            since = Instant::now();
        }
    }
    Ok(figures)
}

/// Whether a group's figures are still these, all that CPUs counted by themselves included.
///
/// # Errors
/// When they cannot be read.
pub fn is_still(figures: &Figures, group: &Memcg, below: &[&Memcg]) -> Result<bool> {
    if !flush(group)? {
        sleep(QUIET);
    }
    Ok(Figures::read(group, below)? == *figures)
}

/// Has every CPU put the pages on their lists that it keeps aside: each holds a reference, and a page that is referenced
/// is not given back.
///
/// kernel: mm/migrate.c do_pages_move() drains them first, also where there is nothing to move (5.10 to 7.3)
fn drain() -> Result<()> {
    let nothing: [i32; 1] = [0];
    let mut status: [i32; 1] = [0];
    // SAFETY: with a count of 0 the kernel reads and writes none of the arrays, which outlive the call all the same.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            0_usize,
            ptr::null::<*const libc::c_void>(),
            nothing.as_ptr(),
            status.as_mut_ptr(),
            0,
        )
    };
    Errno::result(result)
        .map(drop)
        .context("cannot drain the CPUs' page lists")
}

/// Has the kernel add up what CPUs counted by themselves. Whether it does: reading cpu.stat does that with v2 up to 6.14,
/// and up to 5.12 nothing is left to be added up later; elsewhere waiting does it.
fn flush(group: &Memcg) -> Result<bool> {
    let read = fs::read(group.path().join("cpu.stat")).is_ok();
    let version = kernel()?;
    Ok(version < (5, 13) || group.is_v2() && read && version < (6, 15))
}

/// Version of the running kernel.
///
/// # Errors
/// When its release cannot be read.
pub fn kernel() -> Result<(u32, u32)> {
    let system = nix::sys::utsname::uname()?;
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

/// Bytes by which memory.stat itself may be off, however long one waits.
///
/// kernel: mm/memcontrol.c `__mod_memcg_state()`: up to 5.12 the figures of v2, and in step with them v1's own, leave up to
/// MEMCG_CHARGE_BATCH (32) pages per CPU out; from 5.13 on (rstat) nothing is left out.
///
/// # Errors
/// When the kernel's release cannot be read.
pub fn stat_is_off_by() -> Result<u64> {
    let pages = if kernel()? < (5, 13) { 32 } else { 0 };
    Ok(pages * 4096 * cpus()?)
}

/// CPUs that charge in advance or count by themselves.
///
/// # Errors
/// When they cannot be counted.
pub fn cpus() -> Result<u64> {
    Ok(u64::try_from(std::thread::available_parallelism()?.get())?)
}
