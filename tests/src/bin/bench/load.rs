//! Pieces of work, each in batches of a few hundred thousand instructions.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use anyhow::{Result, bail};
use headroom_tests::memory::{HUGE, PAGE, Pages};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{major, minor};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::work::Counts;

/// Where a piece of work keeps what can stand for guest RAM.
#[derive(Serialize, Deserialize)]
pub enum GuestRam {
    /// Private memory: the mapping's first address and the one behind it.
    Mapping(u64, u64),
    /// A file: its device as the kernel has it, and its inode.
    File(u32, u64),
}

/// A piece of work.
pub trait Load {
    /// Does a batch of it, step by step.
    fn batch(&mut self, counts: &mut Counts) -> Result<()>;

    /// What of its memory can stand for guest RAM.
    fn guest_ram(&self) -> Option<GuestRam> {
        None
    }
}

/// The piece of work of this name.
pub fn find(name: &str) -> Result<Box<dyn Load>> {
    Ok(match name {
        "anon" => Box::new(Anon(Pages::small(SMALL * PAGE)?)),
        "thp" => Box::new(Thp(Pages::huge(BIG * HUGE)?)),
        "shmem" => Box::new(Shmem::new()?),
        "file" => Box::new(PageCache::new()?),
        "small-files" => Box::new(SmallFiles::new()?),
        "tcp" => Box::new(Tcp::new()?),
        "sockets" => Box::new(Sockets),
        "fork" => Box::new(Fork),
        _ => bail!("there is no load {name}"),
    })
}

/// Small pages of a batch.
const SMALL: usize = 128;
/// Huge pages of a batch.
const BIG: usize = 2;

/// Private memory in small pages.
struct Anon(Pages);

impl Load for Anon {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        counts.step("fault", SMALL, || {
            self.0.touch(0..SMALL * PAGE);
            Ok(())
        })?;
        counts.step("free", SMALL, || self.0.give_back(0..SMALL * PAGE))
    }

    fn guest_ram(&self) -> Option<GuestRam> {
        mapping(&self.0, SMALL * PAGE)
    }
}

fn mapping(pages: &Pages, length: usize) -> Option<GuestRam> {
    let start = pages.address() as u64;
    Some(GuestRam::Mapping(start, start + length as u64))
}

/// Private memory in huge pages.
struct Thp(Pages);

impl Load for Thp {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        counts.step("fault", BIG, || {
            for page in 0..BIG {
                self.0.touch(page * HUGE..page * HUGE + 1);
            }
            Ok(())
        })?;
        counts.step("free", BIG, || self.0.give_back(0..BIG * HUGE))
    }

    fn guest_ram(&self) -> Option<GuestRam> {
        mapping(&self.0, BIG * HUGE)
    }
}

/// A file in memory, mapped: guest RAM that other processes share.
struct Shmem {
    file: File,
    pages: Pages,
}

impl Shmem {
    fn new() -> Result<Self> {
        let file = File::from(memfd_create(c"bench", MFdFlags::empty())?);
        file.set_len((SMALL * PAGE) as u64)?;
        let pages = Pages::shared(&file, SMALL * PAGE)?;
        Ok(Self { file, pages })
    }
}

impl Load for Shmem {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        counts.step("fault", SMALL, || {
            self.pages.touch(0..SMALL * PAGE);
            Ok(())
        })?;
        counts.step("free", SMALL, || {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            Ok(fallocate(&self.file, hole, 0, libc::off_t::try_from(SMALL * PAGE)?)?)
        })
    }

    fn guest_ram(&self) -> Option<GuestRam> {
        let metadata = self.file.metadata().ok()?;
        let device = metadata.dev();
        // kernel: MKDEV, include/linux/kdev_t.h (5.10 to 7.3)
        let number = u32::try_from(major(device) << 20 | minor(device)).ok()?;
        Some(GuestRam::File(number, metadata.ino()))
    }
}

/// A file on a disk, written page by page and cut off again.
struct PageCache {
    _folder: TempDir,
    file: File,
}

impl PageCache {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(folder.path().join("file"))?;
        Ok(Self { _folder: folder, file })
    }
}

impl Load for PageCache {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        let page = [1; PAGE];
        counts.step("write", SMALL, || {
            for number in 0..SMALL {
                self.file.write_all_at(&page, (number * PAGE) as u64)?;
            }
            Ok(())
        })?;
        counts.step("truncate", SMALL, || Ok(self.file.set_len(0)?))
    }
}

/// Empty files in memory: inodes and names, which are kernel objects.
struct SmallFiles {
    _folder: TempDir,
    paths: Vec<PathBuf>,
}

impl SmallFiles {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let paths = (0..32)
            .map(|number| folder.path().join(format!("file-{number}")))
            .collect();
        Ok(Self { _folder: folder, paths })
    }
}

impl Load for SmallFiles {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        counts.step("create", self.paths.len(), || {
            for path in &self.paths {
                File::create(path)?;
            }
            Ok(())
        })?;
        counts.step("unlink", self.paths.len(), || {
            for path in &self.paths {
                fs::remove_file(path)?;
            }
            Ok(())
        })
    }
}

/// Bytes through the loopback interface.
struct Tcp {
    from: TcpStream,
    to: TcpStream,
    buffer: Vec<u8>,
}

impl Tcp {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let from = TcpStream::connect(listener.local_addr()?)?;
        let (to, _) = listener.accept()?;
        from.set_nodelay(true)?;
        Ok(Self {
            from,
            to,
            buffer: vec![1; 16 << 10],
        })
    }
}

impl Load for Tcp {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        const MESSAGES: usize = 16;
        counts.step("16 KiB", MESSAGES, || {
            for _ in 0..MESSAGES {
                self.from.write_all(&self.buffer)?;
                self.to.read_exact(&mut self.buffer)?;
            }
            Ok(())
        })
    }
}

/// Sockets that are opened and closed.
struct Sockets;

impl Load for Sockets {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        const SOCKETS: usize = 32;
        let mut open = Vec::with_capacity(SOCKETS);
        counts.step("open", SOCKETS, || {
            for _ in 0..SOCKETS {
                open.push(UdpSocket::bind("127.0.0.1:0")?);
            }
            Ok(())
        })?;
        counts.step("close", SOCKETS, || {
            for socket in open.drain(..) {
                drop(socket);
            }
            Ok(())
        })
    }
}

/// Processes that end at once.
struct Fork;

impl Load for Fork {
    fn batch(&mut self, counts: &mut Counts) -> Result<()> {
        counts.step("fork and exit", 1, || {
            // SAFETY: this process has one thread, and the child only ends.
            match unsafe { fork() }? {
                ForkResult::Parent { child } => waitpid(child, None)?,
                // SAFETY: as above.
                ForkResult::Child => unsafe { libc::_exit(0) },
            };
            Ok(())
        })
    }
}
