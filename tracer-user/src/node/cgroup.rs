//! The memory controller's hierarchy and its groups.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use procfs::process::MountInfo;

use super::bounded::{self, SMALL};
use super::{Node, NodeError, namespace};

/// Most of /proc/self/mountinfo that is read: a node with thousands of mounts has a few MiB of it.
const MOUNTINFO_LIMIT: u64 = 16 << 20;
/// Most of a list of processes or threads that is read: room for 100,000 of them.
const TASKS_LIMIT: u64 = 1 << 20;
/// v1 says "no limit" with the largest multiple of the page size (kernel: mm/page_counter.c, PAGE_COUNTER_MAX).
const V1_UNLIMITED: u64 = 1 << 62;

/// Which hierarchy the memory controller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Its own.
    V1,
    /// The unified one.
    V2,
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// Where the memory controller is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 or v2.
    pub version: CgroupVersion,
    /// The mount point, the node's root included.
    pub mount: PathBuf,
    /// Huge pages of hugetlbfs are charged to memcgs (mount option of cgroup2, 6.7+).
    pub hugetlb_accounting: bool,
}

impl Hierarchy {
    /// Whether it is v1 and accounts memory and swap together (kernel parameter `swapaccount`).
    #[must_use]
    pub fn accounts_memory_and_swap(&self) -> bool {
        self.version == CgroupVersion::V1 && self.mount.join("memory.memsw.usage_in_bytes").exists()
    }

    /// Finds it in /proc/self/mountinfo below `root`. A v1 mount with the memory controller wins over a v2 mount,
    /// because then the v2 one does not have that controller (hybrid layout).
    ///
    /// # Errors
    /// When mountinfo is unreadable or there is no such mount.
    pub fn find(root: &Path) -> Result<Self, NodeError> {
        let path = root.join("proc/self/mountinfo");
        let bytes = bounded::try_read(&path, MOUNTINFO_LIMIT).map_err(|source| NodeError::Read {
            path: path.clone(),
            source,
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let mounts: Vec<MountInfo> = text
            .lines()
            .filter(|line| line.contains(" cgroup"))
            .filter_map(|line| MountInfo::from_line(line).ok())
            .collect();
        let v1 = mounts
            .iter()
            .filter(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"))
            // A mount that another one covers is still listed.
            .find(|mount| below(root, &mount.mount_point).join("cgroup.procs").exists())
            .map(|mount| (CgroupVersion::V1, mount));
        let v2 = || {
            mounts
                .iter()
                .filter(|mount| mount.fs_type == "cgroup2")
                .find(|mount| has_memory_controller(&below(root, &mount.mount_point)))
                .map(|mount| (CgroupVersion::V2, mount))
        };
        let (version, mount) = v1.or_else(v2).ok_or(NodeError::NoMemoryController(path))?;
        Ok(Self {
            version,
            mount: below(root, &mount.mount_point),
            hugetlb_accounting: mount.super_options.contains_key("memory_hugetlb_accounting"),
        })
    }

    /// The memcg at this path below the hierarchy's root, if it exists. Paths that climb (`..`) do not.
    #[must_use]
    pub fn memcg(&self, path: &str) -> Option<Memcg> {
        let relative = Path::new(path.trim_matches('/'));
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let dir = self.mount.join(relative);
        let metadata = std::fs::metadata(&dir).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Memcg {
            version: self.version,
            id: metadata.ino(),
            path: format!("/{}", relative.display()),
            dir,
        })
    }
}

/// `mount_point` of mountinfo, below the node's root. Spaces and the like are octal there (kernel: fs/seq_file.c
/// mangle_path); no cgroup mount point has them.
fn below(root: &Path, mount_point: &Path) -> PathBuf {
    root.join(mount_point.strip_prefix("/").unwrap_or(mount_point))
}

fn has_memory_controller(mount: &Path) -> bool {
    bounded::text(&mount.join("cgroup.controllers"), SMALL)
        .is_some_and(|controllers| controllers.split_ascii_whitespace().any(|name| name == "memory"))
}

/// A memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memcg {
    /// Which files it has.
    pub version: CgroupVersion,
    /// cgroup id: the inode number of its directory, which is its kernfs node id (kernel: fs/kernfs/inode.c, 5.5+).
    pub id: u64,
    /// Path below the memory controller's root, with a leading `/`.
    pub path: String,
    /// Its directory.
    pub dir: PathBuf,
}

impl Memcg {
    /// The file that has this name on v1 or v2.
    fn file(&self, v1: &str, v2: &str) -> PathBuf {
        self.dir.join(match self.version {
            CgroupVersion::V1 => v1,
            CgroupVersion::V2 => v2,
        })
    }

    /// Bytes charged now; `None` when the memcg is gone (or is the root of v2, which does not say).
    #[must_use]
    pub fn usage(&self) -> Option<u64> {
        bounded::number(&self.file("memory.usage_in_bytes", "memory.current"))
    }

    /// The hard limit in bytes; `None` when there is none.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        // "max" is not a number.
        bounded::number(&self.file("memory.limit_in_bytes", "memory.max")).filter(|limit| *limit < V1_UNLIMITED)
    }

    /// The highest usage seen, where the kernel keeps it (v2: 5.19+).
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        bounded::number(&self.file("memory.max_usage_in_bytes", "memory.peak"))
    }

    /// The files that a postmortem wants as they are, by name; those that cannot be read are left out. On v1,
    /// `memory.failcnt` and `memory.oom_control` hold what `memory.events` does on v2.
    #[must_use]
    pub fn state_files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let names: &[&str] = match self.version {
            CgroupVersion::V1 => &["memory.stat", "memory.failcnt", "memory.oom_control"],
            CgroupVersion::V2 => &["memory.stat", "memory.events"],
        };
        names
            .iter()
            .filter_map(|name| Some((*name, bounded::read(&self.dir.join(name), SMALL)?)))
            .collect()
    }

    /// Whether the directory is still the same cgroup.
    #[must_use]
    pub fn exists(&self) -> bool {
        std::fs::metadata(&self.dir).is_ok_and(|metadata| metadata.ino() == self.id)
    }

    /// The cgroups directly below, in the order of their names, at most `limit` of them.
    #[must_use]
    pub fn children(&self, limit: usize) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let mut children: Vec<Self> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| self.child(&entry))
            .take(limit)
            .collect();
        children.sort_by(|a, b| a.path.cmp(&b.path));
        children
    }

    /// The cgroup behind a directory entry. A name that is not UTF-8 gets no memcg: its path could not be written
    /// down, and neither kubelet nor libvirt makes one.
    fn child(&self, entry: &std::fs::DirEntry) -> Option<Self> {
        let name = entry.file_name().into_string().ok()?;
        Some(Self {
            version: self.version,
            id: entry.metadata().ok()?.ino(),
            path: format!("{}/{name}", self.path.trim_end_matches('/')),
            dir: entry.path(),
        })
    }

    /// The memcg above; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (above, _) = self.path.rsplit_once('/').filter(|(_, name)| !name.is_empty())?;
        let dir = self.dir.parent()?;
        Some(Self {
            version: self.version,
            id: std::fs::metadata(dir).ok()?.ino(),
            path: if above.is_empty() {
                "/".to_owned()
            } else {
                above.to_owned()
            },
            dir: dir.to_owned(),
        })
    }

    /// Process ids in this very cgroup. Empty in a threaded one, whose processes its domain lists.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.tasks("cgroup.procs")
    }

    /// Thread ids in this very cgroup.
    #[must_use]
    pub fn threads(&self) -> Vec<u32> {
        self.tasks(match self.version {
            CgroupVersion::V1 => "tasks",
            CgroupVersion::V2 => "cgroup.threads",
        })
    }

    fn tasks(&self, file: &str) -> Vec<u32> {
        let text = bounded::text(&self.dir.join(file), TASKS_LIMIT).unwrap_or_default();
        // 0 stands for a task of an outer pid namespace.
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|id| *id != 0)
            .collect()
    }

    /// Whether `other` is this memcg or below it.
    #[must_use]
    pub fn contains(&self, other: &str) -> bool {
        contains(&self.path, other)
    }

    /// The memcg that kills: the one with the lowest limit from this one up to and including `top`. Of equal limits
    /// the outermost, since its usage is the larger. `None` without any limit.
    #[must_use]
    pub fn limiting(&self, top: &str) -> Option<(Self, u64)> {
        let mut lowest: Option<(Self, u64)> = None;
        let mut here = Some(self.clone());
        while let Some(memcg) = here.filter(|memcg| contains(top, &memcg.path)) {
            here = memcg.parent();
            if let Some(limit) = memcg.limit()
                && lowest.as_ref().is_none_or(|(_, found)| limit <= *found)
            {
                lowest = Some((memcg, limit));
            }
        }
        lowest
    }
}

/// Whether the cgroup path `inner` is `outer` or below it.
#[must_use]
pub fn contains(outer: &str, inner: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Node {
    /// Path of a process's memcg below the memory controller's root; `None` when the process is gone, or sits
    /// outside of what this cgroup namespace shows.
    #[must_use]
    pub fn memcg_path(&self, pid: u32) -> Option<String> {
        let path = self.told_memcg_path(&pid.to_string())?;
        namespace::absolute(&self.namespace, &path)
    }

    /// The same as /proc tells it, in our cgroup namespace.
    pub(super) fn told_memcg_path(&self, process: &str) -> Option<String> {
        let text = bounded::text(&self.proc(&format!("{process}/cgroup")), SMALL)?;
        let path = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            let memory = match self.hierarchy.version {
                CgroupVersion::V1 => controllers.split(',').any(|name| name == "memory"),
                CgroupVersion::V2 => controllers.is_empty(),
            };
            memory.then_some(path)
        })?;
        // A process whose cgroup was removed under it has this appended (kernel: kernel/cgroup/cgroup.c).
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Some(path.to_owned())
    }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
