//! What Harvester changes in a VM before KubeVirt sees it.
//!
//! harvester: pkg/webhook/resources/virtualmachine/mutator.go generateMemoryPatch, validator.go
//! checkReservedMemoryAnnotation (1.4)

use super::ratio::Ratio;
use super::vm::Vm;
use super::{Error, MIB};

/// The default of `overcommit-config`'s memory, in percent.
pub const OVERCOMMIT: u64 = 150;
/// What is kept from the guest where neither a ratio nor an annotation says otherwise.
const LEGACY_RESERVED: u64 = 100 * MIB;

/// What Harvester is told besides the VM.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The ratio; `None` when the setting is 0 or the release does not have it.
    pub ratio: Option<Ratio>,
    /// The annotation `harvesterhci.io/reservedMemory`.
    pub reserved: Option<u64>,
    /// Memory overcommit in percent.
    pub overcommit: u64,
    /// Dedicated CPUs get a request equal to the limit: since 1.4.
    pub pins_request: bool,
    /// Host devices get a request equal to the guest memory: since 1.2.2.
    pub host_devices_request: bool,
    /// CPU and memory hotplug: a guest size that the VM gives is kept.
    pub hotplug: bool,
}

/// What Harvester made of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutated {
    /// The VM that KubeVirt gets.
    pub vm: Vm,
    /// What was kept from the guest.
    pub reserved: u64,
}

/// Applies Harvester's rules.
///
/// # Errors
/// What Harvester's webhooks would answer.
pub fn mutate(vm: &Vm, settings: Settings) -> Result<Mutated, Error> {
    let Some(limit) = vm.limit.filter(|limit| *limit > 0) else {
        if vm.guest.is_none() {
            return Err(rejected("either memory.guest or resources.limits.memory must be set"));
        }
        return Ok(Mutated {
            vm: vm.clone(),
            reserved: 0,
        });
    };
    if settings.overcommit == 0 {
        return Err(rejected("the memory overcommit can't be 0"));
    }
    let kept = settings.hotplug.then_some(vm.guest).flatten();
    let reserved = match settings.reserved {
        Some(reserved) if reserved >= limit => {
            return Err(rejected("reservedMemory cannot be equal or greater than limits.memory"));
        }
        Some(reserved) => reserved,
        None if settings.ratio.is_some() => 0,
        None => LEGACY_RESERVED,
    };
    if let (Some(guest), Some(reserved)) = (kept, settings.reserved)
        && guest.checked_add(reserved).is_none_or(|total| total > limit)
    {
        return Err(Error::Rejected(format!(
            "guest memory {guest} plus reservedMemory {reserved} cannot be greater than limits.memory {limit}"
        )));
    }
    let available = kept.unwrap_or(limit).saturating_sub(reserved);
    if available < 10 * MIB {
        return Err(Error::Rejected(format!(
            "guest memory is under the minimum requirement (10 Mi), original: {limit}, final: {available}"
        )));
    }
    let request = if vm.dedicated_cpu && settings.pins_request {
        limit
    } else if vm.host_devices > 0 && settings.host_devices_request {
        // Harvester's way around kubevirt#10379.
        available
    } else {
        let hundredths = limit.checked_mul(100).ok_or(Error::Overflow("limits.memory"))?;
        hundredths / settings.overcommit / MIB * MIB
    };
    Ok(Mutated {
        vm: Vm {
            guest: kept.or(Some(available)),
            request: Some(request),
            ..vm.clone()
        },
        reserved,
    })
}

fn rejected(message: &str) -> Error {
    Error::Rejected(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::GIB;

    const NONE: Settings = Settings {
        ratio: None,
        reserved: None,
        overcommit: OVERCOMMIT,
        pins_request: true,
        host_devices_request: true,
        hotplug: false,
    };

    fn vm() -> Vm {
        Vm {
            limit: Some(2 * GIB),
            vcpus: 1,
            ..Vm::default()
        }
    }

    #[test]
    fn the_legacy_reserve_is_taken_only_without_ratio_and_annotation() {
        let guest = |settings| mutate(&vm(), settings).unwrap().vm.guest.unwrap() / MIB;
        assert_eq!(guest(NONE), 1948);
        assert_eq!(
            guest(Settings {
                ratio: Some(Ratio::ONE),
                ..NONE
            }),
            2048
        );
        assert_eq!(
            guest(Settings {
                reserved: Some(256 * MIB),
                ..NONE
            }),
            1792
        );
        assert_eq!(
            guest(Settings {
                reserved: Some(256 * MIB),
                ratio: Some(Ratio::ONE),
                ..NONE
            }),
            1792
        );
    }

    #[test]
    fn the_request_follows_overcommit_pinning_and_host_devices() {
        let request = |vm: &Vm| mutate(vm, NONE).unwrap().vm.request.unwrap() / MIB;
        assert_eq!(request(&vm()), 1365);
        assert_eq!(
            request(&Vm {
                dedicated_cpu: true,
                ..vm()
            }),
            2048
        );
        assert_eq!(
            request(&Vm {
                host_devices: 1,
                ..vm()
            }),
            1948
        );
    }

    #[test]
    fn earlier_releases_treat_every_vm_alike() {
        let earlier = Settings {
            pins_request: false,
            host_devices_request: false,
            ..NONE
        };
        let special = Vm {
            dedicated_cpu: true,
            host_devices: 1,
            ..vm()
        };
        assert_eq!(mutate(&special, earlier).unwrap().vm.request, Some(1365 * MIB));
    }

    #[test]
    fn what_harvester_refuses() {
        let message = |vm: &Vm, settings| mutate(vm, settings).unwrap_err().to_string();
        assert!(
            message(
                &vm(),
                Settings {
                    reserved: Some(2 * GIB),
                    ..NONE
                }
            )
            .contains("equal or greater")
        );
        assert!(message(&Vm::default(), NONE).contains("must be set"));
        assert!(
            message(
                &Vm {
                    limit: Some(105 * MIB),
                    ..vm()
                },
                NONE
            )
            .contains("minimum requirement")
        );
        let hotplug = Settings {
            reserved: Some(MIB),
            hotplug: true,
            ..NONE
        };
        assert!(
            message(
                &Vm {
                    guest: Some(2 * GIB),
                    ..vm()
                },
                hotplug
            )
            .contains("plus reservedMemory 1048576")
        );
    }
}
