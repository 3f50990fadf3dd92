//! The path of a file that only its device and inode are known of: which disk image does the page cache belong to?

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use procfs::process::MountInfo;
use tracer_common::FileKey;

use super::bounded::{self, SMALL};
use super::{Node, maps};

/// Most open files of a process that are looked at.
const MAX_FILES: usize = 65_536;
/// Most of a process's mountinfo that is read.
const MOUNTINFO_LIMIT: u64 = 4 << 20;

impl Node {
    /// Paths of files as the processes that have them open (or mapped) see them. Files that none of them has open
    /// are left out. A path comes from the pod: escape it before it is printed.
    #[must_use]
    pub fn open_paths(&self, pids: &[u32], wanted: &[FileKey]) -> HashMap<FileKey, String> {
        let mut found = HashMap::new();
        for pid in pids {
            if found.len() == wanted.len() {
                break;
            }
            self.open_in(*pid, wanted, &mut found);
            if found.len() < wanted.len() {
                self.mapped_in(*pid, wanted, &mut found);
            }
        }
        found
    }

    fn open_in(&self, pid: u32, wanted: &[FileKey], found: &mut HashMap<FileKey, String>) {
        let folder = self.proc(&format!("{pid}/fd"));
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return;
        };
        let devices = self.mount_devices(pid);
        for entry in entries.filter_map(Result::ok).take(MAX_FILES) {
            let name = entry.file_name();
            let info = self.proc(&format!("{pid}/fdinfo")).join(&name);
            let link = folder.join(&name);
            let Some(key) = key_of(&info, &link, &devices).filter(|key| wanted.contains(key)) else {
                continue;
            };
            if let Ok(target) = std::fs::read_link(&link) {
                found
                    .entry(key)
                    .or_insert_with(|| target.to_string_lossy().into_owned());
            }
        }
    }

    fn mapped_in(&self, pid: u32, wanted: &[FileKey], found: &mut HashMap<FileKey, String>) {
        // A process that is gone has nothing mapped.
        let _ = maps::for_each(&self.proc(&format!("{pid}/maps")), |mapping| {
            if let Some(key) = mapping.file_key().filter(|key| wanted.contains(key)) {
                found.entry(key).or_insert(mapping.path);
            }
            ControlFlow::Continue(())
        });
    }

    /// Device of each mount that the process sees, by the number of the mount.
    fn mount_devices(&self, pid: u32) -> HashMap<u64, u32> {
        let text = bounded::text(&self.proc(&format!("{pid}/mountinfo")), MOUNTINFO_LIMIT).unwrap_or_default();
        text.lines()
            .filter_map(|line| MountInfo::from_line(line).ok())
            .filter_map(|mount| {
                let (major, minor) = mount.majmin.split_once(':')?;
                let device = maps::device(major.parse().ok()?, minor.parse().ok()?);
                Some((u64::try_from(mount.mnt_id).ok()?, device))
            })
            .collect()
    }
}

/// Inode and mount from fdinfo (kernel: fs/proc/fd.c seq_show; `ino` since 5.14): no file system is asked, so one
/// that hangs cannot hang headroom, and the device is the superblock's own where stat() tells another one (btrfs).
fn key_of(info: &Path, link: &Path, devices: &HashMap<u64, u32>) -> Option<FileKey> {
    let text = bounded::text(info, SMALL)?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    if let Some(inode) = field("ino:") {
        let device = *devices.get(&field("mnt_id:")?)?;
        return Some(FileKey {
            inode,
            device,
            padding: 0,
        });
    }
    let metadata = std::fs::metadata(link).ok()?;
    Some(FileKey {
        inode: metadata.ino(),
        device: maps::device(libc::major(metadata.dev()), libc::minor(metadata.dev())),
        padding: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::node::test_tree::Tree;

    fn key(inode: u64) -> FileKey {
        FileKey {
            inode,
            device: maps::device(253, 5),
            padding: 0,
        }
    }

    #[test]
    fn an_open_disk_image_is_named() {
        let tree = Tree::v2();
        tree.proc_file(7, "mountinfo", "41 40 253:5 / /disks rw - ext4 /dev/x rw\n");
        tree.proc_file(7, "fdinfo/12", "pos:\t0\nflags:\t02\nmnt_id:\t41\nino:\t99\n");
        tree.proc_file(7, "fdinfo/13", "pos:\t0\nmnt_id:\t17\nino:\t98\n");
        std::fs::create_dir_all(tree.root().join("proc/7/fd")).unwrap();
        symlink("/disks/disk.img", tree.root().join("proc/7/fd/12")).unwrap();
        symlink("/nowhere", tree.root().join("proc/7/fd/13")).unwrap();
        tree.proc_file(7, "maps", "7f00-7f01 r--p 00000000 fd:05 97  /usr/lib/libc.so\n");
        let node = Node::new(tree.root()).unwrap();
        let paths = node.open_paths(&[6, 7], &[key(97), key(98), key(99)]);
        assert_eq!(paths.len(), 2);
        assert_eq!(paths[&key(99)], "/disks/disk.img");
        assert_eq!(paths[&key(97)], "/usr/lib/libc.so");
    }

    #[test]
    fn a_file_of_this_process_is_named() {
        let Ok(node) = Node::new(Path::new("/")) else {
            return; // A build machine without the memory controller.
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let fd = file.as_file().as_raw_fd();
        let pid = std::process::id();
        let info = node.proc(&format!("{pid}/fdinfo/{fd}"));
        let link = node.proc(&format!("{pid}/fd/{fd}"));
        let key = key_of(&info, &link, &node.mount_devices(pid)).unwrap();
        let paths = node.open_paths(&[pid], &[key]);
        assert_eq!(paths[&key], file.path().to_str().unwrap());
    }
}
