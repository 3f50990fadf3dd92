//! memfds and shared anonymous memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::MapFlags;

use super::Workload;
use crate::memory::{MIB, Pages};
use crate::stage::standstill;

/// Written, mapped, punched, truncated.
pub struct Memfd;

impl Workload for Memfd {
    fn act(&self) -> Result<()> {
        let file = File::from(memfd_create("workload", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(32 * MIB as u64)?;
        let chunk = vec![1; MIB];
        for offset in (0..16 * MIB).step_by(MIB) {
            file.write_all_at(&chunk, offset as u64)?;
        }
        let pages = Pages::shared(&file, 32 * MIB)?;
        pages.touch(16 * MIB..32 * MIB);
        standstill("held", &[("shmem", 32 * MIB)])?;
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, punch, 0, i64::try_from(8 * MIB)?)?;
        standstill("punched", &[("shmem", 24 * MIB)])?;
        let shared = Pages::anonymous(8 * MIB, MapFlags::MAP_SHARED)?;
        shared.touch(0..8 * MIB);
        file.set_len(12 * MIB as u64)?;
        standstill("truncated", &[("shmem", 12 * MIB)])?;
        drop(pages);
        drop(file);
        standstill("closed", &[("shmem", 8 * MIB)])
    }
}
