//! Whether the running kernel can be preempted: whether a thread can lose its CPU in the middle of a program.
//!
//! The kernel leaves a fentry or fexit program out while the same program is under way on that CPU, be it in a thread that
//! was preempted (kernel/bpf/trampoline.c `__bpf_prog_enter_recur`, 5.12 to 7.3). Where that can be, each function gets
//! a second program that makes up for it.

use std::fs;
use std::path::Path;

/// Where a kernel with PREEMPT_DYNAMIC says what it does, the one in parentheses: none, voluntary, full or lazy.
const MODE: &str = "sys/kernel/debug/sched/preempt";
/// `#1 SMP PREEMPT_DYNAMIC Debian ...`
const VERSION: &str = "proc/sys/kernel/version";

/// Whether threads may be preempted in the kernel, as far as it tells; if in doubt they may.
pub(super) fn possible(root: &Path) -> bool {
    let read = |path| fs::read_to_string(root.join(path)).ok();
    told(read(MODE).as_deref(), read(VERSION).as_deref())
}

fn told(mode: Option<&str>, version: Option<&str>) -> bool {
    let chosen = mode.and_then(|mode| mode.split(['(', ')']).nth(1));
    match (chosen, version) {
        (Some(mode), _) => !matches!(mode, "none" | "voluntary"),
        (None, Some(version)) => version.contains("PREEMPT"),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_counts_and_without_it_the_build() {
        let dynamic = Some("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2");
        assert!(!told(Some("none (voluntary) full\n"), dynamic));
        assert!(told(Some("none voluntary (full)\n"), dynamic));
        assert!(told(Some("full (lazy)\n"), dynamic));
        assert!(told(None, dynamic));
        assert!(!told(None, Some("#1 SMP Debian 5.10.262-1")));
        assert!(told(None, None));
    }
}
