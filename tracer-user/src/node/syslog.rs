//! The kernel's log by syslog(2). It takes no device: few containers have /dev/kmsg, though they may read the log.

use std::io;

use super::kmsg::Record;

/// kernel: SYSLOG_ACTION_READ_ALL and SYSLOG_ACTION_SIZE_BUFFER, include/linux/syslog.h
const READ_ALL: libc::c_int = 3;
const SIZE_BUFFER: libc::c_int = 10;
/// Most that is read: more than any log buffer a node is booted with holds of OOM reports.
const READ_MAX: usize = 8 << 20;

/// A reader that never waits.
#[derive(Debug)]
pub(super) struct CallLog {
    /// The last line that was read: with the time in front, no two are the same.
    last: Option<Vec<u8>>,
}

impl CallLog {
    /// A reader of all that the log still holds.
    ///
    /// # Errors
    /// Without CAP_SYSLOG, where `kernel.dmesg_restrict` is set.
    pub fn at_start() -> io::Result<Self> {
        read_all()?;
        Ok(Self { last: None })
    }

    /// The records since the last call. What was overwritten before it could be read is skipped.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read_new(&mut self) -> io::Result<Vec<Record>> {
        Ok(self.new_of(&read_all()?))
    }

    fn new_of(&mut self, log: &[u8]) -> Vec<Record> {
        let lines: Vec<&[u8]> = log
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        let known = self
            .last
            .as_ref()
            .and_then(|last| lines.iter().rposition(|line| line == last));
        let new = &lines[known.map_or(0, |known| known + 1)..];
        if let Some(last) = new.last() {
            self.last = Some(last.to_vec());
        }
        new.iter().map(|line| parse(line)).collect()
    }
}

fn read_all() -> io::Result<Vec<u8>> {
    let size = call(SIZE_BUFFER, &mut [])?;
    let mut log = vec![0; size.min(READ_MAX)];
    let length = call(READ_ALL, &mut log)?;
    log.truncate(length);
    Ok(log)
}

fn call(action: libc::c_int, buffer: &mut [u8]) -> io::Result<usize> {
    let length = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes at most `length` bytes into the buffer, which has as many.
    let result = unsafe { libc::klogctl(action, buffer.as_mut_ptr().cast(), length) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `<6>[    5.123456] text`, or `<6>text` where the kernel is told to print no times (kernel: kernel/printk/printk.c
/// `info_print_prefix`). Text is escaped as /dev/kmsg does it.
fn parse(line: &[u8]) -> Record {
    let text = escape(line);
    let text = match text.split_once('>') {
        Some((level, rest)) if level.starts_with('<') => rest,
        _ => &text,
    };
    let timed = text.strip_prefix('[').and_then(|text| {
        let (time, rest) = text.split_once(']')?;
        let (seconds, micros) = time.trim().split_once('.')?;
        let local_us = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
        Some((local_us.checked_add(micros.parse().ok()?)?, rest))
    });
    let (local_us, text) = timed.unwrap_or((0, text));
    Record {
        local_us,
        text: text.trim_start().to_owned(),
    }
}

fn escape(line: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(line.len());
    for &byte in line {
        if (b' '..0x7f).contains(&byte) && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            // A String takes everything.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"<6>[    0.000000] Linux version 6.18\n<4>[12345.000501] CPU 1/KVM invoked oom-killer\n";

    #[test]
    fn only_what_is_new_is_read() {
        let mut log = CallLog { last: None };
        let records = log.new_of(LOG);
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].local_us, 12_345_000_501);
        assert_eq!(records[1].text, "CPU 1/KVM invoked oom-killer");
        assert_eq!(log.new_of(LOG), []);
        let more = [LOG, b"<3>[12346.000001] Killed process 7 (a\x1b\\)\n"].concat();
        let new = log.new_of(&more);
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].text, "Killed process 7 (a\\x1b\\x5c)");
        // What was known is gone from the log: everything left is new.
        assert_eq!(
            log.new_of(b"<6>no time\n"),
            [Record {
                local_us: 0,
                text: "no time".to_owned()
            }]
        );
    }

    #[test]
    fn the_kernel_s_own_log_is_that_of_the_device() {
        let Ok(mut log) = CallLog::at_start() else {
            return; // Not allowed here.
        };
        assert!(!log.read_new().unwrap().is_empty());
        assert!(log.read_new().unwrap().len() < 1000);
    }
}
