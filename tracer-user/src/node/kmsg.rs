//! The kernel's log, for its own report of an OOM kill.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Node;
use super::syslog::CallLog;

/// A record with its dictionary is at most this long (kernel: kernel/printk/printk.c PRINTKRB_RECORD_MAX and
/// PRINTK_MESSAGE_MAX, 2 KiB; CONSOLE_EXT_LOG_MAX, 8 KiB, before 6.3).
const RECORD_MAX: usize = 8192;
/// Most that one call reads: more than any log buffer a node is booted with holds of OOM reports.
const READ_MAX: usize = 8 << 20;
/// How often [`tail`] reads that much.
const TAIL_READS: usize = 32;

/// A record of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, microseconds of the kernel's local clock. It starts at boot but is not kept in step with any other
    /// clock: on a node that is up for weeks it can be off by seconds.
    pub local_us: u64,
    /// What, as the log has it: bytes that are not printable are escaped as `\x1b`.
    pub text: String,
}

impl Record {
    /// As `dmesg` shows it.
    #[must_use]
    pub fn dmesg(&self) -> String {
        let (seconds, microseconds) = (self.local_us / 1_000_000, self.local_us % 1_000_000);
        format!("[{seconds:>5}.{microseconds:06}] {}", self.text)
    }
}

/// A reader of /dev/kmsg that never waits; where that cannot be opened, of syslog(2).
#[derive(Debug)]
pub struct KernelLog(Source);

#[derive(Debug)]
enum Source {
    Device(File),
    Call(CallLog),
}

impl KernelLog {
    /// A reader of what is logged from now on. Open it before it is needed: which records are new is then a matter of
    /// position, not of clocks.
    ///
    /// # Errors
    /// When /dev/kmsg cannot be opened; without CAP_SYSLOG it often cannot.
    pub fn at_end(node: &Node) -> io::Result<Self> {
        let mut log = Self::at_start(node)?;
        match &mut log.0 {
            Source::Device(file) => drop(file.seek(SeekFrom::End(0))?),
            Source::Call(call) => drop(call.read_new()?),
        }
        Ok(log)
    }

    /// A reader of all that the log still holds.
    ///
    /// # Errors
    /// As [`KernelLog::at_end`].
    pub fn at_start(node: &Node) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(node.root.join("dev/kmsg"));
        match file {
            Ok(file) => Ok(Self(Source::Device(file))),
            // Only the running kernel has a call.
            Err(error) if node.root == Path::new("/") => {
                CallLog::at_start().map_or(Err(error), |call| Ok(Self(Source::Call(call))))
            }
            Err(error) => Err(error),
        }
    }

    /// The records since the last call. What was overwritten before it could be read is skipped.
    ///
    /// # Errors
    /// When the log cannot be read; that there is nothing new is none.
    pub fn read_new(&mut self) -> io::Result<Vec<Record>> {
        let file = match &mut self.0 {
            Source::Device(file) => file,
            Source::Call(call) => return call.read_new(),
        };
        let mut bytes = Vec::new();
        let mut buffer = vec![0; RECORD_MAX];
        while bytes.len() < READ_MAX {
            match file.read(&mut buffer) {
                Ok(0) => break,
                // One record, its newline included.
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // EPIPE: the next record was overwritten, the position is moved to the oldest that is left.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
    }
}

/// The newest records that the log still holds, with at most so many bytes of text.
///
/// # Errors
/// When /dev/kmsg cannot be read.
pub fn tail(node: &Node, bytes: usize) -> io::Result<Vec<Record>> {
    let mut log = KernelLog::at_start(node)?;
    let mut records = VecDeque::new();
    let mut held = 0;
    // A log that grows faster than it can be read must not hold us.
    for _ in 0..TAIL_READS {
        let new = log.read_new()?;
        if new.is_empty() {
            break;
        }
        held += new.iter().map(|record| record.text.len()).sum::<usize>();
        records.extend(new);
        while held > bytes
            && let Some(oldest) = records.pop_front()
        {
            held -= oldest.text.len();
        }
    }
    Ok(records.into())
}

/// `4,1234,5678901,-;text` (kernel: Documentation/ABI/testing/dev-kmsg). Lines of the dictionary start with a space.
fn parse(line: &str) -> Option<Record> {
    let (prefix, text) = line.split_once(';')?;
    if prefix.starts_with(' ') {
        return None;
    }
    Some(Record {
        local_us: prefix.split(',').nth(2)?.parse().ok()?,
        text: text.to_owned(),
    })
}

/// The lines of the last OOM report among these records, from who invoked the killer to who was killed; empty when
/// there is none.
#[must_use]
pub fn last_oom_report(records: &[Record]) -> Vec<String> {
    let Some(first) = records
        .iter()
        .rposition(|record| record.text.contains("invoked oom-killer"))
    else {
        return Vec::new();
    };
    let report = &records[first..];
    let killed = report.iter().rposition(|record| {
        let text = &record.text;
        text.contains("Killed process") || text.contains("are going to be killed") || text.starts_with("oom_reaper:")
    });
    let length = killed.map_or(report.len(), |last| last + 1);
    report[..length].iter().map(|record| record.text.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::node::test_tree::Tree;

    const REPORT: &str = "4,10,500,-;CPU 1/KVM invoked oom-killer: gfp_mask=0xcc0\n SUBSYSTEM=x\n\
        6,11,501,-;memory: usage 1024kB, limit 1024kB, failcnt 3\n\
        3,12,502,-;Memory cgroup out of memory: Killed process 7 (qemu-system-x86)\n\
        6,13,503,-;eth0: link up\n";

    #[test]
    fn only_what_is_new_is_read() {
        let tree = Tree::v2();
        let path = tree.root().join("dev/kmsg");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "6,1,100,-;old invoked oom-killer\n").unwrap();
        let node = Node::new(tree.root()).unwrap();
        let mut log = KernelLog::at_end(&node).unwrap();
        assert_eq!(log.read_new().unwrap(), []);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(REPORT.as_bytes()).unwrap();
        let records = log.read_new().unwrap();
        assert_eq!((records.len(), records[0].local_us), (4, 500));
        let report = last_oom_report(&records);
        assert_eq!(report.len(), 3);
        assert!(report[0].starts_with("CPU 1/KVM invoked") && report[2].contains("Killed process 7"));
        assert_eq!(KernelLog::at_start(&node).unwrap().read_new().unwrap().len(), 5);
    }

    #[test]
    fn the_tail_is_the_newest() {
        let tree = Tree::v2();
        let path = tree.root().join("dev/kmsg");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, REPORT).unwrap();
        let node = Node::new(tree.root()).unwrap();
        assert_eq!(tail(&node, 1 << 20).unwrap().len(), 4);
        let last = tail(&node, 20).unwrap();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].dmesg(), "[    0.000503] eth0: link up");
    }

    #[test]
    fn a_log_without_a_kill_has_no_report() {
        assert!(last_oom_report(&[]).is_empty());
        assert_eq!(parse("no record"), None);
        assert_eq!(parse("4,1;x"), None);
    }

    #[test]
    fn the_kernel_s_own_log_can_be_read_without_waiting() {
        let Some(mut log) = Node::new(Path::new("/"))
            .ok()
            .and_then(|node| KernelLog::at_start(&node).ok())
        else {
            return; // Not allowed here.
        };
        log.read_new().unwrap();
        assert!(log.read_new().unwrap().len() < 1000);
    }
}
