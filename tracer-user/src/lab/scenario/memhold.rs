//! A helper grows beyond the whole budget while the guest, as is its right, fills its RAM: the case that Harvester
//! investigated. The vCPU that touches the last page invokes the kill; QEMU, the largest, dies.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::cast;
use crate::lab::plan::{Expect, MIB, Member, Plan};
use crate::lab::real::Task;
use crate::role::Role;

const GUEST: u64 = 448 * MIB;
const BUDGET: u64 = 240 * MIB;
/// More than the budget, so that it does not matter what the other processes take.
const HELD: u64 = BUDGET + 20 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    // QEMU must be the larger one when the limit is reached.
    let sizes = setting.sizes(GUEST, BUDGET, HELD + 64 * MIB)?;
    let rate = setting.rate(56 * MIB);
    let hold = Step::Heap { bytes: HELD, rate };
    let helper = cast::memhold(HELD).with("memhold", |thread| thread.then(1, hold));
    // Both grow together; then the guest goes on alone.
    let tasks = [
        Task::Touch {
            until: sizes.guest / 2,
            rate,
        },
        Task::Touch {
            until: sizes.guest,
            rate: GUEST_RATE,
        },
    ];
    let qemu = setting
        .real(sizes.guest, &tasks)
        .unwrap_or_else(|| stand_in(setting, sizes.guest, rate));
    let memhold = Role::Other("memhold".to_owned());
    let mut invokers: Vec<Role> = (0..cast::VCPUS).map(Role::Vcpu).collect();
    let mut victim = "qemu";
    if !setting.guest_charged() {
        // Without guest RAM in the memcg the helper is the largest there. It gets to the limit, unless a vCPU does, whose
        // page tables are charged all the same.
        victim = "memhold";
        invokers.push(memhold.clone());
    }
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([helper, qemu]),
        expect: Some(Expect {
            culprit: culprit("memhold", memhold),
            kill: Some(victim),
            invokers,
        }),
    })
}

/// Each vCPU touches its half of guest RAM, the first part of it along with the helper.
fn stand_in(setting: &Setting, guest: u64, rate: u64) -> Member {
    let each = guest / 2 / u64::from(cast::VCPUS);
    (0..cast::VCPUS).fold(cast::qemu(setting.ram(guest)), |qemu, vcpu| {
        let first = u64::from(vcpu) * 2 * each;
        let part = |offset, rate| Step::Guest {
            offset,
            bytes: each,
            rate: rate / u64::from(cast::VCPUS),
        };
        qemu.with(&format!("CPU {vcpu}/KVM"), |thread| {
            thread
                .then(1, part(first, rate))
                .then(2, part(first + each, GUEST_RATE))
        })
    })
}
