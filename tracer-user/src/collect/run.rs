//! The loop around a collector: it ticks until something ends it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval};

use super::{Collector, EventSink};
use crate::probe::boot_ns;

/// How often the ring buffer is emptied: it has room for some 45,000 charges. They do not wake anyone, since waking costs the
/// thread that charges; kills do.
const TICK: Duration = Duration::from_millis(50);

/// Ticks until `stop` is ready, or until `each`, called after every tick, says that it is the end.
///
/// # Errors
/// What the collector, its sink, `each` or `stop` fail with.
pub async fn run<S: EventSink, E>(
    collector: &mut Collector<S>,
    wake: &AsyncFd<OwnedFd>,
    stop: impl Future<Output = anyhow::Result<E>>,
    mut each: impl FnMut(&mut Collector<S>) -> anyhow::Result<Option<E>>,
) -> anyhow::Result<E> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            ready = wake.readable() => ready?.clear_ready(),
            end = &mut stop => return end,
        }
        collector.tick()?;
        collector.sink().tick(boot_ns())?;
        if let Some(end) = each(collector)? {
            return Ok(end);
        }
    }
}
