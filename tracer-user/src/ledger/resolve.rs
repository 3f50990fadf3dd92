//! Tells guest RAM from overhead where the probes could not.
//!
//! Two things hide guest RAM from the probes: the tracepoint backend does not see every address, so pages stay
//! `unplaced`; and a QEMU that starts while being watched touches RAM before its ranges are known, so pages count as
//! overhead. smaps knows how much guest RAM became resident, but not who touched it, so the bytes that it shows beyond
//! those known are taken from the threads in proportion to what they hold. That split is an estimate; the sums are not.

use std::collections::BTreeMap;

use tracer_common::{Kind, Region};

use super::Ledger;
use super::account::{Account, ThreadKey};
use super::culprit::Entity;
use super::pod::PodLedger;

/// One thread's (or group of ended threads') part in a pod's growth.
#[derive(Clone, Debug)]
pub struct ThreadGrowth<'a> {
    /// The thread; `None` for a group of ended threads.
    pub key: Option<ThreadKey>,
    /// Who is to blame for it.
    pub entity: Entity,
    /// Its account.
    pub account: &'a Account,
    /// Growth of overhead by kind, with the estimate taken out.
    pub kinds: BTreeMap<Kind, i128>,
}

impl ThreadGrowth<'_> {
    /// Growth of overhead.
    #[must_use]
    pub fn overhead_growth(&self) -> i128 {
        self.kinds.values().sum()
    }

    /// How many threads this is.
    #[must_use]
    pub fn threads(&self) -> u64 {
        self.account.threads.max(1)
    }
}

/// A pod's growth by thread, with guest RAM resolved as far as it goes.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// By thread, the largest growth first.
    pub threads: Vec<ThreadGrowth<'a>>,
    /// Growth of guest RAM: what the probes saw, and what smaps shows beyond that.
    pub guest_growth: i128,
    /// Unplaced bytes that smaps shows to be guest RAM.
    pub placed_by_smaps: i128,
    /// QEMU's overhead that smaps shows to be guest RAM.
    pub reclassified: i128,
    /// Bytes charged of which neither the probes nor smaps say what they back.
    pub region_unknown: i128,
}

/// A place that bytes can be taken from.
struct Source {
    thread: usize,
    kind: Kind,
    bytes: i128,
}

impl Ledger {
    /// A pod's growth by thread.
    #[must_use]
    pub fn resolve<'a>(&'a self, pod: &'a PodLedger) -> Resolved<'a> {
        let mut threads: Vec<ThreadGrowth<'a>> = pod
            .accounts()
            .map(|(key, account)| ThreadGrowth {
                key: Some(key),
                entity: self.entity(key),
                account,
                kinds: overhead_kinds(account),
            })
            .chain(pod.ended().map(|(entity, account)| ThreadGrowth {
                key: None,
                entity: entity.clone(),
                account,
                kinds: overhead_kinds(account),
            }))
            .collect();
        // In a fixed order, so that a remainder always falls to the same thread.
        threads.sort_by(|a, b| (a.key, &a.entity).cmp(&(b.key, &b.entity)));

        let known = pod.total().net(Region::Guest);
        let hidden = self.smaps_growth(pod).map_or(0, |growth| (growth - known).max(0));
        let unplaced = sources(&threads, |_, kind, region| {
            region == Region::Unplaced && kind_may_back_guest(kind)
        });
        let outstanding = unplaced.iter().map(|source| source.bytes).sum::<i128>();
        let placed_by_smaps = take(&mut threads, &unplaced, hidden);
        let rest = hidden - placed_by_smaps;
        let mut reclassified = 0;
        if rest > i128::from(self.tolerance()) && !self.qemu_before_attach(pod) {
            let early = sources(&threads, |thread, kind, region| {
                region == Region::Overhead && kind_may_back_guest(kind) && self.is_qemu(thread, pod)
            });
            reclassified = take(&mut threads, &early, rest);
        }
        threads.sort_by_key(|thread| std::cmp::Reverse(thread.overhead_growth()));
        Resolved {
            threads,
            guest_growth: known + placed_by_smaps + reclassified,
            placed_by_smaps,
            reclassified,
            region_unknown: outstanding - placed_by_smaps,
        }
    }

    /// Growth of resident guest RAM within the window, where smaps was readable.
    fn smaps_growth(&self, pod: &PodLedger) -> Option<i128> {
        let last = pod.guest_last?;
        let at_start = pod.first.as_ref().and_then(|(_, sample)| sample.guest_resident);
        let first = match at_start {
            Some(resident) => resident,
            None if self.qemu_before_attach(pod) => pod.guest_first?,
            None => 0,
        };
        Some(i128::from(last) - i128::from(first))
    }

    fn qemu_before_attach(&self, pod: &PodLedger) -> bool {
        self.process_of(pod.pod.qemu_pid)
            .is_none_or(|process| process.before_attach)
    }

    fn is_qemu(&self, thread: &ThreadGrowth<'_>, pod: &PodLedger) -> bool {
        thread
            .key
            .and_then(|key| self.thread_of(key))
            .is_some_and(|thread| thread.pid == pod.pod.qemu_pid)
    }
}

/// Kinds that guest RAM can be of.
fn kind_may_back_guest(kind: Kind) -> bool {
    matches!(kind, Kind::Anon | Kind::Shmem | Kind::File | Kind::Hugetlb)
}

fn overhead_kinds(account: &Account) -> BTreeMap<Kind, i128> {
    let mut kinds = BTreeMap::new();
    for (kind, region, flow) in account.cells.iter() {
        if region != Region::Guest {
            *kinds.entry(kind).or_default() += flow.net();
        }
    }
    kinds
}

fn sources(threads: &[ThreadGrowth<'_>], wanted: impl Fn(&ThreadGrowth<'_>, Kind, Region) -> bool) -> Vec<Source> {
    let mut sources = Vec::new();
    for (index, thread) in threads.iter().enumerate() {
        for (kind, region, flow) in thread.account.cells.iter() {
            if flow.net() > 0 && wanted(thread, kind, region) {
                sources.push(Source {
                    thread: index,
                    kind,
                    bytes: flow.net(),
                });
            }
        }
    }
    sources
}

/// Takes up to `wanted` bytes out of the sources in proportion to what each holds; gives what was taken.
fn take(threads: &mut [ThreadGrowth<'_>], sources: &[Source], wanted: i128) -> i128 {
    let weights: Vec<i128> = sources.iter().map(|source| source.bytes).collect();
    let shares = apportion(wanted, &weights);
    for (source, share) in sources.iter().zip(&shares) {
        *threads[source.thread].kinds.entry(source.kind).or_default() -= share;
    }
    shares.iter().sum()
}

/// Splits `wanted` (at most the sum of the weights) in proportion to the weights, by largest remainder: the shares add
/// up exactly, and none exceeds its weight.
fn apportion(wanted: i128, weights: &[i128]) -> Vec<i128> {
    let sum: i128 = weights.iter().sum();
    let wanted = wanted.clamp(0, sum);
    if wanted == 0 {
        return vec![0; weights.len()];
    }
    // Weights are below 2^65 and their number below 2^24, so neither product nor sum leaves i128... unless both are at
    // their limits at once, which takes a made-up recording: then the shares are coarse, but still exact in sum.
    let share = |weight: i128| match wanted.checked_mul(weight) {
        Some(product) => (product / sum, product % sum),
        None => ((wanted >> 40) * (weight >> 20) / ((sum >> 60) + 1), 0),
    };
    let mut shares: Vec<i128> = weights.iter().map(|weight| share(*weight).0.min(*weight)).collect();
    let mut left = wanted - shares.iter().sum::<i128>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(share(weights[*index]).1));
    // One byte each is enough for what rounding left; a coarse split may leave more.
    let each = (left / i128::try_from(weights.len()).unwrap_or(1)).max(1);
    while left > 0 {
        for index in &order {
            let more = each.min(left).min(weights[*index] - shares[*index]);
            shares[*index] += more;
            left -= more;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_stay_below_their_weights(
            wanted in 0_i128..1 << 50,
            weights in prop::collection::vec(1_i128..1 << 40, 1..50),
        ) {
            let shares = apportion(wanted, &weights);
            let sum: i128 = weights.iter().sum();
            prop_assert_eq!(shares.iter().sum::<i128>(), wanted.min(sum));
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((0..=*weight).contains(share));
            }
        }
    }

    #[test]
    fn weights_at_their_limits_still_add_up() {
        let weights = [i128::from(u64::MAX); 3];
        let wanted = i128::from(u64::MAX);
        assert_eq!(apportion(wanted, &weights).iter().sum::<i128>(), wanted);
    }
}
