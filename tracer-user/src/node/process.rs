//! Processes and threads, as /proc shows them.

use std::path::Path;

use super::Node;
use super::bounded::{self, SMALL};

/// Most of a command line that is read. libvirt's for a VM with dozens of disks has some 30 KiB.
const CMDLINE_LIMIT: u64 = 256 << 10;
/// Most threads of a process that are listed.
const MAX_THREADS: usize = 16_384;
/// `PF_KTHREAD` (kernel: include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// Programs that are many, told apart by argv[0].
const MULTI_CALL: [&str; 4] = ["busybox", "coreutils", "headroom", "toybox"];

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of its parent.
    pub ppid: u32,
    /// Start time, nanoseconds since boot in steps of a clock tick (10 ms).
    pub start_ns: u64,
    /// Name of its main thread.
    pub comm: String,
    /// Path of its executable, as it sees it; `None` for a kernel thread, or without permission.
    pub exe: Option<String>,
    /// Its command line.
    pub args: Vec<String>,
    /// What it is, in a word: `qemu`, `virtqemud`, `virt-launcher-monitor`, `kworker`.
    pub name: String,
    /// It is a kernel thread.
    pub kernel: bool,
    /// Resident memory when it was looked at.
    pub rss: Rss,
}

/// Resident memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rss {
    /// Anonymous.
    pub anon: u64,
    /// Files.
    pub file: u64,
    /// Shared memory.
    pub shmem: u64,
}

impl Rss {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.anon.saturating_add(self.file).saturating_add(self.shmem)
    }
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Start time, nanoseconds since boot in steps of a clock tick (10 ms).
    pub start_ns: u64,
}

impl Process {
    /// It is a QEMU system emulator. Decided by the executable or argv[0], never by the name of a thread, which any
    /// thread can choose and which QEMU itself may change.
    #[must_use]
    pub fn is_qemu(&self) -> bool {
        self.programs().any(is_qemu_name)
    }

    /// It is KubeVirt's launcher or the launcher's monitor.
    #[must_use]
    pub fn is_virt_launcher(&self) -> bool {
        matches!(self.name.as_str(), "virt-launcher" | "virt-launcher-monitor")
    }

    /// File names of the executable and of argv[0].
    fn programs(&self) -> impl Iterator<Item = &str> {
        self.exe
            .as_deref()
            .into_iter()
            .chain(self.args.first().map(String::as_str))
            .map(file_name)
    }

    fn find_name(&self) -> String {
        if self.is_qemu() {
            return "qemu".to_owned();
        }
        let exe = self.exe.as_deref().map(file_name);
        let arg0 = self
            .args
            .first()
            .map(|arg| file_name(arg))
            .filter(|arg| !arg.is_empty());
        let program = match exe {
            Some(exe) if MULTI_CALL.contains(&exe) => arg0.or(Some(exe)),
            Some(exe) => Some(exe),
            None => arg0,
        };
        match program {
            // passt starts itself again as the build for this CPU (passt.avx2).
            Some(name) if name.starts_with("passt.") => "passt".to_owned(),
            Some(name) => name.to_owned(),
            None if self.kernel => self.comm.split('/').next().unwrap_or_default().to_owned(),
            None => self.comm.clone(),
        }
    }
}

fn is_qemu_name(name: &str) -> bool {
    name.starts_with("qemu-system-") || name == "qemu-kvm" || name == "qemu-system"
}

/// Last component of a path, without the mark of a deleted file.
fn file_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

impl Node {
    /// A process; `None` when it is gone.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Process> {
        let stat = read_stat(&self.proc(&format!("{pid}/stat")))?;
        let mut process = Process {
            pid,
            ppid: stat.ppid,
            start_ns: stat.start_ns,
            comm: stat.comm,
            exe: self.exe(pid),
            args: self.args(pid),
            name: String::new(),
            kernel: stat.flags & PF_KTHREAD != 0,
            rss: self.rss(pid).unwrap_or_default(),
        };
        process.name = process.find_name();
        Some(process)
    }

    /// The threads of a process, by thread id; empty when it is gone.
    #[must_use]
    pub fn threads(&self, pid: u32) -> Vec<Thread> {
        let Ok(entries) = std::fs::read_dir(self.proc(&format!("{pid}/task"))) else {
            return Vec::new();
        };
        let mut threads: Vec<Thread> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .take(MAX_THREADS)
            .filter_map(|tid| self.thread(pid, tid))
            .collect();
        threads.sort_by_key(|thread| thread.tid);
        threads
    }

    /// A thread of a process; `None` when it is gone.
    #[must_use]
    pub fn thread(&self, pid: u32, tid: u32) -> Option<Thread> {
        let stat = read_stat(&self.proc(&format!("{pid}/task/{tid}/stat")))?;
        Some(Thread {
            tid,
            comm: stat.comm,
            start_ns: stat.start_ns,
        })
    }

    /// Start time of a process, nanoseconds since boot: with the process id its identity.
    #[must_use]
    pub fn start_ns(&self, pid: u32) -> Option<u64> {
        read_stat(&self.proc(&format!("{pid}/stat"))).map(|stat| stat.start_ns)
    }

    /// The process that a thread belongs to, for a thread id that came without one.
    #[must_use]
    pub fn process_of_thread(&self, tid: u32) -> Option<u32> {
        let status = bounded::text(&self.proc(&format!("{tid}/status")), SMALL)?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
    }

    /// Resident memory of a process; `None` when it is gone, zero for a kernel thread.
    #[must_use]
    pub fn rss(&self, pid: u32) -> Option<Rss> {
        let status = bounded::text(&self.proc(&format!("{pid}/status")), SMALL)?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
                .map_or(0, |kib| kib.saturating_mul(1024))
        };
        Some(Rss {
            anon: field("RssAnon:"),
            file: field("RssFile:"),
            shmem: field("RssShmem:"),
        })
    }

    fn exe(&self, pid: u32) -> Option<String> {
        let target = std::fs::read_link(self.proc(&format!("{pid}/exe"))).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// The command line, one argument an element; one that is cut off at the limit loses its last, cut argument.
    fn args(&self, pid: u32) -> Vec<String> {
        let bytes = bounded::read(&self.proc(&format!("{pid}/cmdline")), CMDLINE_LIMIT).unwrap_or_default();
        let cut = bytes.len() as u64 == CMDLINE_LIMIT;
        let mut args: Vec<String> = bytes
            .strip_suffix(b"\0")
            .unwrap_or(&bytes)
            .split(|byte| *byte == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        if cut || bytes.is_empty() {
            args.pop();
        }
        args
    }
}

/// What is taken from a `stat` file.
struct Stat {
    comm: String,
    ppid: u32,
    flags: u32,
    start_ns: u64,
}

fn read_stat(path: &Path) -> Option<Stat> {
    parse_stat(&bounded::text(path, SMALL)?)
}

/// `pid (comm) state ppid pgrp session tty tpgid flags ... starttime ...` (proc_pid_stat(5)). The name may hold
/// parentheses and spaces, so it ends at the last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    // Field 3 (state) is the first of the tail.
    let mut fields = tail.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let flags = fields.nth(4)?.parse().ok()?;
    let ticks: u64 = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        comm: comm.to_owned(),
        ppid,
        flags,
        start_ns: ticks.saturating_mul(1_000_000_000 / procfs::ticks_per_second().max(1)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::test_tree::Tree;

    fn process(comm: &[u8], exe: Option<&str>, args: &[&str]) -> Process {
        let tree = Tree::v2();
        tree.process(200, comm, exe, args);
        Node::new(tree.root()).unwrap().process(200).unwrap()
    }

    #[test]
    fn a_process_is_named_by_its_program() {
        let name = |exe, args: &[&str]| process(b"thread", exe, args).name;
        assert_eq!(
            name(Some("/usr/bin/qemu-system-x86_64"), &["/usr/bin/qemu-system-x86_64"]),
            "qemu"
        );
        assert_eq!(name(Some("/usr/libexec/qemu-kvm (deleted)"), &[]), "qemu");
        assert_eq!(name(None, &["/usr/libexec/qemu-kvm", "-S"]), "qemu");
        assert_eq!(
            name(Some("/usr/sbin/virtqemud"), &["virtqemud", "-f", "x"]),
            "virtqemud"
        );
        assert_eq!(name(Some("/usr/bin/passt.avx2"), &["passt"]), "passt");
        assert_eq!(name(Some("/bin/busybox"), &["sleep", "1"]), "sleep");
        assert_eq!(name(Some("/usr/bin/python3"), &["virt-launcher"]), "python3");
    }

    #[test]
    fn a_thread_s_name_makes_no_qemu() {
        let fake = process(b"qemu-system-x86", Some("/tmp/memhold"), &["memhold"]);
        assert!(!fake.is_qemu());
        assert_eq!(fake.name, "memhold");
        let renamed = process(b"main", Some("/usr/bin/qemu-system-x86_64"), &["q"]);
        assert!(renamed.is_qemu());
    }

    #[test]
    fn kernel_threads_lose_their_number() {
        let worker = process(b"kworker/u4:2-events", None, &[]);
        assert!(worker.kernel && worker.args.is_empty() && worker.exe.is_none());
        assert_eq!(worker.name, "kworker");
    }

    #[test]
    fn odd_bytes_in_names_are_kept_visible() {
        let odd = process(b"a) R 1 (\x1b[31m\xff\n", Some("/x"), &["x", "", "y"]);
        assert_eq!(odd.comm, "a) R 1 (\u{1b}[31m\u{fffd}\n");
        assert_eq!(odd.args, ["x", "", "y"]);
        assert_eq!(odd.ppid, 1);
        assert_eq!(odd.start_ns, 200 * 1_000_000_000 / procfs::ticks_per_second());
        assert_eq!((odd.rss.anon, odd.rss.total()), (10 << 10, 60 << 10));
    }

    #[test]
    fn what_is_gone_is_none() {
        let tree = Tree::v2();
        let node = Node::new(tree.root()).unwrap();
        assert_eq!(node.process(4711), None);
        assert_eq!(node.threads(4711), []);
        assert_eq!(node.rss(4711), None);
    }

    #[test]
    fn this_process_and_its_threads_are_found() {
        let Ok(node) = Node::new(Path::new("/")) else {
            return; // A build machine without the memory controller.
        };
        let pid = std::process::id();
        let myself = node.process(pid).unwrap();
        assert!(!myself.kernel && myself.rss.total() > 0 && myself.start_ns > 0);
        assert!(node.threads(pid).iter().any(|thread| thread.tid == pid));
        assert_eq!(node.process_of_thread(pid), Some(pid));
    }

    proptest! {
        #[test]
        fn no_stat_line_panics(text in any::<String>()) {
            let _ = parse_stat(&text);
        }

        #[test]
        fn every_name_comes_out_of_its_stat(comm in "[^\u{0}]{0,15}") {
            let text = format!("7 ({comm}) S 3 7 7 0 -1 64 0 0 0 0 0 0 0 0 20 0 1 0 5 0");
            let stat = parse_stat(&text).unwrap();
            prop_assert_eq!((stat.comm, stat.ppid, stat.flags), (comm, 3, 64));
        }
    }
}
