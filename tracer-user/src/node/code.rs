//! The code that a process runs: its executable mappings, and the files behind them.
//!
//! Whoever runs in a pod decides what is mapped, under which names, and what becomes of the files. So a file is opened by
//! its mapping and not by a path; where that is not allowed, by its path within the process's own root, which nothing on
//! the way can lead out of.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::Node;
use super::maps::{self, Mapping};

/// Executable mappings of a process that are told apart. QEMU with its modules has some 200.
const MAX_MAPPINGS: usize = 4096;

impl Node {
    /// The executable mappings of a process, by address; `None` when it is gone.
    #[must_use]
    pub fn code_mappings(&self, pid: u32) -> Option<Vec<Mapping>> {
        let mut mappings = Vec::new();
        maps::for_each(&self.proc(&format!("{pid}/maps")), |mapping| {
            if mapping.executable {
                mappings.push(mapping);
            }
            if mappings.len() < MAX_MAPPINGS {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Some(mappings)
    }

    /// Opens the file behind a mapping of a process to read it: a regular file, or none.
    #[must_use]
    pub fn open_mapped(&self, pid: u32, mapping: &Mapping) -> Option<File> {
        if mapping.inode == 0 {
            return None;
        }
        let range = format!("{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        let by_mapping = pinned(&self.proc(&range));
        let found = by_mapping.or_else(|| {
            let found = in_root(&self.proc(&format!("{pid}/root")), Path::new(path_of(mapping)))?;
            // Another file may have taken its place.
            (found.metadata().ok()?.ino() == mapping.inode).then_some(found)
        })?;
        readable(&found)
    }
}

/// The path of a mapping's file as its process sees it, also when that is deleted.
#[must_use]
pub fn path_of(mapping: &Mapping) -> &str {
    mapping.path.strip_suffix(" (deleted)").unwrap_or(&mapping.path)
}

/// A descriptor of what is there, without opening it: opening a device or a pipe can have consequences.
///
/// kernel: fs/proc/base.c proc_map_files_get_link wants CAP_CHECKPOINT_RESTORE (5.9) or CAP_SYS_ADMIN.
fn pinned(path: &Path) -> Option<File> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .ok()
        .map(File::from)
}

fn in_root(root: &Path, path: &Path) -> Option<File> {
    let root = open(
        root,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how).ok().map(File::from)
}

/// Opens what a descriptor stands for, if it is a regular file.
fn readable(found: &File) -> Option<File> {
    if !found.metadata().ok()?.is_file() {
        return None;
    }
    File::open(PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()))).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Our own code, by way of /proc.
    fn own() -> (Node, u32, Mapping) {
        let node = Node::new(Path::new("/")).expect("this machine has memory cgroups");
        let pid = std::process::id();
        let here = own as fn() -> (Node, u32, Mapping) as usize as u64;
        let mappings = node.code_mappings(pid).expect("this process lives");
        let mapping = mappings
            .into_iter()
            .find(|mapping| (mapping.start..mapping.end).contains(&here));
        (node, pid, mapping.expect("this function is mapped"))
    }

    #[test]
    fn the_file_behind_a_mapping_is_opened() {
        let (node, pid, mapping) = own();
        let mut magic = [0; 4];
        node.open_mapped(pid, &mapping).unwrap().read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        assert_eq!(path_of(&mapping), std::env::current_exe().unwrap().to_str().unwrap());
    }

    #[test]
    fn a_path_within_a_root_does_not_leave_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "of the node").unwrap();
        std::fs::write(root.join("lib.so"), "of the pod").unwrap();
        symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink("/lib.so", root.join("inside")).unwrap();
        assert!(in_root(&root, Path::new("/absolute")).is_none());
        assert!(in_root(&root, Path::new("/relative")).is_none());
        assert!(in_root(&root, Path::new("/../secret")).is_none());
        let inside = in_root(&root, Path::new("/inside")).expect("a link within the root");
        let mut text = String::new();
        readable(&inside).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "of the pod");
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let found = pinned(&pipe).unwrap();
        assert!(
            readable(&found).is_none(),
            "opening it would wait for a writer for good"
        );
        assert!(readable(&pinned(Path::new("/dev/null")).unwrap()).is_none());
    }
}
