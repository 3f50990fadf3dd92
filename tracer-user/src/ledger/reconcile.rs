//! Compares the accounts with the kernel's own figures.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::{Kind, Region};

use super::account::Flow;
use super::pod::PodLedger;
use crate::recording::event::Footer;

/// The largest difference seen at any sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// Bytes of usage growth that no account explained.
    pub unexplained: i128,
    /// When.
    pub t: u64,
    /// Samples at which it was beyond the tolerance.
    pub beyond: u64,
    /// Samples compared.
    pub samples: u64,
}

impl Worst {
    pub(super) fn observe(&mut self, t: u64, unexplained: i128, tolerance: u64) {
        self.samples += 1;
        if unexplained.unsigned_abs() > u128::from(tolerance) {
            self.beyond += 1;
        }
        if unexplained.unsigned_abs() > self.unexplained.unsigned_abs() {
            self.unexplained = unexplained;
            self.t = t;
        }
    }
}

/// One kind (or group of kinds) compared with memory.stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindCheck {
    /// A kind's name, or `kernel` for all kernel kinds: no backend tells all of them apart.
    pub kind: &'static str,
    /// Growth in memory.stat, bytes.
    pub stat_growth: i128,
    /// Growth by the accounts, bytes.
    pub accounted: i128,
}

/// How a pod's accounts compare with the kernel's figures at the end of its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// Usage growth that no account explains.
    pub unexplained: i128,
    /// How much is normal.
    pub tolerance: u64,
    /// The worst sample.
    pub worst: Worst,
    /// Kind by kind, for kinds that memory.stat shows. memory.stat itself may be two seconds late.
    pub kinds: Vec<KindCheck>,
}

impl PodLedger {
    /// Compares this pod's accounts with usage and memory.stat.
    #[must_use]
    pub fn reconcile(&self, tolerance: u64) -> Reconciliation {
        let accounted = |kinds: &[Kind]| self.total().net_where(|kind, _| kinds.contains(&kind));
        let single = [Kind::Anon, Kind::File, Kind::Shmem, Kind::Sock, Kind::Hugetlb];
        let mut kinds: Vec<KindCheck> = single
            .into_iter()
            .filter_map(|kind| {
                Some(KindCheck {
                    kind: kind.as_str(),
                    stat_growth: self.stat_growth(kind)?,
                    accounted: accounted(&[kind]),
                })
            })
            .collect();
        let kernel_kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_kernel()).collect();
        let kernel: Vec<i128> = kernel_kinds.iter().filter_map(|&kind| self.stat_growth(kind)).collect();
        if !kernel.is_empty() {
            kinds.push(KindCheck {
                kind: "kernel",
                stat_growth: kernel.iter().sum(),
                accounted: accounted(&kernel_kinds),
            });
        }
        Reconciliation {
            unexplained: self.unexplained(),
            tolerance,
            worst: self.worst,
            kinds,
        }
    }
}

/// A sum of the records that differs from the kernel's map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// cgroup id.
    pub memcg: u64,
    /// What kind of memory.
    pub kind: Kind,
    /// What it backs.
    pub region: Region,
    /// Sum of the records.
    pub records: Flow,
    /// What the map held at the end.
    pub map: Flow,
}

pub(super) fn against_footer(sums: &BTreeMap<(u64, Kind, Region), Flow>, footer: &Footer) -> Vec<Disagreement> {
    let mut map: BTreeMap<(u64, Kind, Region), Flow> = BTreeMap::new();
    for total in &footer.totals {
        map.entry((total.memcg, total.kind, total.region))
            .or_default()
            .add(total.charged, total.uncharged);
    }
    let keys: BTreeSet<_> = sums.keys().chain(map.keys()).copied().collect();
    keys.into_iter()
        .filter_map(|key| {
            let records = sums.get(&key).copied().unwrap_or_default();
            let map = map.get(&key).copied().unwrap_or_default();
            (records != map).then_some(Disagreement {
                memcg: key.0,
                kind: key.1,
                region: key.2,
                records,
                map,
            })
        })
        .collect()
}
