//! Prefixes of one-line log forms: dmesg and its time formats, /dev/kmsg records, journalctl's short forms, syslog.

use std::sync::LazyLock;

use regex::Regex;

use super::frame::{Framed, Message};
use super::report::Stamp;

/// Compiles a pattern of this program's own.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("patterns are literals that tests compile")
}

macro_rules! patterns {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* static $name: LazyLock<Regex> = LazyLock::new(|| pattern($text));)*
    };
}

patterns! {
    /// `prio,seq,usec,flags[,caller=T1];text`
    KMSG = r"(?s)^\d{1,10},\d{1,20},(\d{1,18}),([^;]*);(.*)$";
    /// Syslog priority, with the version of RFC 5424; `dmesg -r`.
    PRIORITY = r"^<\d{1,3}>(\d )?";
    /// `dmesg -x`
    FACILITY = r"^[a-z0-9]{2,10} *:[a-z]{3,7} *: ";
    /// `[    5.298442]`, with `dmesg -d` a delta inside.
    BOOT = r"^\[ *(\d{1,12})\.(\d{1,9})(?: *<[^>]{0,24}>)?\] ?";
    /// `dmesg -T`, `-e`, `-d`
    WALL = r"(?x)^\[( [A-Z][a-z]{2}\ +[A-Z][a-z]{2}\ +\d{1,2}\ [\d:]{5,8}\ \d{4}
        | [A-Z][a-z]{2}\ *\d{1,2}\ \d\d:\d\d(?::\d\d)? | \ *\+\d+\.\d+ )(?:\ *<[^>]{0,24}>)?\]\ ?";
    /// Kernels with CONFIG_PRINTK_CALLER.
    CALLER = r"^\[ *([TC]\d{1,10})\] ?";
    /// journalctl short, syslog of RFC 3164
    SHORT = r"^([A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d(?:\.\d{1,9})?) ";
    /// journalctl short-iso, syslog of RFC 5424, `dmesg --time-format iso`
    ISO = r"^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?) ";
    /// journalctl short-full
    FULL = r"^([A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Z0-9+-]{1,6}) ";
    /// journalctl short-unix
    UNIX = r"^(\d{9,11})\.(\d{1,9}) ";
    /// `host program[pid]: `
    PROGRAM = r"^(\S+) ([^\s:\[\]]+)(?:\[\d+\])?: ?";
    /// `host program pid id structured-data ` of RFC 5424
    PROGRAM_5424 = r"^(\S+) (\S+) \S+ \S+ (?:-|\[[^\]]*\]) ?";
}

pub(super) fn is_kmsg(line: &str) -> bool {
    KMSG.is_match(line)
}

/// Takes the prefix off one line.
pub(super) fn strip(line: &str) -> Framed {
    if let Some(found) = KMSG.captures(line) {
        return Framed::Message(kmsg(&found[1], &found[2], &found[3]));
    }
    let mut rest = line;
    let mut bare = true;
    let mut rfc5424 = false;
    if let Some(found) = PRIORITY.captures(rest) {
        rfc5424 = found.get(1).is_some();
        rest = &rest[found[0].len()..];
        bare = false;
    }
    if let Some(found) = FACILITY.find(rest) {
        rest = &rest[found.end()..];
        bare = false;
    }
    let mut host = None;
    let mut stamp = take_log_time(&mut rest);
    let boot = take_boot_time(&mut rest);
    if stamp.is_some() || boot.is_some() {
        bare = false;
        let program = if rfc5424 { &PROGRAM_5424 } else { &PROGRAM };
        match program.captures(rest) {
            Some(found) if &found[2] == "kernel" => {
                host = Some(found[1].to_owned());
                rest = &rest[found[0].len()..];
            }
            // After dmesg's own times there is no program, and a message may well hold a colon.
            Some(_) if boot.is_none() && stamp.as_ref().is_some_and(|(_, by_program)| *by_program) => {
                return Framed::Foreign;
            }
            _ => {}
        }
    }
    // syslog keeps the kernel's own time after the program.
    let inner = take_boot_time(&mut rest).or(boot);
    if let Some(boot_us) = inner {
        bare = false;
        stamp.get_or_insert_with(|| (Stamp::default(), false)).0.boot_us = Some(boot_us);
    }
    let stamp = stamp.map(|(mut stamp, _)| {
        if stamp.printed.is_empty() {
            stamp.printed = show_time(None, stamp.boot_us);
        }
        stamp
    });
    let (caller, text) = take_caller(rest);
    Framed::Message(Message {
        host,
        bare: bare && caller.is_none(),
        caller,
        stamp,
        text: text.to_owned(),
    })
}

/// Takes a time that is not the kernel's own off the line. The flag says that a program's name should follow.
fn take_log_time(rest: &mut &str) -> Option<(Stamp, bool)> {
    if let Some(found) = WALL.captures(rest) {
        let stamp = printed(found[1].trim());
        *rest = &rest[found[0].len()..];
        return Some((stamp, false));
    }
    for form in [&SHORT, &FULL] {
        if let Some(found) = form.captures(rest) {
            let stamp = printed(&found[1]);
            *rest = &rest[found[0].len()..];
            return Some((stamp, true));
        }
    }
    if let Some(found) = ISO.captures(rest) {
        let mut stamp = printed(&found[1]);
        stamp.unix_us = iso_to_unix_us(&found[1]);
        // dmesg writes a comma before the fraction, and no program after it.
        let by_program = !found[1].contains(',');
        *rest = &rest[found[0].len()..];
        return Some((stamp, by_program));
    }
    let found = UNIX.captures(rest)?;
    let stamp = Stamp {
        printed: found[0].trim_end().to_owned(),
        boot_us: None,
        unix_us: micros(&found[1], &found[2]).and_then(|us| i64::try_from(us).ok()),
    };
    *rest = &rest[found[0].len()..];
    Some((stamp, true))
}

fn take_boot_time(rest: &mut &str) -> Option<u64> {
    let found = BOOT.captures(rest)?;
    let us = micros(&found[1], &found[2]);
    *rest = &rest[found[0].len()..];
    us
}

/// Takes `[T123]` off a message.
pub(super) fn take_caller(text: &str) -> (Option<String>, &str) {
    match CALLER.captures(text) {
        Some(found) => (Some(found[1].to_owned()), &text[found[0].len()..]),
        None => (None, text),
    }
}

fn kmsg(usec: &str, flags: &str, text: &str) -> Message {
    let boot_us = usec.parse().ok();
    let caller = flags.split(',').find_map(|flag| flag.strip_prefix("caller="));
    Message {
        host: None,
        caller: caller.map(str::to_owned),
        stamp: Some(Stamp {
            printed: show_time(None, boot_us),
            boot_us,
            unix_us: None,
        }),
        text: unescape(text),
        bare: false,
    }
}

/// kernel: kernel/printk/printk.c append_char: bytes outside of printable ASCII, and the backslash, as `\xNN`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .strip_prefix(b"x")
            .filter(|_| byte == b'\\')
            .and_then(|hex| hex.first_chunk::<2>())
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn printed(text: &str) -> Stamp {
    Stamp {
        printed: text.to_owned(),
        ..Stamp::default()
    }
}

fn micros(seconds: &str, fraction: &str) -> Option<u64> {
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(fraction)
}

fn iso_to_unix_us(text: &str) -> Option<i64> {
    let mut text = text.replace(',', ".");
    // journalctl before 255 writes the zone as +0000.
    if let Some(sign) = text.len().checked_sub(5)
        && text.is_char_boundary(sign)
        && text[sign..].starts_with(['+', '-'])
    {
        text.insert(sign + 3, ':');
    }
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_microsecond)
}

/// A time for people: UTC where known, else seconds since boot.
pub(super) fn show_time(unix_us: Option<i64>, boot_us: Option<u64>) -> String {
    if let Some(time) = unix_us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
        return time.to_string();
    }
    boot_us.map_or_else(String::new, |us| {
        format!("{}.{:06} s after boot", us / 1_000_000, us % 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> Message {
        match strip(line) {
            Framed::Message(message) => message,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_one_line_form_gives_the_same_message() {
        for line in [
            "oom text: 1",
            "[   12.345678] oom text: 1",
            "[   12.345678][  T123] oom text: 1",
            "<4>[   12.345678] oom text: 1",
            "kern  :warn  : [   12.345678] oom text: 1",
            "[Thu May  9 14:52:38 2024] oom text: 1",
            "[Thu May 9 14:52:38 2024] oom text: 1",
            "[May 9 14:52] oom text: 1",
            "[  +0.000003] oom text: 1",
            "[   12.345678 <    0.000010>] oom text: 1",
            "2024-05-09T14:52:38,123456+00:00 oom text: 1",
            "Feb 03 19:57:08 ** kernel: oom text: 1",
            "Feb  3 19:57:08 node1 kernel: [   12.345678] oom text: 1",
            "Feb  3 19:57:08 node1 kernel: [   12.345678] [  T123] oom text: 1",
            "2024-02-03T19:57:08+0000 node1 kernel: oom text: 1",
            "2024-02-03T19:57:08.123456+01:00 node1 kernel: oom text: 1",
            "Sat 2024-02-03 19:57:08 UTC node1 kernel: oom text: 1",
            "1706990228.123456 node1 kernel: oom text: 1",
            "[   12.345678] node1 kernel: oom text: 1",
            "<4>1 2024-02-03T19:57:08.123Z node1 kernel - - - oom text: 1",
            "<4>Feb  3 19:57:08 node1 kernel: oom text: 1",
            "4,365,8247810,-;oom text: 1",
            "4,365,8247810,-,caller=T123;oom text: 1",
        ] {
            assert_eq!(message(line).text, "oom text: 1", "{line}");
        }
    }

    #[test]
    fn times_and_callers_are_kept() {
        let both = message("Feb  3 19:57:08 node1 kernel: [   12.345678] [  T7] x");
        assert_eq!(
            both.stamp.map(|stamp| (stamp.printed, stamp.boot_us)),
            Some(("Feb  3 19:57:08".into(), Some(12_345_678)))
        );
        assert_eq!(
            (both.host.as_deref(), both.caller.as_deref()),
            (Some("node1"), Some("T7"))
        );
        let iso = message("2024-02-03T19:57:08+0100 n kernel: x");
        assert_eq!(iso.stamp.and_then(|stamp| stamp.unix_us), Some(1_706_986_628_000_000));
    }

    #[test]
    fn other_programs_are_told_apart_and_rows_of_the_task_table_are_not_times() {
        assert_eq!(strip("Feb  3 19:57:08 node1 systemd[1]: Started x."), Framed::Foreign);
        let row = "[    120]     0   120      667      382";
        assert_eq!(message(row).text, row);
        assert!(message(row).bare);
    }

    #[test]
    fn records_are_unescaped() {
        assert_eq!(message(r"6,1,2,-;a\x0ab\x5cx\xc3\xa9").text, "a\nb\\x\u{e9}");
    }
}
