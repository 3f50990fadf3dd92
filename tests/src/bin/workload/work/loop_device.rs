//! What is written to a loop device: a worker of the kernel writes it to the file behind, on the writer's behalf.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use headroom::recording::event::Event;
use headroom_tests::conserve::figures::threads_named;
use headroom_tests::conserve::settle::kernel;
use headroom_tests::conserve::{Check, Sums};
use nix::errno::Errno;
use tracer_common::Kind;

use super::Workload;
use crate::memory::{MIB, Pages};
use crate::stage::{Setting, Stage, signed, standstill};

const SIZE: usize = 16 * MIB;
/// The file behind the device, and where the actor finds the device's name.
const DISK: &str = "disk";
const DEVICE: &str = "device";

// kernel: include/uapi/linux/loop.h (5.10 to 7.3)
const LOOP_SET_FD: libc::c_ulong = 0x4c00;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;

/// The controller whose groups a block device knows its writers by.
const CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.subtree_control";

/// Writes past the page cache of the device, and so into that of the file.
#[derive(Default)]
pub struct LoopDevice {
    device: Option<File>,
    controllers: Option<Setting>,
}

impl Workload for LoopDevice {
    fn act(&self) -> Result<()> {
        let path = PathBuf::from(fs::read_to_string(DEVICE)?);
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let chunk = Pages::small(MIB)?;
        chunk.touch(0..MIB);
        standstill("before", &[("anon", MIB)])?;
        for offset in (0..SIZE).step_by(MIB) {
            chunk.write_out(&device, offset as u64)?;
        }
        device.sync_all()?;
        drop(device);
        standstill("written", &[("anon", MIB)])
    }

    fn prepare(&mut self, stage: &mut Stage) -> Result<Option<String>> {
        if stage.group.is_v2() {
            self.controllers = Some(Setting::until_dropped(CONTROLLERS, "+io", "-io")?);
        }
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(stage.folder.join(DISK))?;
        file.set_len(SIZE as u64)?;
        let control = File::open("/dev/loop-control").context("no loop devices")?;
        let number = ioctl(&control, LOOP_CTL_GET_FREE, 0)?;
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        ioctl(&device, LOOP_SET_FD, file.as_raw_fd().into())?;
        self.device = Some(device);
        fs::write(stage.folder.join(DEVICE), path)?;
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        if phase != "written" {
            return Ok(());
        }
        let shown = stage.last().and_then(|phase| phase.kernel.get("file").copied());
        let shown = shown.context("memory.stat has page cache")?;
        let (least, name) = (SIZE as u64, "page cache of the file behind the device");
        stage.check(if charges_writer(stage)? {
            Check::at_least(name.to_owned(), least, shown)
        } else {
            // The file system's own pages apart.
            Check::bytes(name.to_owned(), 0, signed(shown), signed(MIB as u64 / 2))
        });
        self.detach()?;
        fs::remove_file(stage.folder.join(DISK))?;
        stage.compare("file gone", &BTreeMap::new())
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        let sums = Sums::of(events);
        let workers = threads_named(events, "kworker/");
        let by = |threads: &HashSet<u32>| sums.charged_by(threads, Kind::File);
        if charges_writer(stage)? {
            stage.check(Check::at_least(
                "page cache charged by the kernel's workers".to_owned(),
                SIZE as u64,
                by(&workers),
            ));
        }
        let own = by(&HashSet::from([stage.actor]));
        stage.check(Check::bytes(
            "page cache charged by the writer itself".to_owned(),
            0,
            signed(own),
            signed(MIB as u64 / 2),
        ));
        Ok(())
    }
}

impl LoopDevice {
    /// Takes the file from the device, once.
    fn detach(&mut self) -> Result<()> {
        self.device
            .take()
            .map_or(Ok(()), |device| ioctl(&device, LOOP_CLR_FD, 0).map(drop))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            eprintln!("workload: {error:#}");
        }
    }
}

/// Whether the kernel charges the group of who wrote to the device, and not the system.
/// kernel: drivers/block/loop.c `loop_queue_rq()`, memcg_css of the writer's blkcg (5.14 to 7.3). Groups of v1 are not
/// those of the block devices, which then stand for nobody.
fn charges_writer(stage: &Stage) -> Result<bool> {
    Ok(stage.group.is_v2() && kernel()? >= (5, 14))
}

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_long) -> Result<i32> {
    // SAFETY: these requests take a number, or nothing.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    Errno::result(result).with_context(|| format!("loop device: request {request:#x}"))
}
