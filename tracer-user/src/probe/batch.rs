//! Reads whole hash maps by a few system calls, where an iterator of aya's makes two for each element.
//!
//! While it looks through the buckets, the kernel runs no kprobe's program on that CPU. Where it can be preempted in between,
//! those of other threads are left out, whosever programs they are: there this is not for use.
//! kernel: bpf_disable_instrumentation() in kernel/bpf/hashtab.c `__htab_map_lookup_and_delete_batch`, and kernel/trace/bpf_trace.c
//! `trace_call_bpf` (5.10 to 7.3)

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::maps::{HashMap, Map, MapError};
use aya::sys::SyscallError;
use aya::{Ebpf, Pod};

use super::sys;
use super::tracer::{ProbeError, failed};

/// Elements read at a time, as long as no bucket has more.
const BATCH: usize = 1024;

/// kernel: include/uapi/linux/bpf.h union bpf_attr, its member `batch` (5.6 to 7.3)
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A hash map to be read as a whole.
pub(super) struct Batches<K, V> {
    name: &'static str,
    fd: OwnedFd,
    elements: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    /// The map of this name, whose keys and values are of these types.
    pub(super) fn of(ebpf: &Ebpf, name: &'static str) -> Result<Self, ProbeError> {
        let refused = |reason: String| ProbeError::Load {
            reason: format!("map {name}: {reason}"),
        };
        let Some(map @ Map::HashMap(data)) = ebpf.map(name) else {
            return Err(refused("the object has no such hash map".to_owned()));
        };
        // Checks the sizes of both, which the kernel relies on below.
        HashMap::<_, K, V>::try_from(map).map_err(failed(name))?;
        let fd = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            name,
            fd: fd.map_err(|error| refused(error.to_string()))?,
            elements: PhantomData,
        })
    }

    /// Every element. Each is there once; one that is added meanwhile may be missing.
    pub(super) fn read(&self) -> Result<Vec<(K, V)>, ProbeError> {
        let refused = |io_error| {
            MapError::SyscallError(SyscallError {
                call: "bpf_map_lookup_batch",
                io_error,
            })
        };
        self.read_by(BATCH).map_err(refused).map_err(failed(self.name))
    }

    fn read_by(&self, size: usize) -> io::Result<Vec<(K, V)>> {
        let mut size = size;
        let (mut keys, mut values) = (Vec::<K>::new(), Vec::<V>::new());
        let mut elements = Vec::new();
        // Where to go on: of a hash map, the number of a bucket.
        let mut place: Option<u32> = None;
        loop {
            keys.reserve_exact(size);
            values.reserve_exact(size);
            let before = place;
            let mut next = 0_u32;
            let mut attributes = Attributes {
                in_batch: before.as_ref().map_or(0, |place| (&raw const *place).addr() as u64),
                out_batch: (&raw mut next).addr() as u64,
                keys: keys.as_mut_ptr().addr() as u64,
                values: values.as_mut_ptr().addr() as u64,
                count: u32::try_from(size).map_err(io::Error::other)?,
                map_fd: u32::try_from(self.fd.as_raw_fd()).map_err(io::Error::other)?,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel reads the attributes, which are as it knows them, and `place`; it writes `next`, and at most
            // `size` keys and values of the sizes that were checked into room for as many.
            let read = unsafe { sys::bpf(sys::MAP_LOOKUP_BATCH, &mut attributes) };
            match read.as_ref().err().and_then(io::Error::raw_os_error) {
                None | Some(libc::ENOENT) => {}
                // A bucket has more elements than there is room for.
                Some(libc::ENOSPC) => {
                    size = size.saturating_mul(2);
                    continue;
                }
                Some(error) => return Err(io::Error::from_raw_os_error(error)),
            }
            let count = (attributes.count as usize).min(size);
            // SAFETY: the kernel wrote so many keys, within the room that there is, and any bytes are one.
            unsafe { keys.set_len(count) };
            // SAFETY: as many values.
            unsafe { values.set_len(count) };
            elements.extend(keys.drain(..).zip(values.drain(..)));
            if read.is_err() {
                return Ok(elements);
            }
            place = Some(next);
        }
    }
}
