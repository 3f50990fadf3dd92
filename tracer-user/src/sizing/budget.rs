//! From the overhead to the limits that the kernel enforces.

use serde::Serialize;

use super::Error;
use super::overhead::{Overhead, overhead};
use super::ratio::Ratio;
use super::version::KubeVirt;
use super::vm::Vm;

/// guest-console-log's limit. kubevirt: pkg/virt-controller/services/serialconsolelog.go (1.1)
const CONSOLE_LOG: u64 = 60_000_000;
/// A container disk's limit. kubevirt: pkg/container-disk/container-disk.go
const CONTAINER_DISK: u64 = 40_000_000;
const PAGE: u64 = 4096;

/// What a VM's pod may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// What the guest sees.
    pub guest: u64,
    /// The overhead.
    pub overhead: Overhead,
    /// The compute container's memory limit; none if the VM has none.
    pub container_limit: Option<u64>,
    /// The limits of the other containers, by name.
    pub other_containers: Vec<(&'static str, u64)>,
    /// The pod's limit.
    pub pod_limit: Option<u64>,
    /// The compute container's limit less the guest memory: what all but the guest may take.
    pub total: Option<u64>,
}

/// What the kernel makes of a limit: whole pages. kernel: mm/page_counter.c page_counter_memparse (6.12)
#[must_use]
pub fn as_enforced(limit: u64) -> u64 {
    limit / PAGE * PAGE
}

/// Sizes a VM.
///
/// # Errors
/// As [`overhead`].
pub fn budget(kubevirt: KubeVirt, vm: &Vm, ratio: Ratio) -> Result<Budget, Error> {
    let guest = vm.guest_memory()?;
    let overhead = overhead(kubevirt, vm, ratio)?;
    let container_limit = container_limit(vm, guest, overhead.bytes)?;
    let mut other_containers = Vec::new();
    if kubevirt.since(1, 1) && !vm.no_console_log {
        other_containers.push(("guest-console-log", CONSOLE_LOG));
    }
    if vm.container_disks > 0 {
        let bytes = vm
            .container_disks
            .checked_mul(CONTAINER_DISK)
            .ok_or(Error::Overflow("the container disks"))?;
        other_containers.push(("container disks", bytes));
    }
    let pod_limit = match container_limit {
        Some(limit) => Some(
            other_containers
                .iter()
                .try_fold(limit, |total, (_, bytes)| total.checked_add(*bytes))
                .filter(fits)
                .ok_or(Error::Overflow("the pod's limit"))?,
        ),
        None => None,
    };
    Ok(Budget {
        guest,
        overhead,
        container_limit,
        other_containers,
        pod_limit,
        total: container_limit.map(|limit| {
            if vm.hugepages {
                limit
            } else {
                limit.saturating_sub(guest)
            }
        }),
    })
}

/// Kubernetes counts bytes in an int64.
fn fits(bytes: &u64) -> bool {
    i64::try_from(*bytes).is_ok()
}

/// kubevirt: renderresources.go WithMemoryOverhead, WithHugePages, WithCPUPinning (1.1)
fn container_limit(vm: &Vm, guest: u64, overhead: u64) -> Result<Option<u64>, Error> {
    let limit = if vm.dedicated_cpu {
        // Pinning sets the limit to the request.
        Some(vm.request.or(vm.limit).unwrap_or(guest))
    } else {
        vm.limit
    };
    let Some(limit) = limit else {
        return auto_limit(vm, guest, overhead);
    };
    // Guest RAM from hugepages is charged elsewhere: only what exceeds it stays in the memory limit. A guest size that
    // the VM does not give is no part of that sum.
    let base = match (vm.hugepages, vm.guest) {
        (false, _) => limit,
        (true, Some(guest)) => limit.saturating_sub(guest),
        (true, None) => 0,
    };
    base.checked_add(overhead)
        .filter(fits)
        .map(Some)
        .ok_or(Error::Overflow("the container's limit"))
}

/// kubevirt: renderresources.go WithAutoMemoryLimits (main): the ratio multiplies the request with the overhead in it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rounding of float64 is part of the result; the range is checked"
)]
fn auto_limit(vm: &Vm, guest: u64, overhead: u64) -> Result<Option<u64>, Error> {
    let Some(thousandths) = vm.auto_limit else {
        return Ok(None);
    };
    let request = vm.request.unwrap_or(guest);
    // As with limits: hugepages leave what exceeds the guest memory.
    let base = match (vm.hugepages, vm.guest) {
        (false, _) => request,
        (true, Some(guest)) => request.saturating_sub(guest),
        (true, None) => 0,
    };
    let error = Error::Overflow("the automatic limit");
    let request = base.checked_add(overhead).ok_or(Error::Overflow("the pod's request"))?;
    let limit = request as f64 * (f64::from(thousandths) / 1000.0);
    if limit >= i64::MAX as f64 {
        return Err(error);
    }
    Ok(Some(limit as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::{GIB, MIB};

    fn limit(kubevirt: &str, memory: u64, request: u64, vcpus: u64, ratio: &str) -> Budget {
        let vm = Vm {
            guest: Some(memory),
            request: Some(request),
            limit: Some(memory),
            vcpus,
            ..Vm::default()
        };
        budget(KubeVirt::named(kubevirt).unwrap(), &vm, Ratio::kubevirt(ratio).unwrap()).unwrap()
    }

    #[test]
    fn known_limits_to_the_byte() {
        for (kubevirt, memory, request, vcpus, ratio, bytes) in [
            ("1.1", 2 * GIB, 136 * MIB, 1, "1", 2_401_517_569),
            ("1.1", 16 * GIB, 3276 * MIB, 1, "1", 17_031_576 * 1024),
            ("1.1", 16 * GIB, 3276 * MIB, 1, "1.5", 17_570_565_824),
            ("1.1", 16 * GIB, 3276 * MIB, 1, "2", 17_700_798_824),
            ("1.3", 2 * GIB, 1365 * MIB, 1, "1.5", 2_532_309_561),
        ] {
            assert_eq!(
                limit(kubevirt, memory, request, vcpus, ratio).container_limit,
                Some(bytes),
                "{kubevirt} {ratio}"
            );
        }
    }

    #[test]
    fn limits_as_kernel_logs_print_them() {
        let kilobytes = |budget: &Budget| as_enforced(budget.container_limit.unwrap()) / 1024;
        assert_eq!(kilobytes(&limit("0.54", 16 * GIB, 10922 * MIB, 2, "1")), 17_024_340);
        assert_eq!(kilobytes(&limit("0.54", 64 * GIB, 64 * GIB, 16, "1")), 67_579_904);
        let budget = limit("1.1", 2 * GIB, 1365 * MIB, 2, "1");
        assert_eq!(kilobytes(&budget), 2_355_880);
        assert_eq!(as_enforced(budget.pod_limit.unwrap()), 2_472_419_328);
    }

    #[test]
    fn overheads_in_hundredths_of_a_mebibyte() {
        for (kubevirt, request, vcpus, hundredths) in [
            ("1.3", 1365 * MIB, 1, 24467),
            ("1.3", 2 * GIB, 1, 24600),
            ("0.54", 1365 * MIB, 4, 23867),
            ("0.54", 2 * GIB, 4, 24000),
            ("1.5", 1365 * MIB, 1, 25467),
            ("1.5", 1365 * MIB, 4, 27867),
            ("1.9", 1365 * MIB, 1, 27067),
            ("1.6", 1365 * MIB, 4, 29467),
            ("main", 1365 * MIB, 1, 29067),
            ("main", 1365 * MIB, 4, 31467),
        ] {
            let bytes = limit(kubevirt, 2 * GIB, request, vcpus, "1").overhead.bytes;
            assert_eq!(
                (bytes * 100 + MIB / 2) / MIB,
                hundredths,
                "{kubevirt} {request} {vcpus}"
            );
        }
    }

    #[test]
    fn dedicated_cpus_are_multiplied_since_1_6() {
        let vm = Vm {
            request: Some(GIB),
            limit: Some(GIB),
            vcpus: 1,
            ..Vm::default()
        };
        let pinned = Vm {
            dedicated_cpu: true,
            ..vm.clone()
        };
        let cost = |version: &str| {
            let size = |vm| {
                budget(KubeVirt::named(version).unwrap(), vm, Ratio::kubevirt("2").unwrap())
                    .unwrap()
                    .overhead
                    .bytes
            };
            size(&pinned) - size(&vm)
        };
        assert_eq!(cost("1.0"), 0);
        assert_eq!(cost("1.5"), 100 * MIB);
        assert!(cost("1.6").abs_diff(200 * MIB) <= 1000);
    }

    #[test]
    fn hugepages_leave_only_the_overhead_in_the_limit() {
        let vm = Vm {
            guest: Some(GIB),
            request: Some(GIB),
            limit: Some(GIB + MIB),
            hugepages: true,
            ..Vm::default()
        };
        let budget = budget(KubeVirt::NEWEST, &vm, Ratio::ONE).unwrap();
        assert_eq!(budget.container_limit, Some(MIB + budget.overhead.bytes));
    }

    #[test]
    fn a_quota_has_kubevirt_set_the_limit_from_the_request() {
        let vm = Vm {
            guest: Some(8 * GIB),
            request: Some(8 * GIB),
            vcpus: 1,
            auto_limit: Some(2000),
            ..Vm::default()
        };
        let size = |vm: &Vm| budget(KubeVirt::NEWEST, vm, Ratio::ONE).unwrap();
        let automatic = size(&vm);
        assert_eq!(
            automatic.container_limit,
            Some(2 * (8 * GIB + automatic.overhead.bytes))
        );
        let of_its_own = Vm {
            limit: Some(9 * GIB),
            ..vm.clone()
        };
        assert_eq!(
            size(&of_its_own).container_limit,
            Some(9 * GIB + automatic.overhead.bytes)
        );
        let pinned = Vm {
            dedicated_cpu: true,
            ..vm
        };
        assert!(size(&pinned).container_limit < Some(9 * GIB));
    }

    proptest::proptest! {
        #[test]
        fn more_of_anything_never_budgets_less(
            memory in 1..(1_u64 << 46), more in 0..(1_u64 << 40), vcpus in 0..4096_u64, ratio in 1.0..10.0_f64,
            version in 0..12_usize, switches in 0..256_u32,
        ) {
            let kubevirt = KubeVirt::distinct()[version];
            let bit = |n: u32| switches & (1 << n) != 0;
            let ratio = if kubevirt.since(1, 0) { ratio } else { 1.0 };
            let ratio = Ratio::kubevirt(&ratio.to_string()).unwrap();
            let vm = |memory, vcpus, on: bool| Vm {
                guest: Some(memory), request: Some(memory), limit: Some(memory), vcpus,
                arm64: on && bit(0), host_devices: u64::from(on && bit(1)), downward_metrics: on && bit(2),
                exec_probes: u64::from(on && bit(3)), tpm: on && bit(4), sev: on && bit(5),
                dedicated_cpu: on && bit(6), passt: u64::from(on && bit(7)), ..Vm::default()
            };
            let size = |vm: &Vm| overhead(kubevirt, vm, ratio).unwrap().bytes;
            let plain = size(&vm(memory, vcpus, false));
            proptest::prop_assert!(size(&vm(memory + more, vcpus, false)) >= plain);
            proptest::prop_assert!(size(&vm(memory, vcpus + 1, false)) >= plain);
            proptest::prop_assert!(size(&vm(memory, vcpus, true)) >= plain);
            proptest::prop_assert!(overhead(kubevirt, &vm(memory, vcpus, false), Ratio::ONE).unwrap().bytes <= plain);
        }

        #[test]
        fn every_input_is_monotone_alone_and_limits_hold_what_they_are_for(
            memory in 1..(1_u64 << 40), counts in proptest::array::uniform6(0..64_u64), bytes in 0..(1_u64 << 34),
            input in 0..9_usize, more in 1..8_u64, version in 0..12_usize, ratio in 1.0..10.0_f64, steeper in 0.0..5.0_f64,
        ) {
            let kubevirt = KubeVirt::distinct()[version];
            let vm = |step: u64| {
                let at = |n: usize| counts[n % 6] + if input == n { step } else { 0 };
                let [host_devices, sriov, exec_probes, passt, container_disks, vcpus] = [0, 1, 2, 3, 4, 5].map(at);
                Vm {
                    guest: Some(memory), request: Some(memory + if input == 6 { step } else { 0 }), limit: Some(memory),
                    vcpus, host_devices, sriov, exec_probes, passt, container_disks,
                    binding_memory: if kubevirt.since(1, 3) { bytes + if input == 7 { step } else { 0 } } else { 0 },
                    added_overhead: if kubevirt.since(1, 8) { bytes + if input == 8 { step } else { 0 } } else { 0 },
                    ..Vm::default()
                }
            };
            let factor = |ratio: f64| {
                Ratio::kubevirt(&if kubevirt.since(1, 0) { ratio } else { 1.0 }.to_string()).unwrap()
            };
            let size = |step, ratio| budget(kubevirt, &vm(step), factor(ratio)).unwrap();
            let (less, more, steep) = (size(0, ratio), size(more, ratio), size(0, ratio + steeper));
            proptest::prop_assert!(more.overhead.bytes >= less.overhead.bytes);
            proptest::prop_assert!(more.pod_limit >= less.pod_limit);
            proptest::prop_assert!(steep.overhead.bytes >= less.overhead.bytes);
            for budget in [less, more, steep] {
                let limit = budget.container_limit.unwrap();
                proptest::prop_assert_eq!(limit, memory + budget.overhead.bytes);
                proptest::prop_assert_eq!(budget.total, Some(budget.overhead.bytes));
                proptest::prop_assert!(budget.pod_limit.unwrap() >= limit && limit > budget.guest);
                let terms: u64 = budget.overhead.terms.iter().map(|term| term.bytes).sum();
                proptest::prop_assert_eq!(terms, budget.overhead.bytes);
            }
        }

        #[test]
        fn harvester_takes_0_and_1_to_10_and_reserves_only_without_a_ratio(ratio in -2.0..14.0_f64, memory in 1..64_u64) {
            let read = Ratio::harvester(&ratio.to_string());
            proptest::prop_assert_eq!(read.is_ok(), (1.0..=10.0).contains(&ratio) || ratio == 0.0);
            proptest::prop_assert_eq!(Ratio::kubevirt(&ratio.to_string()).is_ok(), ratio >= 1.0);
            let limit = memory * GIB;
            let settings = crate::sizing::harvester::Settings {
                ratio: read.unwrap_or(None), reserved: None, overcommit: 150,
                pins_request: true, host_devices_request: true, hotplug: false,
            };
            let made = crate::sizing::harvester::mutate(&Vm { limit: Some(limit), ..Vm::default() }, settings).unwrap();
            proptest::prop_assert_eq!(made.reserved, if settings.ratio.is_some() { 0 } else { 100 * MIB });
            proptest::prop_assert_eq!(made.vm.guest, Some(limit - made.reserved));
        }

        #[test]
        fn absurd_sizes_are_errors(memory in proptest::num::u64::ANY, vcpus in proptest::num::u64::ANY) {
            let vm = Vm { request: Some(memory), limit: Some(memory), vcpus, ..Vm::default() };
            drop(budget(KubeVirt::NEWEST, &vm, Ratio::kubevirt("1e300").unwrap()));
        }
    }
}
