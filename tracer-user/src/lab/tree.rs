//! The memcg tree of the lab's pod, with the names of a real one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Start of the names of everything that the lab makes: cgroups and folders. The lab's process id follows.
pub const PREFIX: &str = "headroom-lab-";

/// How long a killed process may take to leave its cgroup. Freeing its memory is part of that.
const EMPTY_DEADLINE: Duration = Duration::from_secs(10);

/// Why the lab's memcg tree could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No hierarchy has the memory controller.
    #[error("no cgroup hierarchy with the memory controller is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NoController,
    /// A cgroup file or folder refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError::Io { path, source }
}

/// Which hierarchy has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `memory` hierarchy of its own.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Where the memory controller is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Its mount point.
    pub root: PathBuf,
}

impl Hierarchy {
    /// Finds the hierarchy that has the memory controller.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self, TreeError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path).map_err(at(path))?;
        Self::from_mountinfo(&mounts, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
        .ok_or(TreeError::NoController)
    }

    /// Picks the hierarchy from the text of mountinfo; `controllers` reads what a v2 root offers.
    fn from_mountinfo(mounts: &str, controllers: impl Fn(&Path) -> String) -> Option<Self> {
        let mut unified = None;
        for line in mounts.lines() {
            let (fields, tail) = line.split_once(" - ")?;
            let root = PathBuf::from(fields.split(' ').nth(4)?);
            let mut tail = tail.split(' ');
            match (tail.next(), tail.nth(1)) {
                (Some("cgroup"), Some(options)) if options.split(',').any(|option| option == "memory") => {
                    return Some(Self {
                        version: Version::V1,
                        root,
                    });
                }
                (Some("cgroup2"), _) if controllers(&root).split_whitespace().any(|name| name == "memory") => {
                    unified = Some(Self {
                        version: Version::V2,
                        root,
                    });
                }
                _ => {}
            }
        }
        unified
    }
}

/// Identifiers that a real pod has, from the kernel's random uuids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Uid of the pod: in the cgroup path.
    pub pod_uid: String,
    /// Uid of the virtual machine instance: in the launcher's command line.
    pub vmi_uid: String,
    /// Container id: 64 hexadecimal digits.
    pub container: String,
}

impl Identity {
    /// New random identifiers.
    ///
    /// # Errors
    /// When /proc is not readable.
    pub fn random() -> Result<Self, TreeError> {
        let path = Path::new("/proc/sys/kernel/random/uuid");
        let uuid =
            || -> Result<String, TreeError> { Ok(fs::read_to_string(path).map_err(at(path))?.trim().to_owned()) };
        Ok(Self {
            pod_uid: uuid()?,
            vmi_uid: uuid()?,
            container: format!("{}{}", uuid()?, uuid()?).replace('-', ""),
        })
    }

    /// Path of the compute container's cgroup below the lab's own folder, as the systemd driver and containerd name
    /// it for a burstable pod.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let pod = self.pod_uid.replace('-', "_");
        [
            "kubepods.slice".to_owned(),
            "kubepods-burstable.slice".to_owned(),
            format!("kubepods-burstable-pod{pod}.slice"),
            format!("cri-containerd-{}.scope", self.container),
        ]
        .iter()
        .collect()
    }
}

/// The cgroups of the lab's pod. Dropping it kills what runs in them and removes them.
#[derive(Debug)]
pub struct Tree {
    hierarchy: Hierarchy,
    top: PathBuf,
    scope: PathBuf,
}

impl Tree {
    /// Makes the cgroups and limits the container's.
    ///
    /// # Errors
    /// When the kernel refuses, most often for want of root. Nothing is left behind then.
    pub fn create(hierarchy: &Hierarchy, identity: &Identity, limit: u64) -> Result<Self, TreeError> {
        let top = hierarchy.root.join(format!("{PREFIX}{}", std::process::id()));
        let tree = Self {
            scope: top.join(identity.path()),
            top,
            hierarchy: hierarchy.clone(),
        };
        tree.make_folders()?;
        tree.set_limit(limit)?;
        Ok(tree)
    }

    fn make_folders(&self) -> Result<(), TreeError> {
        let mut folder = self.hierarchy.root.clone();
        let relative = self.relative();
        for name in relative.components() {
            if self.hierarchy.version == Version::V2 {
                enable_memory(&folder)?;
            }
            folder.push(name);
            fs::create_dir(&folder).map_err(at(&folder))?;
            if self.hierarchy.version == Version::V1 {
                // Kernels before 5.11 account to parents only where asked to; later ones have nothing else and may
                // refuse the write.
                let _ = fs::write(folder.join("memory.use_hierarchy"), "1");
            }
        }
        Ok(())
    }

    fn set_limit(&self, limit: u64) -> Result<(), TreeError> {
        let name = match self.hierarchy.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let path = self.scope.join(name);
        fs::write(&path, limit.to_string()).map_err(at(&path))?;
        // A pod has no swap. The files are missing where the kernel accounts none.
        let no_swap = match self.hierarchy.version {
            Version::V1 => fs::write(self.scope.join("memory.memsw.limit_in_bytes"), limit.to_string())
                .and_then(|()| fs::write(self.scope.join("memory.swappiness"), "0")),
            Version::V2 => fs::write(self.scope.join("memory.swap.max"), "0"),
        };
        if let Err(error) = no_swap {
            log::debug!("swap is not limited: {error}");
        }
        Ok(())
    }

    /// The container's cgroup.
    #[must_use]
    pub fn scope(&self) -> &Path {
        &self.scope
    }

    /// Its hierarchy's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.hierarchy.version
    }

    /// The container's cgroup below the memory controller's root, without a leading slash.
    #[must_use]
    pub fn relative(&self) -> PathBuf {
        self.scope
            .strip_prefix(&self.hierarchy.root)
            .unwrap_or(&self.scope)
            .to_owned()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.top) {
            log::warn!("left behind: {error}");
        }
    }
}

fn enable_memory(folder: &Path) -> Result<(), TreeError> {
    let path = folder.join("cgroup.subtree_control");
    fs::write(&path, "+memory").map_err(at(&path))
}

/// Kills what runs in the cgroups of `top` and removes them, innermost first.
fn remove(top: &Path) -> Result<(), TreeError> {
    if !top.exists() {
        return Ok(());
    }
    for folder in subfolders(top) {
        kill_members(&folder);
    }
    let deadline = Instant::now() + EMPTY_DEADLINE;
    for folder in subfolders(top) {
        loop {
            match fs::remove_dir(&folder) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if Instant::now() >= deadline => return Err(at(&folder)(error)),
                Err(_) => {
                    kill_members(&folder);
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
    Ok(())
}

/// `top` and every cgroup below it, innermost first.
fn subfolders(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(subfolders(&entry.path()));
        }
    }
    found.push(top.to_owned());
    found
}

fn kill_members(folder: &Path) {
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse::<i32>().ok()) {
        // 0 stands for a process of another pid namespace; kill(0) would end this process's own group.
        if pid > 0 && pid.unsigned_abs() != std::process::id() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Removes what labs that were themselves killed have left: cgroups and temporary folders whose process is gone.
pub fn sweep(hierarchy: &Hierarchy, temporary: &Path) {
    for path in leftovers(&hierarchy.root) {
        log::info!("removing the cgroups of a lab that was killed: {}", path.display());
        if let Err(error) = remove(&path) {
            log::warn!("left behind: {error}");
        }
    }
    for path in leftovers(temporary) {
        let ours = fs::symlink_metadata(&path)
            .is_ok_and(|data| data.is_dir() && data.uid() == nix::unistd::geteuid().as_raw());
        if ours {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn leftovers(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(owner)
                .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Process id of the lab that a name belongs to.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_container_as_the_systemd_driver_does() {
        let identity = Identity {
            pod_uid: "0a1b2c3d-0000-1111-2222-333344445555".to_owned(),
            vmi_uid: String::new(),
            container: "ab".repeat(32),
        };
        assert_eq!(
            identity.path().to_str(),
            Some(
                "kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod0a1b2c3d_0000_1111_2222_333344445555.slice/\
                 cri-containerd-abababababababababababababababababababababababababababababababab.scope"
            )
        );
    }

    #[test]
    fn random_container_ids_have_64_hexadecimal_digits() {
        let identity = Identity::random().expect("/proc is mounted");
        assert_eq!(identity.container.len(), 64);
        assert!(identity.container.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(identity, Identity::random().expect("/proc is mounted"));
    }

    #[test]
    fn a_v1_controller_wins_over_a_unified_hierarchy_without_it() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                      31 24 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        assert_eq!(
            Hierarchy::from_mountinfo(mounts, |_| "cpuset io".to_owned()),
            Some(Hierarchy {
                version: Version::V1,
                root: "/sys/fs/cgroup/memory".into()
            })
        );
        assert_eq!(
            Hierarchy::from_mountinfo(mounts.lines().next().expect("a line"), |_| "io memory".to_owned())
                .map(|hierarchy| hierarchy.version),
            Some(Version::V2)
        );
    }

    #[test]
    fn leftovers_are_those_of_dead_labs_only() {
        assert_eq!(owner("headroom-lab-17"), Some(17));
        assert_eq!(owner("headroom-lab-17-abc"), Some(17));
        assert_eq!(owner("headroom-labs"), None);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let living = format!("{PREFIX}{}", std::process::id());
        // Beyond the largest process id that a kernel hands out (2^22).
        for name in ["headroom-lab-4194999-x", &living, "other"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        assert_eq!(leftovers(folder.path()), [folder.path().join("headroom-lab-4194999-x")]);
    }

    #[test]
    fn a_dropped_tree_takes_its_processes_along() {
        let hierarchy = Hierarchy::find().expect("a memory controller");
        let identity = Identity::random().expect("/proc is mounted");
        let tree = Tree::create(&hierarchy, &identity, 64 << 20).expect("root and a memory controller");
        let top = tree.top.clone();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        fs::write(tree.scope().join("cgroup.procs"), child.id().to_string()).expect("a move");
        assert_eq!(tree.oom_kills(), 0);
        drop(tree);
        assert!(!top.exists());
        assert!(!child.wait().expect("a child").success());
    }
}
