//! The largest figures of a pod's samples: what a limit has to hold.

use std::collections::BTreeMap;

use tracer_common::Kind;

use crate::recording::event::Sample;

/// Largest figures of the samples within the window, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Firm overhead of the first sample that knew it: usage less resident guest RAM and less page cache that reclaim
    /// could take.
    pub firm_first: Option<u64>,
    /// The largest firm overhead.
    pub firm: Option<u64>,
    /// The largest resident guest RAM.
    pub guest_resident: Option<u64>,
    /// memory.stat by kind, each kind at its own largest.
    pub stat: BTreeMap<Kind, u64>,
    /// The largest sum of all kinds of kernel memory at one sample, where the kernel shows any.
    pub kernel: Option<u64>,
    /// Samples seen.
    pub samples: u64,
}

impl Peaks {
    pub(super) fn observe(&mut self, sample: &Sample) {
        self.samples += 1;
        if let Some(guest) = sample.guest_resident {
            let firm = sample
                .usage
                .saturating_sub(guest)
                .saturating_sub(sample.reclaimable_file);
            self.firm_first.get_or_insert(firm);
            self.firm = self.firm.max(Some(firm));
            self.guest_resident = self.guest_resident.max(Some(guest));
        }
        for (kind, bytes) in &sample.stat {
            let most = self.stat.entry(*kind).or_default();
            *most = (*most).max(*bytes);
        }
        let kernel: Vec<u64> = sample
            .stat
            .iter()
            .filter(|(kind, _)| kind.is_kernel())
            .map(|(_, bytes)| *bytes)
            .collect();
        if !kernel.is_empty() {
            let sum = kernel.into_iter().fold(0, u64::saturating_add);
            self.kernel = self.kernel.max(Some(sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reclaim_could_take_is_not_firm_and_kinds_peak_each_on_its_own() {
        let mut peaks = Peaks::default();
        for (usage, guest, file, pagetable, slab) in [
            (100, Some(60), 10, 5, 1),
            (300, Some(80), 190, 1, 7),
            (150, Some(80), 20, 2, 2),
            (900, None, 0, 0, 0),
        ] {
            peaks.observe(&Sample {
                usage,
                guest_resident: guest,
                reclaimable_file: file,
                stat: [(Kind::Pagetable, pagetable), (Kind::Slab, slab)].into(),
                ..Sample::default()
            });
        }
        assert_eq!((peaks.firm_first, peaks.firm), (Some(30), Some(50)));
        assert_eq!((peaks.guest_resident, peaks.kernel), (Some(80), Some(8)));
        assert_eq!(peaks.stat, [(Kind::Pagetable, 5), (Kind::Slab, 7)].into());
        assert_eq!(peaks.samples, 4);
    }
}
