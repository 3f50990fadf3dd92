//! What this program itself takes.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What this program takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnUsage {
    /// CPU time since its start, seconds.
    pub cpu_seconds: f64,
    /// Share of one CPU since it was last asked, percent; absent the first time.
    pub cpu_percent: Option<f64>,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// Measures what this program takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnMeter {
    last: Option<(Instant, Duration)>,
}

impl OwnMeter {
    /// Asks. What cannot be read is zero: nothing depends on it.
    pub fn read(&mut self) -> OwnUsage {
        let cpu = cpu_time();
        let now = Instant::now();
        let cpu_percent = self.last.map(|(then, before)| {
            let elapsed = now.duration_since(then).as_secs_f64();
            cpu.saturating_sub(before).as_secs_f64() / elapsed.max(1e-3) * 100.0
        });
        self.last = Some((now, cpu));
        OwnUsage {
            cpu_seconds: cpu.as_secs_f64(),
            cpu_percent,
            resident: resident(),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }
}

fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The second figure of statm is resident pages.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * procfs::page_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_show() {
        let mut meter = OwnMeter::default();
        let before = meter.read();
        let block = vec![1_u8; 32 << 20];
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(50) {
            sum += block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        let after = meter.read();
        assert!(sum > 0 && after.cpu_seconds > before.cpu_seconds);
        assert!(before.cpu_percent.is_none() && after.cpu_percent.is_some_and(|percent| percent > 5.0));
        assert!(after.resident >= before.resident + (24 << 20), "{before:?} {after:?}");
        assert!(after.open_files >= 3);
    }
}
