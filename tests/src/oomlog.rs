//! Logs with kernel OOM reports: the fixtures, the forms that programs write them in, and what must hold whatever
//! became of them on the way.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use headroom::oomlog::explain::{Recorded, compare, explain, render};
use headroom::oomlog::parse;
use serde_json::{Value, json};
use xtask::paths;

/// A message of the kernel.
#[derive(Clone, Debug)]
pub struct Message {
    /// Syslog priority.
    pub priority: u8,
    /// Microseconds since boot.
    pub boot_us: u64,
    /// What it says; may hold line breaks.
    pub text: String,
}

/// Every fixture: name and content.
///
/// # Errors
/// When the repository is not whole.
pub fn fixtures() -> Result<Vec<(String, String)>> {
    let folder = paths::workspace().join("tests/fixtures/oom");
    let mut fixtures = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        fixtures.push((name, fs::read_to_string(&path)?));
    }
    ensure!(fixtures.len() >= 18, "where are the fixtures?");
    fixtures.sort();
    Ok(fixtures)
}

/// The messages of a fixture that was read from /dev/kmsg.
///
/// # Errors
/// When a line is no record.
pub fn messages(kmsg: &str) -> Result<Vec<Message>> {
    let record = |line: &str| -> Option<Message> {
        let (head, text) = line.split_once(';')?;
        let mut fields = head.split(',');
        Some(Message {
            priority: fields.next()?.parse().ok()?,
            boot_us: fields.nth(1)?.parse().ok()?,
            text: text.replace("\\x0a", "\n"),
        })
    };
    let lines = kmsg.lines().filter(|line| !line.starts_with(' '));
    lines
        .map(|line| record(line).with_context(|| format!("no record: {line}")))
        .collect()
}

/// Forms that logs have.
pub const FORMS: [&str; 10] = [
    "kmsg",
    "dmesg",
    "dmesg -T",
    "dmesg -J",
    "journalctl short",
    "journalctl short-iso",
    "journalctl export",
    "journalctl json",
    "syslog",
    "syslog RFC 5424",
];

/// Second of the Unix epoch that stands for boot.
const BOOT: u64 = 1_770_148_620;

/// What a program writes of these messages in one of [`FORMS`].
///
/// # Errors
/// For a form that is none of them.
pub fn written(form: &str, messages: &[Message]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut text = String::new();
    for (number, message) in messages.iter().enumerate() {
        let (seconds, micros) = (message.boot_us / 1_000_000, message.boot_us % 1_000_000);
        let at = jiff::Timestamp::from_microsecond(i64::try_from(BOOT * 1_000_000 + message.boot_us)?)?;
        let head = match form {
            "kmsg" => {
                let escaped = message.text.replace('\n', "\\x0a");
                writeln!(text, "{},{number},{},-;{escaped}", message.priority, message.boot_us)?;
                continue;
            }
            "dmesg -J" => {
                let object = json!({"pri": message.priority, "time": 0, "msg": message.text});
                let time = format!("{seconds:5}.{micros:06}");
                let open = if number == 0 {
                    "{\n   \"dmesg\": [\n      {"
                } else {
                    "      },{"
                };
                writeln!(
                    text,
                    "{open}\n         \"pri\": {},\n         \"time\": {time},\n         \"msg\": {}",
                    object["pri"], object["msg"]
                )?;
                continue;
            }
            "journalctl json" => {
                let entry = json!({"MESSAGE": message.text, "_TRANSPORT": "kernel", "_HOSTNAME": "node1",
                    "__REALTIME_TIMESTAMP": at.as_microsecond().to_string(),
                    "_SOURCE_MONOTONIC_TIMESTAMP": message.boot_us.to_string()});
                writeln!(text, "{entry}")?;
                continue;
            }
            "journalctl export" => {
                export(&mut out, number, at.as_microsecond(), message);
                continue;
            }
            "dmesg" => format!("[{seconds:5}.{micros:06}] "),
            "dmesg -T" => format!("[{}] ", at.strftime("%a %b %e %H:%M:%S %Y")),
            "journalctl short" => format!("{} node1 kernel: ", at.strftime("%b %d %H:%M:%S")),
            "journalctl short-iso" => format!("{} node1 kernel: ", at.strftime("%Y-%m-%dT%H:%M:%S+0000")),
            "syslog" => format!(
                "{} node1 kernel: [{seconds:5}.{micros:06}] ",
                at.strftime("%b %e %H:%M:%S")
            ),
            "syslog RFC 5424" => format!("<{}>1 {at} node1 kernel - - - ", message.priority),
            other => anyhow::bail!("no form {other}"),
        };
        // Programs that print lines repeat the head, or indent; both are what logs of one kernel or another look like.
        let between = if form.starts_with("journalctl") {
            " ".repeat(head.len())
        } else {
            head.clone()
        };
        for (line, part) in message.text.split('\n').enumerate() {
            writeln!(text, "{}{part}", if line == 0 { &head } else { &between })?;
        }
    }
    if form == "dmesg -J" {
        text.push_str("      }\n   ]\n}\n");
    }
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// systemd: Journal Export Format
fn export(out: &mut Vec<u8>, number: usize, realtime: i64, message: &Message) {
    let head = format!(
        "__CURSOR=s=1;i={number:x}\n__REALTIME_TIMESTAMP={realtime}\n_TRANSPORT=kernel\n_HOSTNAME=node1\n\
         _SOURCE_MONOTONIC_TIMESTAMP={}\n",
        message.boot_us
    );
    out.extend_from_slice(head.as_bytes());
    if message.text.contains('\n') {
        out.extend_from_slice(b"MESSAGE\n");
        out.extend_from_slice(&(message.text.len() as u64).to_le_bytes());
    } else {
        out.extend_from_slice(b"MESSAGE=");
    }
    out.extend_from_slice(message.text.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// What `headroom explain --json` says, without when and where it was printed and how many lines that took.
#[must_use]
pub fn facts(document: &Value) -> Value {
    let mut document = document.clone();
    let explanations = document["explanations"].as_array_mut().into_iter().flatten();
    for explanation in explanations {
        explanation["at"] = Value::Null;
        explanation["host"] = Value::Null;
        explanation["lines"] = Value::Null;
    }
    let reports = document["reports"].as_array_mut().into_iter().flatten();
    for report in reports {
        report["stamp"] = Value::Null;
        report["host"] = Value::Null;
        report["lines"] = Value::Null;
        for kill in report["kills"].as_array_mut().into_iter().flatten() {
            kill["stamp"] = Value::Null;
        }
    }
    document
}

/// Does to a log what happens to logs that are cut, pasted, merged and damaged.
#[must_use]
pub fn mutated(log: &[u8], others: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = log.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..random.usize(1..12) {
        let at = random.usize(0..lines.len().max(1));
        if lines.is_empty() {
            break;
        }
        match random.u8(0..10) {
            0 => flip(&mut lines[at], random),
            1 => {
                let length = lines[at].len();
                lines[at].truncate(random.usize(0..=length));
            }
            2 => {
                let next = lines.get(at + 1).cloned().unwrap_or_default();
                lines[at].extend(next);
                if at + 1 < lines.len() {
                    lines.remove(at + 1);
                }
            }
            3 => lines.insert(at, lines[at].clone()),
            4 => {
                let end = random.usize(at..=lines.len());
                lines.splice(at..end, [b"...".to_vec()]);
            }
            5 => {
                let other = random.usize(0..lines.len());
                lines.swap(at, other);
            }
            6 => {
                lines.remove(at);
            }
            7 => {
                let from = random.usize(0..others.len());
                let end = random.usize(from..others.len().min(from + 4096));
                lines.insert(at, others[from..end].to_vec());
            }
            8 => {
                let length = lines[at].len();
                lines[at].drain(..random.usize(0..=length));
            }
            _ => digits(&mut lines[at], random),
        }
    }
    lines.join(&b'\n')
}

fn flip(line: &mut [u8], random: &mut Rng) {
    if !line.is_empty() {
        let at = random.usize(0..line.len());
        line[at] ^= 1 << random.u8(0..8);
    }
}

/// Numbers grow beyond what any type holds, or become something else.
fn digits(line: &mut Vec<u8>, random: &mut Rng) {
    let Some(at) = line.iter().position(u8::is_ascii_digit) else {
        return;
    };
    let with: &[u8] = match random.u8(0..4) {
        0 => b"18446744073709551615",
        1 => b"-1",
        2 => b"99999999999999999999999999",
        _ => b"0x",
    };
    line.splice(at..=at, with.iter().copied());
}

/// What must hold of anything that is taken for a log: it is read and explained without a panic, each line of a report
/// is either understood or counted, and nothing in it reaches a terminal as a control character.
///
/// # Errors
/// Says what does not hold.
pub fn check(log: &[u8]) -> Result<()> {
    let found = parse(log);
    let mut lines = 0;
    for report in &found.reports {
        let count = report.lines;
        ensure!(count.parsed + count.unparsed == count.total, "{count:?}");
        ensure!(report.unparsed.len() as u64 <= count.unparsed, "{count:?}");
        ensure!(
            report.unparsed.len() as u64 == count.unparsed.min(200),
            "lines were dropped: {count:?}"
        );
        lines += count.total;
    }
    // A record may hold several lines, never the other way round.
    ensure!(lines <= found.lines, "{lines} lines of {}", found.lines);
    let mut explanations = Vec::new();
    let guests = [None, Some(1 << 34), Some(0), Some(u64::MAX)];
    for (report, guest) in found.reports.iter().zip(guests.iter().cycle().skip(log.len() % 4)) {
        let explanation = explain(report, *guest);
        let mut text = Vec::new();
        render(&explanation, &mut text)?;
        let text = String::from_utf8(text)?;
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        ensure!(control.is_none(), "{control:?} in {text:?}");
        serde_json::to_string(&explanation)?;
        explanations.push(explanation);
    }
    let compared = compare(&found.reports, &explanations, &Recorded::default());
    ensure!(compared.matched == 0, "nothing was recorded");
    Ok(())
}
