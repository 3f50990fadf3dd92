//! The guest has all its RAM; then virtqemud leaks, request by request, until the limit is reached. The kernel kills
//! QEMU, which did nothing.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::cast;
use crate::lab::plan::{Expect, MIB, Plan};

const GUEST: u64 = 320 * MIB;
const BUDGET: u64 = 160 * MIB;
const LEAK: u64 = BUDGET + 16 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, LEAK + 64 * MIB)?;
    let leak = Step::Leak {
        bytes: LEAK,
        rate: setting.rate(24 * MIB),
    };
    let virtqemud = cast::virtqemud().with("rpc-virtqemud", |thread| thread.then(2, leak));
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([virtqemud, setting.filling_qemu(sizes.guest, 1, GUEST_RATE)]),
        expect: Some(Expect {
            culprit: culprit("virtqemud", cast::helper("virtqemud")),
            kill: Some("qemu"),
            invokers: vec![cast::helper("virtqemud")],
        }),
    })
}
