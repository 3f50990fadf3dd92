//! What there is to say at one moment.

use std::collections::BTreeMap;

use tracer_common::Kind;

use super::label::OTHER;
use super::stalls::Stalls;
use crate::node::own::OwnUsage;
use crate::recording::event::{AlertKind, Loss};

/// Pods with labels of their own. A node runs at most 110 pods by default; KubeVirt nodes are told to allow more.
const MOST_PODS: usize = 256;
/// Series by role and kind, all pods together; pods beyond that have their roles added up.
const MOST_SERIES: usize = 8192;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The pods that are there.
    pub pods: Vec<PodFigures>,
    /// Pods that are added up as one since there are too many.
    pub folded: usize,
    /// What was lost since tracing began.
    pub loss: Loss,
    /// Charge records since tracing began.
    pub records: u64,
    /// Alerts raised since tracing began.
    pub alerts: BTreeMap<AlertKind, u64>,
    /// Kills in watched pods since tracing began.
    pub kills: u64,
    /// What this program takes.
    pub own: OwnUsage,
    /// When it began to trace, seconds since the Unix epoch.
    pub began_unix_s: f64,
}

/// Bytes by role and kind.
pub type ByRole = BTreeMap<(String, &'static str), i64>;

/// A pod. Sizes are bytes; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFigures {
    /// Label.
    pub namespace: String,
    /// Label.
    pub vm: String,
    /// What the kernel counts as used.
    pub usage: Option<u64>,
    /// Its limit.
    pub limit: Option<u64>,
    /// Limit less usage.
    pub headroom: Option<u64>,
    /// Page cache that reclaim could take.
    pub reclaimable: Option<u64>,
    /// Size of guest RAM.
    pub guest_ram: u64,
    /// Guest RAM that is resident.
    pub guest_resident: Option<u64>,
    /// Seconds until the limit is expected to be met, where that is forecast.
    pub eta_s: Option<f64>,
    /// Overhead by role and kind.
    pub overhead: ByRole,
    /// What of it is held of what was charged since tracing began, page by page; none where pages are not followed.
    pub live: ByRole,
    /// Growth of usage that no account explains.
    pub unexplained: Option<i64>,
    /// Alerts that were raised once, and whether they stand.
    pub alerts: BTreeMap<AlertKind, bool>,
    /// Reclaim before charges.
    pub stalls: Stalls,
}

impl PodFigures {
    /// Adds another pod's figures: sums, and the least of what is left.
    fn merge(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a.unwrap_or(0).saturating_add(b?)).or(a);
        self.usage = sum(self.usage, other.usage).or(self.usage);
        self.limit = sum(self.limit, other.limit).or(self.limit);
        self.reclaimable = sum(self.reclaimable, other.reclaimable).or(self.reclaimable);
        self.guest_resident = sum(self.guest_resident, other.guest_resident).or(self.guest_resident);
        self.guest_ram = self.guest_ram.saturating_add(other.guest_ram);
        self.headroom = [self.headroom, other.headroom].into_iter().flatten().min();
        self.eta_s = [self.eta_s, other.eta_s].into_iter().flatten().min_by(f64::total_cmp);
        if let Some(more) = other.unexplained {
            self.unexplained = Some(self.unexplained.unwrap_or(0).saturating_add(more));
        }
        for (sums, more) in [(&mut self.overhead, &other.overhead), (&mut self.live, &other.live)] {
            for ((_, kind), bytes) in more {
                add(sums, OTHER.to_owned(), kind, *bytes);
            }
        }
        for (kind, raised) in &other.alerts {
            *self.alerts.entry(*kind).or_default() |= raised;
        }
        self.stalls.merge(&other.stalls);
    }

    /// Adds up all roles but `before`.
    fn fold_roles(&mut self) {
        for sums in [&mut self.overhead, &mut self.live] {
            for ((role, kind), bytes) in std::mem::take(sums) {
                let kept = role == super::label::BEFORE;
                add(sums, if kept { role } else { OTHER.to_owned() }, kind, bytes);
            }
        }
    }

    fn series(&self) -> usize {
        self.overhead.len() + self.live.len()
    }
}

/// Adds to a role's bytes of a kind.
pub(super) fn add(sums: &mut ByRole, role: String, kind: &'static str, bytes: i64) {
    let sum = sums.entry((role, kind)).or_default();
    *sum = sum.saturating_add(bytes);
}

/// At most so many pods and series, whatever is on the node: the first ones keep what they have, the rest is added up.
pub(super) fn bounded(pods: impl IntoIterator<Item = PodFigures>) -> (Vec<PodFigures>, usize) {
    let mut kept: Vec<PodFigures> = Vec::new();
    let mut others: Option<PodFigures> = None;
    let (mut series, mut folded) = (0, 0);
    for mut pod in pods {
        if kept.len() >= MOST_PODS {
            let others = others.get_or_insert_with(|| PodFigures {
                namespace: OTHER.to_owned(),
                vm: OTHER.to_owned(),
                ..PodFigures::default()
            });
            others.merge(&pod);
            folded += 1;
            continue;
        }
        if series + pod.series() > MOST_SERIES {
            pod.fold_roles();
        }
        series += pod.series();
        kept.push(pod);
    }
    kept.extend(others);
    (kept, folded)
}

/// A kind as a label.
pub(super) fn kind(kind: Kind) -> &'static str {
    kind.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: usize, roles: usize) -> PodFigures {
        PodFigures {
            vm: number.to_string(),
            usage: Some(10),
            headroom: Some(number as u64),
            guest_ram: 1,
            overhead: (0..roles).map(|role| ((format!("other {role}"), "anon"), 2)).collect(),
            live: (0..roles).map(|role| ((format!("other {role}"), "anon"), 1)).collect(),
            ..PodFigures::default()
        }
    }

    #[test]
    fn pods_beyond_the_cap_are_one() {
        let (kept, folded) = bounded((0..MOST_PODS + 50).map(|number| pod(number, 3)));
        assert_eq!((kept.len(), folded), (MOST_PODS + 1, 50));
        let other = kept.last().expect("it is there");
        assert_eq!((other.namespace.as_str(), other.vm.as_str()), (OTHER, OTHER));
        assert_eq!((other.usage, other.guest_ram), (Some(500), 50));
        assert_eq!(other.headroom, Some(MOST_PODS as u64), "the least of them");
        assert_eq!(other.overhead[&(OTHER.to_owned(), "anon")], 300);
        assert_eq!(other.live[&(OTHER.to_owned(), "anon")], 150);
        assert_eq!(other.limit, None);
    }

    #[test]
    fn series_are_bounded_and_no_byte_is_lost() {
        let (kept, folded) = bounded((0..200).map(|number| pod(number, 100)));
        let series: usize = kept.iter().map(PodFigures::series).sum();
        assert!(folded == 0 && series <= MOST_SERIES + 2 * 200, "{series}");
        let bytes: i64 = kept.iter().flat_map(|pod| pod.overhead.values()).sum();
        assert_eq!(bytes, 200 * 100 * 2);
        let live: i64 = kept.iter().flat_map(|pod| pod.live.values()).sum();
        assert_eq!(live, 200 * 100);
    }
}
