//! A node made of files, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A root with /proc and /sys/fs/cgroup below it.
pub struct Tree {
    dir: TempDir,
    mount: PathBuf,
    v2: bool,
}

impl Tree {
    fn new(mountinfo: &str, mount: &str, v2: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join(mount);
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::create_dir_all(&mount).unwrap();
        fs::write(dir.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        Self { dir, mount, v2 }
    }

    /// Unified hierarchy.
    pub fn v2() -> Self {
        let mountinfo = "22 28 0:21 / /proc rw,nosuid - proc proc rw\n\
             34 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let tree = Self::new(mountinfo, "sys/fs/cgroup", true);
        fs::write(tree.mount.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        tree
    }

    /// A hierarchy for each controller.
    pub fn v1() -> Self {
        let mountinfo = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid,relatime shared:17 - cgroup cgroup rw,memory\n";
        let tree = Self::new(mountinfo, "sys/fs/cgroup/memory", false);
        fs::write(tree.mount.join("cgroup.procs"), "").unwrap();
        tree
    }

    /// As v1, with a unified hierarchy without controllers beside it.
    pub fn hybrid() -> Self {
        let tree = Self::v1();
        let path = tree.root().join("proc/self/mountinfo");
        let unified = "30 31 0:28 / /sys/fs/cgroup/unified rw shared:8 - cgroup2 cgroup2 rw,nsdelegate\n";
        fs::write(&path, format!("{unified}{}", fs::read_to_string(&path).unwrap())).unwrap();
        fs::create_dir_all(tree.root().join("sys/fs/cgroup/unified")).unwrap();
        fs::write(tree.root().join("sys/fs/cgroup/unified/cgroup.controllers"), "\n").unwrap();
        tree
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A memcg, made if need be.
    pub fn memcg(&self, path: &str) -> TreeMemcg {
        let dir = self.mount.join(path.trim_start_matches('/'));
        fs::create_dir_all(&dir).unwrap();
        TreeMemcg { dir }
    }

    /// A memcg with usage and limit (`None`: no limit) and these processes in it.
    pub fn group(&self, path: &str, usage: u64, limit: Option<u64>, pids: &[u32]) -> TreeMemcg {
        let procs: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        for pid in pids {
            let line = if self.v2 { "0::" } else { "9:memory:" };
            self.proc_file(*pid, "cgroup", format!("{line}{path}\n"));
        }
        let (usage_file, limit_file) = if self.v2 {
            ("memory.current", "memory.max")
        } else {
            ("memory.usage_in_bytes", "memory.limit_in_bytes")
        };
        let unlimited = if self.v2 { "max" } else { "9223372036854771712" };
        self.memcg(path)
            .file("cgroup.procs", procs)
            .file(usage_file, format!("{usage}\n"))
            .file(
                limit_file,
                format!(
                    "{}\n",
                    limit.map_or_else(|| unlimited.to_owned(), |limit| limit.to_string())
                ),
            )
    }

    /// A file below /proc/PID.
    pub fn proc_file(&self, pid: u32, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(format!("proc/{pid}/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A process with an executable (none: a kernel thread) and a command line, and a main thread of name `comm`.
    pub fn process(&self, pid: u32, comm: &[u8], exe: Option<&str>, args: &[&str]) {
        let cmdline: Vec<u8> = args.iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
        self.proc_file(pid, "cmdline", cmdline);
        self.proc_file(pid, "status", status(comm));
        let flags = if exe.is_some() { "4194560" } else { "2129984" };
        self.proc_file(pid, "stat", stat(pid, comm, flags));
        self.thread(pid, pid, comm);
        if let Some(exe) = exe {
            let link = self.root().join(format!("proc/{pid}/exe"));
            let _ = fs::remove_file(&link);
            symlink(exe, link).unwrap();
        }
    }

    /// A thread of a process.
    pub fn thread(&self, pid: u32, tid: u32, comm: &[u8]) {
        self.proc_file(pid, &format!("task/{tid}/stat"), stat(tid, comm, "4194368"));
    }
}

/// A memcg of the tree.
pub struct TreeMemcg {
    dir: PathBuf,
}

impl TreeMemcg {
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.join(name), content).unwrap();
        self
    }
}

/// Starts `tid` clock ticks after boot.
fn stat(tid: u32, comm: &[u8], flags: &str) -> Vec<u8> {
    let tail = format!(
        ") S 1 {tid} {tid} 0 -1 {flags} 100 0 0 0 1 2 0 0 20 0 3 0 {tid} 104857600 5000 18446744073709551615 1 1 0 0 0 \
         0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    [format!("{tid} (").as_bytes(), comm, tail.as_bytes()].concat()
}

fn status(comm: &[u8]) -> Vec<u8> {
    let tail = "\nUmask:\t0022\nState:\tS (sleeping)\nVmRSS:\t  60 kB\nRssAnon:\t      10 kB\nRssFile:\t      20 \
                kB\nRssShmem:\t      30 kB\nThreads:\t3\n";
    [b"Name:\t", comm, tail.as_bytes()].concat()
}
