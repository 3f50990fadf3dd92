//! The guest fills its RAM, which it was promised. Nothing is to blame.

use super::{PlanError, Setting};
use crate::lab::plan::{Expect, MIB, Plan};

const GUEST: u64 = 320 * MIB;
const BUDGET: u64 = 240 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, 64 * MIB)?;
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([setting.filling(sizes.guest, setting.rate(64 * MIB))]),
        expect: Some(Expect {
            culprit: None,
            kill: None,
            invokers: Vec::new(),
        }),
    })
}
