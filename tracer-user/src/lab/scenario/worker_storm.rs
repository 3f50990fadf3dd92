//! QEMU's thread pool at its worst: hundreds of workers that live for milliseconds, each leaving some memory behind.
//! A tracer that looks at /proc now and then never meets one of them.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::plan::{Expect, MIB, Plan};
use crate::role::Role;

const GUEST: u64 = 256 * MIB;
const BUDGET: u64 = 240 * MIB;
const WORKERS: u64 = 800;
const EACH: u64 = 160 << 10;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, 128 * MIB)?;
    let storm = Step::Storm {
        threads: WORKERS,
        bytes_each: EACH,
        comm: "worker".to_owned(),
        role: Role::BlockWorker,
        rate: setting.rate(u64::MAX),
    };
    let qemu = setting
        .filling_qemu(sizes.guest, 1, GUEST_RATE)
        .with("IO iothread1", |thread| thread.then(2, storm));
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([qemu]),
        expect: Some(Expect {
            culprit: culprit("qemu", Role::BlockWorker),
            kill: None,
            invokers: Vec::new(),
        }),
    })
}
