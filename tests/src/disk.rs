//! A file system that is soon full.

use std::path::Path;

use anyhow::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of this size, as mount takes it (`16k`).
    ///
    /// # Errors
    /// Without the right to mount.
    pub fn mount(size: &str) -> Result<Self> {
        let disk = Self(tempfile::tempdir()?);
        disk.set(size, MsFlags::empty())?;
        Ok(disk)
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, size: &str) -> Result<()> {
        self.set(size, MsFlags::MS_REMOUNT)
    }

    fn set(&self, size: &str, flags: MsFlags) -> Result<()> {
        let options = format!("size={size}");
        Ok(mount(
            Some("tmpfs"),
            self.0.path(),
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )?)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.0.path().display());
        }
    }
}
