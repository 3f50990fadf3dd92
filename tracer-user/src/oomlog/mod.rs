//! Kernel OOM reports, parsed and explained.
//!
//! Pure: lines in, [`Report`]s out; no I/O, bounded memory, and never a panic on any input. The data's way:
//! [`frame`] takes what dmesg, journalctl, syslog or /dev/kmsg put around a message away, [`fact`] says what one
//! message states, and [`Parser`] puts facts together into reports. [`Level`] and [`role`] say in a VM's terms which
//! memcg and which thread a report names, and [`explain`] what the whole of it means.
//!
//! A line inside a report that says nothing known is kept in [`Report::unparsed`] and counted, not dropped.

pub mod explain;
pub mod fact;
mod fields;
pub mod frame;
mod level;
mod objects;
mod parser;
mod prefix;
mod report;
pub mod role;

pub use level::{Level, LevelKind};
pub use parser::{Log, Parser, parse};
pub use report::{Counter, Invoker, Kill, LineCount, Reaped, Report, Selection, Stamp, Task};

#[cfg(test)]
mod tests;
