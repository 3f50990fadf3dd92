//! The VM's specification behind a recording: as given, as the limit explains it, or assumed.

use serde::Serialize;

use super::breakdown::{Breakdown, Taken, breakdown};
use super::budget::{Budget, as_enforced, budget};
use super::harvester::{self, Settings, mutate};
use super::manifest::Found;
use super::ratio::Ratio;
use super::version::{Harvester, KubeVirt, Release};
use super::vm::Vm;
use super::{Error, MIB};
use crate::recording::event::VmShape;

/// Memory overcommits tried, percent, the most usual first.
const OVERCOMMITS: [u64; 7] = [harvester::OVERCOMMIT, 100, 200, 250, 300, 400, 500];
/// Ratios tried, the most usual first.
const RATIOS: [&str; 5] = ["1", "1.5", "2", "2.5", "3"];
/// Reserved Memory tried, MiB: none, what Harvester takes where nothing is said, what its Windows templates say, more.
const RESERVED: [u64; 5] = [0, 100, 256, 512, 1024];
/// vCPUs tried where QEMU's command line was not seen.
const VCPUS: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 10, 20];

/// What is known beforehand.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The KubeVirt release.
    pub kubevirt: Option<KubeVirt>,
    /// The Harvester release, whose rules then apply.
    pub harvester: Option<Harvester>,
    /// The ratio; `Some(None)` where it is known to be off.
    pub ratio: Option<Option<Ratio>>,
    /// Reserved Memory.
    pub reserved: Option<u64>,
    /// Memory overcommit, percent.
    pub overcommit: Option<u64>,
    /// Its manifest.
    pub manifest: Option<Found>,
}

/// Where a specification comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// From a manifest.
    Given,
    /// A usual VM that has exactly the recorded limit.
    Matched,
    /// No VM that was tried has the recorded limit.
    Assumed,
}

/// A specification, for who reads what was computed from it. Bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Where it comes from.
    pub basis: Basis,
    /// KubeVirt release.
    pub kubevirt: String,
    /// Harvester release.
    pub harvester: Option<String>,
    /// `limits.memory`.
    pub memory: Option<u64>,
    /// `requests.memory`; absent where Harvester makes it.
    pub request: Option<u64>,
    /// vCPUs.
    pub vcpus: u64,
    /// The ratio.
    pub ratio: Option<f64>,
    /// Reserved Memory.
    pub reserved: Option<u64>,
    /// Whose limit was recorded.
    pub limit_of: &'static str,
    /// The limit that it has by this arithmetic.
    pub limit: u64,
}

/// What a VM is budgeted against what it took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budgeted {
    /// The VM that the budget is computed for.
    pub shape: Shape,
    /// By term and part.
    #[serde(flatten)]
    pub breakdown: Breakdown,
}

/// Holds what a VM took against its budget; nothing where there is no limit, or one that does not even hold guest RAM.
#[must_use]
pub fn budgeted(
    known: &Known,
    guest: u64,
    limit: Option<u64>,
    shape: Option<VmShape>,
    taken: &Taken,
) -> Option<Budgeted> {
    limit.filter(|limit| guest > 0 && *limit > guest)?;
    let spec = spec(known, guest, false, limit, shape).ok()?;
    let sized = spec.size(spec.now).ok()?;
    Some(Budgeted {
        shape: spec.shape(sized.limit),
        breakdown: breakdown(&sized.budget.overhead, taken),
    })
}

/// What is kept for overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reserve {
    /// The ratio; `None` where it is off.
    pub ratio: Option<Ratio>,
    /// Reserved Memory, where it is set.
    pub reserved: Option<u64>,
    /// `reservedOverhead.addedOverhead`.
    pub added: u64,
}

/// A VM's specification, and the rules that make a limit of it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The KubeVirt release.
    pub kubevirt: KubeVirt,
    /// The Harvester release; none where KubeVirt runs without it.
    pub harvester: Option<Harvester>,
    /// Before Harvester changes it, where it does.
    pub vm: Vm,
    /// As recorded.
    pub now: Reserve,
    /// Memory overcommit, percent.
    pub overcommit: u64,
    /// The pod's limit is the one that was recorded, rather than the compute container's.
    pub of_pod: bool,
    /// A guest size that the VM gives is kept: Harvester's hotplug.
    pub hotplug: bool,
    /// Where it comes from.
    pub basis: Basis,
}

/// A VM with a reserve, sized. Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sized {
    /// What the guest gets.
    pub guest: u64,
    /// What its memory is limited to, as the kernel enforces it.
    pub limit: u64,
    /// The whole budget.
    pub budget: Budget,
}

impl Spec {
    /// For who reads it, with the limit that it has.
    #[must_use]
    pub fn shape(&self, limit: u64) -> Shape {
        Shape {
            basis: self.basis,
            kubevirt: self.kubevirt.0.to_string(),
            harvester: self.harvester.map(|harvester| harvester.release.to_string()),
            memory: self.vm.limit,
            request: self.vm.request.filter(|_| self.harvester.is_none()),
            vcpus: self.vm.vcpus.max(1),
            ratio: self.now.ratio.map(Ratio::factor),
            reserved: self.now.reserved,
            limit_of: if self.of_pod { "pod" } else { "container" },
            limit,
        }
    }

    /// Sizes the VM with this reserve.
    ///
    /// # Errors
    /// What Harvester or KubeVirt would answer; also when nothing limits the VM.
    pub fn size(&self, reserve: Reserve) -> Result<Sized, Error> {
        let mut vm = Vm {
            added_overhead: reserve.added,
            ..self.vm.clone()
        };
        if let Some(harvester) = self.harvester {
            let settings = Settings {
                ratio: reserve.ratio,
                reserved: reserve.reserved,
                overcommit: self.overcommit,
                pins_request: harvester.release >= Release(1, 4, 0),
                host_devices_request: harvester.release >= Release(1, 2, 2),
                hotplug: self.hotplug,
            };
            vm = mutate(&vm, settings)?.vm;
        } else if let (Some(reserved), Some(limit)) = (reserve.reserved, vm.limit) {
            // What Harvester's mutator does, done by hand.
            let guest = limit.saturating_sub(reserved);
            if guest < 10 * MIB {
                return Err(Error::Rejected("too little is left for the guest".to_owned()));
            }
            vm.guest = Some(guest);
        }
        let budget = budget(self.kubevirt, &vm, reserve.ratio.unwrap_or(Ratio::ONE))?;
        let limit = if self.of_pod {
            budget.pod_limit
        } else {
            budget.container_limit
        };
        let limit = limit.ok_or_else(|| Error::Rejected("the VM has no memory limit".to_owned()))?;
        Ok(Sized {
            guest: budget.guest,
            limit: as_enforced(limit),
            budget,
        })
    }
}

/// The specification of a VM with this guest RAM (bytes) under this limit.
///
/// # Errors
/// When the manifest has no size.
pub fn spec(
    known: &Known,
    guest: u64,
    hugepages: bool,
    limit: Option<u64>,
    shape: Option<VmShape>,
) -> Result<Spec, Error> {
    if let Some(found) = &known.manifest {
        let spec = given(known, found);
        spec.size(spec.now)?;
        return Ok(spec);
    }
    let vm = vm_of(guest, hugepages, shape);
    let matched = limit.and_then(|limit| matched(known, &vm, guest, as_enforced(limit)));
    Ok(matched.unwrap_or_else(|| assumed(known, &vm, guest)))
}

fn given(known: &Known, found: &Found) -> Spec {
    // Harvester has already changed an instance.
    let harvester = known.harvester.filter(|_| !found.is_instance);
    Spec {
        kubevirt: release(known),
        harvester,
        now: Reserve {
            ratio: known.ratio.unwrap_or_else(|| default_ratio(known)),
            reserved: known.reserved.or(found.reserved).filter(|_| harvester.is_some()),
            added: found.vm.added_overhead,
        },
        vm: found.vm.clone(),
        overcommit: known.overcommit.unwrap_or(harvester::OVERCOMMIT),
        of_pod: false,
        hotplug: found.hotplug,
        basis: Basis::Given,
    }
}

fn release(known: &Known) -> KubeVirt {
    let shipped = known.harvester.map(|harvester| harvester.kubevirt);
    known.kubevirt.or(shipped).unwrap_or(KubeVirt::NEWEST)
}

/// Harvester's default where it is Harvester, else none.
fn default_ratio(known: &Known) -> Option<Ratio> {
    known
        .harvester
        .filter(|harvester| harvester.has_ratio())
        .and_then(|_| Ratio::harvester("").ok().flatten())
}

fn vm_of(guest: u64, hugepages: bool, shape: Option<VmShape>) -> Vm {
    let shape_or = shape.unwrap_or(VmShape {
        graphics: true,
        ..VmShape::default()
    });
    Vm {
        guest: Some(guest),
        vcpus: u64::from(shape_or.vcpus),
        host_devices: u64::from(shape_or.host_devices),
        tpm: shape_or.tpm,
        no_graphics: !shape_or.graphics,
        hugepages,
        ..Vm::default()
    }
}

/// What the VM is given besides its guest RAM.
struct Candidate {
    kubevirt: KubeVirt,
    ratio: Option<Ratio>,
    reserved: u64,
    overcommit: u64,
    vcpus: u64,
}

fn candidate(known: &Known, vm: &Vm, guest: u64, with: &Candidate) -> Option<Spec> {
    let memory = guest.checked_add(with.reserved)?;
    let request = memory.checked_mul(100)? / with.overcommit.max(1) / MIB * MIB;
    let untold = known.harvester.is_some() && with.ratio.is_none() && with.reserved == 100 * MIB;
    Some(Spec {
        kubevirt: with.kubevirt,
        harvester: known.harvester,
        vm: Vm {
            guest: Some(guest),
            request: Some(request),
            limit: Some(memory),
            vcpus: with.vcpus,
            ..vm.clone()
        },
        now: Reserve {
            ratio: with.ratio,
            reserved: (with.reserved > 0 && !untold).then_some(with.reserved),
            added: 0,
        },
        overcommit: with.overcommit,
        of_pod: false,
        hotplug: false,
        basis: Basis::Matched,
    })
}

/// The most usual VM that has exactly this guest RAM and this limit.
fn matched(known: &Known, vm: &Vm, guest: u64, limit: u64) -> Option<Spec> {
    let releases = match known.kubevirt.or(known.harvester.map(|harvester| harvester.kubevirt)) {
        Some(release) => vec![release],
        // Of releases with the same arithmetic the newest ones are the likelier.
        None => KubeVirt::distinct().into_iter().rev().collect(),
    };
    let vcpus: Vec<u64> = match vm.vcpus {
        0 => VCPUS.to_vec(),
        vcpus => vec![vcpus],
    };
    let reserved: Vec<u64> = known
        .reserved
        .map_or_else(|| RESERVED.map(|mib| mib * MIB).to_vec(), |bytes| vec![bytes]);
    let overcommits = known
        .overcommit
        .map_or_else(|| OVERCOMMITS.to_vec(), |percent| vec![percent]);
    for &reserved in &reserved {
        for &overcommit in &overcommits {
            for &kubevirt in &releases {
                for ratio in ratios(known, kubevirt) {
                    for &vcpus in &vcpus {
                        let with = Candidate {
                            kubevirt,
                            ratio,
                            reserved,
                            overcommit,
                            vcpus,
                        };
                        let found = candidate(known, vm, guest, &with).and_then(|spec| fits(spec, guest, limit));
                        if found.is_some() {
                            return found;
                        }
                    }
                }
            }
        }
    }
    None
}

fn ratios(known: &Known, kubevirt: KubeVirt) -> Vec<Option<Ratio>> {
    if let Some(ratio) = known.ratio {
        return vec![ratio];
    }
    if !kubevirt.since(1, 0) || known.harvester.is_some_and(|harvester| !harvester.has_ratio()) {
        return vec![None];
    }
    let some = RATIOS.iter().filter_map(|text| Ratio::kubevirt(text).ok()).map(Some);
    // A Harvester's setting of 0 is another thing than 1: the guest gives 100 MiB where nothing else is reserved.
    known.harvester.map(|_| None).into_iter().chain(some).collect()
}

fn fits(spec: Spec, guest: u64, limit: u64) -> Option<Spec> {
    let budget = spec.size(spec.now).ok().filter(|sized| sized.guest == guest)?.budget;
    let is = |bytes: Option<u64>| bytes.map(as_enforced) == Some(limit);
    let of_pod = !is(budget.container_limit);
    (!of_pod || is(budget.pod_limit)).then_some(Spec { of_pod, ..spec })
}

/// A VM with this guest RAM and nothing unusual about it.
fn assumed(known: &Known, vm: &Vm, guest: u64) -> Spec {
    let kubevirt = release(known);
    let with = Candidate {
        kubevirt,
        ratio: known.ratio.unwrap_or_else(|| default_ratio(known)),
        reserved: known.reserved.unwrap_or(0),
        overcommit: known.overcommit.unwrap_or(harvester::OVERCOMMIT),
        vcpus: vm.vcpus.max(1),
    };
    let plain = Spec {
        kubevirt,
        harvester: known.harvester,
        vm: vm.clone(),
        now: Reserve::default(),
        overcommit: with.overcommit,
        of_pod: false,
        hotplug: false,
        basis: Basis::Assumed,
    };
    candidate(known, vm, guest, &with).map_or(plain, |spec| Spec {
        basis: Basis::Assumed,
        ..spec
    })
}

#[cfg(test)]
mod tests {
    use super::super::GIB;
    use super::*;

    const SHAPE: VmShape = VmShape {
        vcpus: 2,
        iothreads: 1,
        host_devices: 0,
        graphics: true,
        tpm: false,
    };

    fn found(known: &Known, guest: u64, limit: u64) -> Spec {
        spec(known, guest, false, Some(limit), Some(SHAPE)).unwrap()
    }

    #[test]
    fn the_limit_of_a_harvester_vm_tells_its_reserve() {
        // Harvester 1.4, 2 GiB, 2 vCPUs, no ratio: the guest gave 100 MiB.
        let known = Known {
            harvester: Some(Harvester::named("1.4").unwrap()),
            ..Known::default()
        };
        let spec = found(&known, 1948 * MIB, 2_355_880 << 10);
        assert_eq!((spec.basis, spec.vm.limit), (Basis::Matched, Some(2 * GIB)));
        assert_eq!((spec.now.ratio, spec.now.reserved), (None, None));
        assert_eq!(spec.size(spec.now).unwrap().limit, 2_355_880 << 10);
    }

    #[test]
    fn limits_of_two_kernel_logs_are_those_of_usual_vms() {
        for (guest, vcpus, kilobytes) in [(16 * GIB, 2, 17_024_340), (64 * GIB, 16, 67_579_904)] {
            let shape = VmShape { vcpus, ..SHAPE };
            let spec = spec(&Known::default(), guest, false, Some(kilobytes << 10), Some(shape)).unwrap();
            assert_eq!((spec.basis, spec.vm.limit), (Basis::Matched, Some(guest)));
        }
    }

    #[test]
    fn a_limit_that_no_vm_has_is_said_to_be_assumed() {
        let spec = found(&Known::default(), 448 * MIB, 688 * MIB);
        assert_eq!((spec.basis, spec.vm.guest), (Basis::Assumed, Some(448 * MIB)));
        assert!(spec.size(spec.now).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_recorded_figures_are_too_odd(guest in 0..u64::MAX, limit in 0..u64::MAX, vcpus in 0..u32::MAX) {
            let shape = VmShape { vcpus: vcpus.max(1), host_devices: vcpus, ..SHAPE };
            let _ = spec(&Known::default(), guest, false, Some(limit), Some(shape));
        }
    }
}
