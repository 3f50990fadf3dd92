//! A vCPU thread is charged for memory that is not guest RAM, as when an emulated device buffers what the guest
//! writes to it. Telling its two kinds of charges apart takes addresses, not thread names.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::plan::{Expect, MIB, Plan};
use crate::role::Role;

const GUEST: u64 = 256 * MIB;
const BUDGET: u64 = 160 * MIB;
const GROWTH: u64 = BUDGET + 16 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, GROWTH)?;
    let grow = Step::Heap {
        bytes: GROWTH,
        rate: setting.rate(32 * MIB),
    };
    let qemu = setting
        .filling_qemu(sizes.guest, 1, GUEST_RATE)
        .with("CPU 0/KVM", |thread| thread.then(2, grow));
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([qemu]),
        expect: Some(Expect {
            culprit: culprit("qemu", Role::Vcpu(0)),
            kill: Some("qemu"),
            invokers: vec![Role::Vcpu(0)],
        }),
    })
}
