//! From a limit back to the VMs that explain it.

use std::cmp::Reverse;
use std::collections::HashSet;

use serde::Serialize;

use super::budget::{as_enforced, budget};
use super::ratio::Ratio;
use super::version::KubeVirt;
use super::vm::Vm;
use super::{GIB, MIB};

const RATIOS: [&str; 5] = ["1", "1.5", "2", "2.5", "3"];
const OVERCOMMITS: [u64; 7] = [100, 150, 200, 250, 300, 400, 500];
const MAX_VCPUS: u64 = 128;
/// No overhead that is tried exceeds this.
const MAX_OVERHEAD: u64 = 8 * GIB;

/// What is known beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The release.
    pub kubevirt: Option<KubeVirt>,
    /// The number of vCPUs.
    pub vcpus: Option<u64>,
}

/// A VM that has exactly this limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// The first release with this arithmetic.
    pub kubevirt: String,
    /// `limits.memory`.
    pub memory: u64,
    /// `requests.memory`.
    pub request: u64,
    /// Memory over request, in percent.
    pub overcommit: u64,
    /// vCPUs.
    pub vcpus: u64,
    /// The ratio.
    pub ratio: &'static str,
    /// Whose limit it is.
    pub scope: &'static str,
    /// How usual the shape is: lower is more so.
    pub oddity: u32,
}

/// The VMs whose container or pod has this limit, the most usual shapes first.
#[must_use]
pub fn fit(limit: u64, known: Known) -> Vec<Fit> {
    let target = as_enforced(limit);
    let releases = known.kubevirt.map_or_else(KubeVirt::distinct, |release| vec![release]);
    let mut fits = Vec::new();
    for kubevirt in releases {
        for ratio in RATIOS.iter().filter(|ratio| **ratio == "1" || kubevirt.since(1, 0)) {
            for overcommit in OVERCOMMITS {
                for memory in memories(target) {
                    shapes(target, kubevirt, (ratio, overcommit, memory), known.vcpus, &mut fits);
                }
            }
        }
    }
    // Releases are tried from the oldest on: a shape that a newer one explains too is listed once, with the first.
    let mut seen = HashSet::new();
    fits.retain(|fit| seen.insert((fit.memory, fit.request, fit.vcpus, fit.ratio, fit.scope)));
    fits.sort_by_key(|fit| (fit.oddity, Reverse(fit.memory)));
    fits
}

/// Whole GiB below the limit, and steps of 256 MiB below 4 GiB.
fn memories(target: u64) -> impl Iterator<Item = u64> {
    let step = if target <= 4 * GIB { 256 * MIB } else { GIB };
    let last = target / step;
    let first = (target.saturating_sub(MAX_OVERHEAD) / step).max(1);
    (first..=last).map(move |count| count * step)
}

/// Adds the vCPU counts that fit. Limits grow with the vCPUs, and the pod's is never below the container's: those that fit lie
/// between where the former reaches the target and where the latter passes it.
fn shapes(
    target: u64,
    kubevirt: KubeVirt,
    (ratio, overcommit, memory): (&'static str, u64, u64),
    vcpus: Option<u64>,
    fits: &mut Vec<Fit>,
) {
    let Ok(factor) = Ratio::kubevirt(ratio) else { return };
    let Some(hundredths) = memory.checked_mul(100) else {
        return;
    };
    let request = hundredths / overcommit / MIB * MIB;
    let limits = |vcpus| limits(kubevirt, factor, memory, request, vcpus);
    let counts: Vec<u64> = vcpus.map_or(1..=MAX_VCPUS, |vcpus| vcpus..=vcpus).collect();
    let first = counts.partition_point(|&vcpus| limits(vcpus).is_some_and(|(_, pod)| pod < target));
    for &vcpus in &counts[first..] {
        let Some((container, pod)) = limits(vcpus).filter(|(container, _)| *container <= target) else {
            return;
        };
        let scope = match (container == target, pod == target) {
            (true, true) => "container and pod",
            (true, false) => "container",
            (false, true) => "pod",
            (false, false) => continue,
        };
        fits.push(Fit {
            kubevirt: kubevirt.0.to_string(),
            memory,
            request,
            overcommit,
            vcpus,
            ratio,
            scope,
            oddity: oddity(memory, overcommit, vcpus, ratio),
        });
    }
}

/// The container's and the pod's limit of a VM.
fn limits(kubevirt: KubeVirt, factor: Ratio, memory: u64, request: u64, vcpus: u64) -> Option<(u64, u64)> {
    let vm = Vm {
        guest: Some(memory),
        request: Some(request),
        limit: Some(memory),
        vcpus,
        ..Vm::default()
    };
    let budget = budget(kubevirt, &vm, factor).ok()?;
    Some((as_enforced(budget.container_limit?), as_enforced(budget.pod_limit?)))
}

fn oddity(memory: u64, overcommit: u64, vcpus: u64, ratio: &str) -> u32 {
    let vcpus = if vcpus.is_power_of_two() {
        0
    } else {
        2 + 3 * u32::from(vcpus % 2 == 1)
    };
    let memory = if memory.is_power_of_two() {
        0
    } else {
        2 + 2 * u32::from(!memory.is_multiple_of(GIB))
    };
    let overcommit = match overcommit {
        100 | 150 => 0,
        _ => 2,
    };
    let ratio = match ratio {
        "1" => 0,
        "1.5" => 1,
        _ => 3,
    };
    vcpus + memory + overcommit + ratio
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_vm_explains_its_own_limits(
            release in 0..KubeVirt::distinct().len(), gib in 1_u64..256, vcpus in 1..=MAX_VCPUS, ratio in 0..RATIOS.len(),
        ) {
            let kubevirt = KubeVirt::distinct()[release];
            let ratio = if kubevirt.since(1, 0) { RATIOS[ratio] } else { "1" };
            let factor = Ratio::kubevirt(ratio).expect("a usual ratio");
            let memory = gib * GIB;
            let (container, pod) = limits(kubevirt, factor, memory, memory, vcpus).expect("no absurd VM");
            for limit in [container, pod] {
                let fits = fit(limit, Known { kubevirt: Some(kubevirt), vcpus: None });
                let found = fits.iter().any(|fit| (fit.memory, fit.request, fit.vcpus, fit.ratio) == (memory, memory, vcpus, ratio));
                prop_assert!(found, "{limit}: {fits:?}");
            }
        }
    }

    #[test]
    fn explains_the_limits_of_two_kernel_logs() {
        for (kilobytes, memory, request, vcpus) in [
            (17_024_340_u64, 16 * GIB, 10922 * MIB, 2),
            (67_579_904, 64 * GIB, 64 * GIB, 16),
        ] {
            let fits = fit(kilobytes * 1024, Known::default());
            let best = &fits[0];
            assert_eq!(
                (best.memory, best.request, best.vcpus),
                (memory, request, vcpus),
                "{fits:?}"
            );
            assert_eq!((best.kubevirt.as_str(), best.scope), ("0.54.0", "container and pod"));
        }
    }

    #[test]
    fn knows_whose_limit_it_is_and_when_nothing_fits() {
        let fits = fit(
            2_472_419_328,
            Known {
                vcpus: Some(2),
                ..Known::default()
            },
        );
        assert!(
            fits.iter().any(|fit| fit.scope == "pod" && fit.request == 1365 * MIB),
            "{fits:?}"
        );
        let mut shapes: Vec<_> = fits
            .iter()
            .map(|fit| (fit.memory, fit.request, fit.vcpus, fit.ratio, fit.scope))
            .collect();
        let found = shapes.len();
        shapes.sort_unstable();
        shapes.dedup();
        assert_eq!(shapes.len(), found);
        assert!(fit(12345, Known::default()).is_empty());
        assert!(fit(u64::MAX, Known::default()).is_empty());
    }
}
