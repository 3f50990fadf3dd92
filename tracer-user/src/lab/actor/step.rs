//! Doing the steps of a part.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::gettid;
use tracer_common::{Kind, Region};

use super::kernel;
use super::memory::{Mapping, PAGE};
use super::spec::{Backend, GuestRam, Step};
use crate::lab::truth::{Alloc, now};
use crate::role::Role;

/// What is allocated between two lines of truth: a kill loses at most this much of it.
const CHUNK: usize = 256 << 10;
/// A worker of a storm lives at least this long.
const WORKER_LIFE: Duration = Duration::from_millis(2);
/// Stack of a storm's worker, which does little.
const WORKER_STACK: usize = 64 << 10;

/// Where truth goes.
pub trait Tell: Sync {
    /// Writes an allocation down.
    fn tell(&self, alloc: &Alloc);
}

/// A thread that does steps.
pub struct Doer<'a> {
    /// Guest RAM of the process.
    pub guest: Option<(GuestRam, Mapping)>,
    /// What the thread stands for.
    pub role: &'a Role,
    /// Where truth goes.
    pub truth: &'a dyn Tell,
}

impl Doer<'_> {
    /// Does a step.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn perform(&self, step: &Step) -> io::Result<()> {
        match step {
            Step::Guest { offset, bytes, rate } => self.guest(*offset, *bytes, *rate),
            Step::Heap { bytes, rate } => self.heap(*bytes, *rate),
            Step::Leak { bytes, rate } => self.leak(*bytes, *rate),
            Step::Storm {
                threads,
                bytes_each,
                comm,
                role,
                rate,
            } => self.storm(*threads, *bytes_each, (comm, role), *rate),
            Step::File { path, bytes, rate } => self.file(path, *bytes, *rate),
            Step::PageTables { bytes, rate } => self.page_tables(*bytes, *rate),
            Step::UnixSockets { bytes } => {
                kernel::fill_unix_sockets(*bytes, |took| self.tell(Kind::Kmem, Region::Overhead, took, false))
            }
            Step::TcpSockets { bytes, charged } => kernel::fill_tcp_sockets(*bytes, |took| {
                if *charged {
                    self.tell(Kind::Sock, Region::Overhead, took, false);
                }
            }),
            Step::Pipes { bytes } => {
                kernel::fill_pipes(*bytes, |took| self.tell(Kind::Kmem, Region::Overhead, took, false))
            }
        }
    }

    fn tell(&self, kind: Kind, region: Region, bytes: u64, exact: bool) {
        self.truth
            .tell(&line(self.role, gettid().as_raw(), kind, region, bytes, exact));
    }

    fn guest(&self, offset: u64, bytes: u64, rate: u64) -> io::Result<()> {
        let (ram, mapping) = self
            .guest
            .as_ref()
            .ok_or_else(|| io::Error::other("this part has no guest RAM"))?;
        let kind = match ram.backend {
            Backend::Ram => Kind::Anon,
            Backend::Memfd => Kind::Shmem,
            Backend::Hugepages => Kind::Hugetlb,
        };
        let offset = size(offset)?;
        paced(bytes, rate, |at, length| {
            mapping.touch(offset + at, length);
            self.tell(kind, Region::Guest, length as u64, true);
            Ok(())
        })
    }

    fn heap(&self, bytes: u64, rate: u64) -> io::Result<()> {
        let mapping = Mapping::heap(size(bytes)?)?;
        paced(bytes, rate, |at, length| {
            mapping.touch(at, length);
            self.tell(Kind::Anon, Region::Overhead, length as u64, true);
            Ok(())
        })
    }

    fn leak(&self, bytes: u64, rate: u64) -> io::Result<()> {
        let mapping = Mapping::heap(size(bytes)?)?;
        paced(bytes, rate, |at, length| {
            leak_domain_stats(mapping, at, length);
            self.tell(Kind::Anon, Region::Overhead, length as u64, true);
            Ok(())
        })
    }

    fn storm(&self, threads: u64, bytes_each: u64, (comm, role): (&str, &Role), rate: u64) -> io::Result<()> {
        let start = Instant::now();
        let each = size(bytes_each)?;
        let mapping = Mapping::heap(each * size(threads)?)?;
        let name = std::ffi::CString::new(comm)?;
        for index in 0..size(threads)? {
            let name = name.clone();
            let worker = thread::Builder::new().stack_size(WORKER_STACK).spawn(move || {
                let _ = prctl::set_name(&name);
                mapping.touch(index * each, each);
                thread::sleep(WORKER_LIFE);
                gettid().as_raw()
            })?;
            let tid = worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
            self.truth
                .tell(&line(role, tid, Kind::Anon, Region::Overhead, bytes_each, true));
            thread::sleep(due((index + 1) * each, rate).saturating_sub(start.elapsed()));
        }
        Ok(())
    }

    fn file(&self, path: &Path, bytes: u64, rate: u64) -> io::Result<()> {
        let mut file = File::create(path)?;
        // Files of tmpfs are shared memory to the kernel's accounting.
        let kind = if fstatfs(&file)?.filesystem_type() == TMPFS_MAGIC {
            Kind::Shmem
        } else {
            Kind::File
        };
        let block = Mapping::heap(CHUNK)?.filled();
        self.tell(Kind::Anon, Region::Overhead, CHUNK as u64, true);
        paced(bytes, rate, |_, length| {
            file.write_all(&block[..length])?;
            self.tell(kind, Region::Overhead, length as u64, true);
            Ok(())
        })
    }

    fn page_tables(&self, bytes: u64, rate: u64) -> io::Result<()> {
        let start = Instant::now();
        let tables = size(bytes)? / PAGE;
        let mapping = Mapping::for_tables(tables)?;
        let step = CHUNK / PAGE;
        for first in (0..tables).step_by(step) {
            let count = step.min(tables - first);
            mapping.build_tables(Mapping::table_offset(first), count);
            // The upper levels come on top: one page for each 512 tables.
            self.tell(Kind::Pagetable, Region::Overhead, (count * PAGE) as u64, false);
            thread::sleep(due((first + count) * PAGE, rate).saturating_sub(start.elapsed()));
        }
        Ok(())
    }
}

/// Forgets the statistics of a domain in memory that nobody frees. It writes on its own, so that it is the innermost
/// function of what is charged, whether or not there are frame pointers.
#[inline(never)]
fn leak_domain_stats(heap: Mapping, at: usize, length: usize) {
    for page in heap.pages(at, length) {
        // SAFETY: the page is the mapping's, which is writable and stays; nobody depends on the value.
        unsafe { *page = 1 };
        std::hint::black_box(page);
    }
}

fn line(role: &Role, tid: i32, kind: Kind, region: Region, bytes: u64, exact: bool) -> Alloc {
    Alloc {
        t: now(),
        tid: tid.unsigned_abs(),
        role: role.clone(),
        kind: kind.as_str().to_owned(),
        region: region.as_str().to_owned(),
        bytes,
        exact,
    }
}

fn size(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Goes over `bytes` in chunks, no faster than `rate` bytes per second.
fn paced(bytes: u64, rate: u64, mut each: impl FnMut(usize, usize) -> io::Result<()>) -> io::Result<()> {
    let bytes = size(bytes)?;
    let start = Instant::now();
    for at in (0..bytes).step_by(CHUNK) {
        let length = CHUNK.min(bytes - at);
        each(at, length)?;
        let due = due(at + length, rate);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// When this many bytes are due at a rate, from the start.
fn due(bytes: usize, rate: u64) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Alloc>>);

    impl Tell for Kept {
        fn tell(&self, alloc: &Alloc) {
            self.0.lock().expect("no panic while held").push(alloc.clone());
        }
    }

    impl Kept {
        fn sum(&self, kind: &str) -> u64 {
            let kept = self.0.lock().expect("no panic while held");
            kept.iter()
                .filter(|alloc| alloc.kind == kind)
                .map(|alloc| alloc.bytes)
                .sum()
        }
    }

    fn perform(step: &Step, guest: Option<GuestRam>) -> Kept {
        let kept = Kept::default();
        let doer = Doer {
            guest: guest.map(|ram| (ram, Mapping::guest(ram).expect("guest RAM"))),
            role: &Role::MainLoop,
            truth: &kept,
        };
        doer.perform(step).expect("the step works");
        kept
    }

    #[test]
    fn rates_set_when_bytes_are_due() {
        assert_eq!(due(1 << 20, 2 << 20), Duration::from_millis(500));
        assert_eq!(due(0, 0), Duration::ZERO);
    }

    #[test]
    fn the_truth_is_what_the_step_asks_for() {
        let fast = u64::MAX;
        let odd = (3 << 20) + 4096;
        let heap = Step::Heap { bytes: odd, rate: fast };
        assert_eq!(perform(&heap, None).sum("anon"), odd);
        let leak = Step::Leak { bytes: odd, rate: fast };
        assert_eq!(perform(&leak, None).sum("anon"), odd);
        let guest = Step::Guest {
            offset: 1 << 20,
            bytes: 2 << 20,
            rate: fast,
        };
        for (backend, kind) in [(Backend::Ram, "anon"), (Backend::Memfd, "shmem")] {
            let ram = GuestRam {
                bytes: 4 << 20,
                backend,
            };
            assert_eq!(perform(&guest, Some(ram)).sum(kind), 2 << 20);
        }
        assert_eq!(
            perform(
                &Step::PageTables {
                    bytes: 1 << 20,
                    rate: u64::MAX
                },
                None
            )
            .sum("pagetable"),
            1 << 20
        );
    }

    #[test]
    fn every_worker_of_a_storm_is_told_with_its_own_thread_id() {
        let storm = Step::Storm {
            threads: 5,
            bytes_each: 8192,
            comm: "worker".to_owned(),
            role: Role::BlockWorker,
            rate: u64::MAX,
        };
        let kept = perform(&storm, None);
        let kept = kept.0.lock().expect("no panic while held");
        let tids: std::collections::BTreeSet<_> = kept.iter().map(|alloc| alloc.tid).collect();
        assert_eq!(tids.len(), 5);
        assert!(
            kept.iter()
                .all(|alloc| alloc.role == Role::BlockWorker && alloc.bytes == 8192)
        );
    }
}
