//! Between the thread that traces and the one that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::figures::Figures;
use crate::probe::boot_ns;

/// How long the tracer may take to answer: it looks some 40 times a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// A tracer that has not looked for this long is stuck.
const STUCK_NS: u64 = 5_000_000_000;

/// Hands figures over when they are asked for.
#[derive(Debug)]
pub struct Exchange {
    asked: AtomicBool,
    figures: watch::Sender<Arc<Figures>>,
    /// When the tracer last looked, CLOCK_BOOTTIME nanoseconds; when it began, before it first did.
    looked_ns: AtomicU64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            asked: AtomicBool::new(false),
            figures: watch::Sender::new(Arc::default()),
            looked_ns: AtomicU64::new(boot_ns()),
        }
    }
}

impl Exchange {
    /// The tracer looks whether it was asked.
    pub(super) fn look(&self, now_ns: u64) -> bool {
        self.looked_ns.store(now_ns, Ordering::Relaxed);
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// The tracer's answer.
    pub(super) fn answer(&self, figures: Figures) {
        self.figures.send_replace(Arc::new(figures));
    }

    /// Asks, and waits for figures that are newer than the question; `None` when the tracer does not answer.
    pub(super) async fn ask(&self) -> Option<Arc<Figures>> {
        let mut answers = self.figures.subscribe();
        self.asked.store(true, Ordering::Release);
        timeout(PATIENCE, answers.changed()).await.ok()?.ok()?;
        let figures = Arc::clone(&answers.borrow());
        Some(figures)
    }

    /// For how many nanoseconds the tracer has not looked, where that is too long.
    pub(super) fn stuck(&self, now_ns: u64) -> Option<u64> {
        let since = now_ns.saturating_sub(self.looked_ns.load(Ordering::Relaxed));
        (since > STUCK_NS).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_newer_than_its_question() {
        let exchange = Arc::new(Exchange::default());
        exchange.answer(Figures {
            records: 1,
            ..Figures::default()
        });
        let asking = {
            let exchange = Arc::clone(&exchange);
            tokio::spawn(async move { exchange.ask().await.map(|figures| figures.records) })
        };
        tokio::task::yield_now().await;
        assert!(exchange.look(1) && !exchange.look(2), "asked once");
        exchange.answer(Figures {
            records: 2,
            ..Figures::default()
        });
        assert_eq!(asking.await.expect("it does not panic"), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracer_that_does_not_answer_is_not_waited_for() {
        let exchange = Exchange::default();
        assert!(exchange.ask().await.is_none());
        assert_eq!(exchange.stuck(boot_ns()), None, "it has just begun");
        exchange.look(1);
        assert_eq!(exchange.stuck(STUCK_NS), None);
        assert_eq!(exchange.stuck(STUCK_NS + 2), Some(STUCK_NS + 1));
    }
}
