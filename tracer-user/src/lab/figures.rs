//! What the kernel says of the lab's container.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::cleanup::{self, Stopped};
use super::tree::{Tree, TreeError, Version, at};

/// How long a figure of memory.stat has to stay what it is to be believed: what CPUs count by themselves is added up every 2 s,
/// and where it is little not even when the file is read.
/// kernel: mm/memcontrol.c FLUSH_TIME (5.16 to 7.3), `memcg_vmstats_needs_flush()` (6.8 to 7.3)
const QUIET: Duration = Duration::from_millis(2300);
/// How long that may take.
const QUIET_DEADLINE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(100);

impl Tree {
    /// Current usage of the container, bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn usage(&self) -> Result<u64, TreeError> {
        let path = self.scope().join(match self.version() {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        });
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        text.trim()
            .parse()
            .map_err(|error| at(&path)(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    /// Kernel memory charged to the container, bytes; `None` where this kernel does not say.
    #[must_use]
    pub fn kernel_memory(&self) -> Option<u64> {
        match self.version() {
            Version::V1 => {
                let text = fs::read_to_string(self.scope().join("memory.kmem.usage_in_bytes")).ok()?;
                text.trim().parse().ok()
            }
            Version::V2 => {
                let text = fs::read_to_string(self.scope().join("memory.stat")).ok()?;
                // `kernel` has everything but sockets, which the charge of a socket step is.
                Some(keyed(&text, "kernel")? + keyed(&text, "sock")?)
            }
        }
    }

    /// Anonymous memory and page cache, shmem included, charged to the container, bytes; `None` where the kernel does not say.
    #[must_use]
    pub fn user_memory(&self) -> Option<u64> {
        let text = fs::read_to_string(self.scope().join("memory.stat")).ok()?;
        let [anon, cache] = match self.version() {
            Version::V1 => ["rss", "cache"],
            Version::V2 => ["anon", "file"],
        };
        Some(keyed(&text, anon)? + keyed(&text, cache)?)
    }

    /// [`Self::user_memory`] once it has come to rest, or as it is when it does not.
    ///
    /// # Errors
    /// When the lab is stopped meanwhile.
    pub fn settled_user_memory(&self) -> Result<Option<u64>, Stopped> {
        let begun = Instant::now();
        let (mut figure, mut since) = (self.user_memory(), begun);
        while since.elapsed() < QUIET && begun.elapsed() < QUIET_DEADLINE {
            cleanup::check()?;
            thread::sleep(STEP);
            let now = self.user_memory();
            if now != figure {
                (figure, since) = (now, Instant::now());
            }
        }
        Ok(figure)
    }

    /// Bytes by which [`Self::user_memory`] may be off on a CPU, however long one waits.
    ///
    /// kernel: mm/memcontrol.c `__mod_memcg_state()`: up to 5.12 each figure leaves up to MEMCG_CHARGE_BATCH (32) pages per CPU
    /// out; since 5.13 (rstat) none is left out. No file tells which; the one that is looked for came with 5.14.
    #[must_use]
    pub fn user_memory_off_by() -> u64 {
        let exact = Path::new("/proc/sys/vm/percpu_pagelist_high_fraction").exists();
        if exact { 0 } else { 2 * 32 * 4096 }
    }

    /// How many processes the kernel has OOM-killed in the container.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let name = match self.version() {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        fs::read_to_string(self.scope().join(name))
            .ok()
            .and_then(|text| keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }
}

/// Value of a `key value` line.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_mistaken_for_a_longer_one() {
        let stat = "kernel_stack 5\nkernel 7\n";
        assert_eq!(keyed(stat, "kernel"), Some(7));
        assert_eq!(keyed(stat, "sock"), None);
    }
}
