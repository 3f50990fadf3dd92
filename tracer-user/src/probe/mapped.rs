//! Arrays of the kernel side, shared with it as memory.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use aya::Ebpf;
use aya::maps::{Map, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::tracer::ProbeError;

/// What an element of such an array can be.
///
/// # Safety
/// All of it are integers that are only accessed atomically, at most eight bytes aligned.
pub(super) unsafe trait Shared {}

/// An array in this process's memory.
pub(super) struct Mapped<T> {
    start: NonNull<T>,
    bytes: NonZeroUsize,
    len: usize,
}

impl<T: Shared> Mapped<T> {
    /// Takes the map of this name, of which it has so many elements.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str, len: u32) -> Result<Self, ProbeError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(ProbeError::Load {
                reason: format!("the object has no array {name}"),
            });
        };
        Self::of(map.fd().as_fd(), len).map_err(|source| ProbeError::Map {
            map: name,
            source: MapError::IoError(source),
        })
    }

    fn of(map: impl AsFd, len: u32) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let bytes = NonZeroUsize::new(len * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, of no more than the map has: kernel/bpf/arraymap.c array_map_mmap() (5.5 to 7.3)
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self {
            start: start.cast(),
            bytes,
            len,
        })
    }

    /// Its elements.
    pub(super) fn all(&self) -> &[T] {
        // SAFETY: the mapping has as many elements, lives as long as this, is aligned to a page, and they are only accessed
        // atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: what `of` has mapped, and nobody holds a reference to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}
