//! Threads on their way out, and when the kernel is done with them.
//!
//! A thread says that it exits, gives its memory back, leaves /proc, and only then gives back its own stack.
//! kernel: kernel/exit.c `do_exit()`, exit_notify() before exit_task_stack_account() (5.18 to 7.3)

use std::collections::HashMap;

use tracer_common::COMM_LEN;

/// A thread: its id and when it started.
pub type ThreadKey = (u32, u64);
/// A thread's name, as the kernel has it.
pub type Comm = [u8; COMM_LEN];

/// How long a thread that has left /proc may take to its very end, on a busy machine, too.
const LAST_STEPS_NS: u64 = 200_000_000;
/// Threads that are waited for. Each holds some accounts, of which there are 32767 in all: where threads end
/// faster than that, the oldest are waited for less.
const MOST: usize = 512;

/// Threads that are about to end.
#[derive(Debug, Default)]
pub struct Departures {
    /// They said that they exit.
    exiting: HashMap<ThreadKey, Comm>,
    /// They are no longer in /proc, and when that was seen.
    departed: HashMap<ThreadKey, (Comm, u64)>,
}

impl Departures {
    /// A thread said that it exits, or was found to have ended. Saying so again does not make it wait longer.
    pub fn exits(&mut self, thread: ThreadKey, comm: Comm) {
        if !self.departed.contains_key(&thread) {
            self.exiting.insert(thread, comm);
        }
    }

    /// Takes those that are gone for good and charge or give back nothing more. What is read of their accounts from now on
    /// is all there will ever be.
    pub fn gone(&mut self, now_ns: u64, is_alive: impl Fn(ThreadKey) -> bool) -> HashMap<ThreadKey, Comm> {
        let departed = self.exiting.extract_if(|&thread, _| !is_alive(thread));
        self.departed
            .extend(departed.map(|(thread, comm)| (thread, (comm, now_ns))));
        let since = self.oldest_to_keep(now_ns);
        let gone = self.departed.extract_if(|_, (_, seen_ns)| *seen_ns <= since);
        gone.map(|(thread, (comm, _))| (thread, comm)).collect()
    }

    /// Takes all that are no longer in /proc: nothing is traced any more, so nothing more can come of them.
    pub fn all(&mut self, is_alive: impl Fn(ThreadKey) -> bool) -> HashMap<ThreadKey, Comm> {
        let exiting = self.exiting.extract_if(|&thread, _| !is_alive(thread));
        let departed = self.departed.drain().map(|(thread, (comm, _))| (thread, comm));
        departed.chain(exiting).collect()
    }

    /// Those that were seen to depart at this time or before need not be waited for.
    fn oldest_to_keep(&self, now_ns: u64) -> u64 {
        let by_time = now_ns.saturating_sub(LAST_STEPS_NS);
        let Some(excess) = self.departed.len().checked_sub(MOST).filter(|excess| *excess > 0) else {
            return by_time;
        };
        let mut seen: Vec<u64> = self.departed.values().map(|(_, seen_ns)| *seen_ns).collect();
        let (_, last, _) = seen.select_nth_unstable(excess - 1);
        by_time.max(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const COMM: Comm = *b"worker\0\0\0\0\0\0\0\0\0\0";

    fn ids(gone: &HashMap<ThreadKey, Comm>) -> Vec<u32> {
        let mut ids: Vec<u32> = gone.keys().map(|(tid, _)| *tid).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_thread_is_gone_a_while_after_it_left_proc() {
        let mut threads = Departures::default();
        threads.exits((7, 1), COMM);
        threads.exits((8, 1), COMM);
        assert!(threads.gone(1000 * MS, |_| true).is_empty(), "still in /proc");
        assert!(
            threads.gone(1100 * MS, |(tid, _)| tid == 8).is_empty(),
            "its last steps"
        );
        assert!(threads.gone(1299 * MS, |(tid, _)| tid == 8).is_empty());
        let gone = threads.gone(1300 * MS, |(tid, _)| tid == 8);
        assert_eq!((ids(&gone), gone.get(&(7, 1))), (vec![7], Some(&COMM)));
        assert!(threads.gone(9000 * MS, |(tid, _)| tid == 8).is_empty(), "only once");
    }

    #[test]
    fn being_found_again_and_again_makes_no_thread_stay() {
        let mut threads = Departures::default();
        let mut walks = 0;
        loop {
            threads.exits((7, 1), COMM);
            walks += 1;
            if !threads.gone(walks * 100 * MS, |_| false).is_empty() {
                break;
            }
            assert!(walks < 10, "it is waited for without end");
        }
        assert_eq!(walks, 3);
    }

    #[test]
    fn an_id_that_is_used_again_is_another_thread() {
        let mut threads = Departures::default();
        threads.exits((7, 1), COMM);
        threads.gone(100 * MS, |_| false);
        threads.exits((7, 2), COMM);
        let gone = threads.gone(300 * MS, |(_, start_ns)| start_ns == 2);
        assert_eq!(gone.keys().collect::<Vec<_>>(), [&(7, 1)]);
    }

    #[test]
    fn where_threads_end_too_fast_the_oldest_go_first() {
        let mut threads = Departures::default();
        let most = u32::try_from(MOST).unwrap_or(u32::MAX);
        for tid in 0..most {
            threads.exits((tid, 1), COMM);
            assert!(threads.gone(100 * MS + u64::from(tid), |_| false).is_empty());
        }
        threads.exits((most, 1), COMM);
        threads.exits((most + 1, 1), COMM);
        assert_eq!(ids(&threads.gone(101 * MS, |_| false)), [0, 1]);
        for tid in 1000..2000 {
            threads.exits((tid, 1), COMM);
        }
        assert_eq!(
            threads.gone(102 * MS, |_| false).len(),
            MOST + 1000,
            "all of a walk at once"
        );
        assert!(threads.departed.is_empty() && threads.exiting.is_empty());
    }

    #[test]
    fn once_nothing_is_traced_nobody_is_waited_for() {
        let mut threads = Departures::default();
        threads.exits((7, 1), COMM);
        assert!(threads.gone(100 * MS, |_| false).is_empty());
        threads.exits((8, 1), COMM);
        threads.exits((9, 1), COMM);
        assert_eq!(ids(&threads.all(|(tid, _)| tid == 9)), [7, 8]);
    }
}
