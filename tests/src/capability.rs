//! Capabilities: those of a running process, and programs that start with few of them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use headroom::node::privileges::{PRIVILEGES, Privilege};

/// The sets of a thread, by their names in /proc: `Inh`, `Prm`, `Eff`, `Bnd`, `Amb`.
pub type Sets = BTreeMap<String, u64>;

/// The sets of every thread of a process.
///
/// # Errors
/// When it is gone.
pub fn of_threads(pid: u32) -> Result<Vec<Sets>> {
    fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| parse(&fs::read_to_string(entry?.path().join("status"))?))
        .collect()
}

/// The sets of this thread.
///
/// # Errors
/// When /proc does not tell.
pub fn own() -> Result<Sets> {
    parse(&fs::read_to_string("/proc/thread-self/status")?)
}

/// The sets as `status` of a thread has them.
///
/// # Errors
/// When there are none.
pub fn parse(status: &str) -> Result<Sets> {
    let sets: Result<Sets> = status
        .lines()
        .filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"))
        .map(|(name, bits)| Ok((name.to_owned(), u64::from_str_radix(bits.trim(), 16)?)))
        .collect();
    sets.ok().filter(|sets| sets.len() == 5).context("no capabilities")
}

/// What headroom needs and this process can hand on; a container or a machine for tests may be without some.
///
/// # Errors
/// When /proc does not tell.
pub fn available() -> Result<Vec<&'static Privilege>> {
    let bounding = own()?["Bnd"];
    let has = |privilege: &&Privilege| privilege.capability.bits() & bounding != 0;
    Ok(PRIVILEGES.iter().filter(has).collect())
}

/// The names of what headroom needs and this process cannot hand on.
///
/// # Errors
/// When /proc does not tell.
pub fn unavailable() -> Result<Vec<&'static str>> {
    let available = available()?;
    let names = PRIVILEGES.iter().map(|privilege| privilege.name);
    Ok(names
        .filter(|name| !available.iter().any(|privilege| privilege.name == *name))
        .collect())
}

/// A command line that starts the program behind it as root with these capabilities and no others.
#[must_use]
pub fn only<'a>(privileges: impl IntoIterator<Item = &'a Privilege>) -> Vec<String> {
    let mut set = "--bounding-set=-all".to_owned();
    for privilege in privileges {
        set += ",+";
        set += &privilege.name.trim_start_matches("CAP_").to_ascii_lowercase();
    }
    vec!["setpriv".to_owned(), set, "--inh-caps=-all".to_owned()]
}
