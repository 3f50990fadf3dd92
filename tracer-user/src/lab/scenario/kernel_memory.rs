//! A helper grows by what the kernel allocates for it and no process list shows: page tables, socket buffers, pipes.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::cast;
use crate::lab::plan::{Expect, MIB, Plan};
use crate::lab::tree::Version;

const GUEST: u64 = 256 * MIB;
const BUDGET: u64 = 240 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, 128 * MIB)?;
    let tables = Step::PageTables {
        bytes: 48 * MIB,
        rate: setting.rate(u64::MAX),
    };
    let passt = cast::passt().with("passt.avx2", |thread| {
        thread
            .then(2, tables)
            .then(3, Step::UnixSockets { bytes: 32 * MIB })
            .then(
                4,
                Step::TcpSockets {
                    bytes: 16 * MIB,
                    // cgroup v1 has TCP buffers in a counter of their own, outside of memory.
                    charged: setting.version == Version::V2,
                },
            )
            .then(5, Step::Pipes { bytes: 32 * MIB })
    });
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([passt, setting.filling_qemu(sizes.guest, 1, GUEST_RATE)]),
        expect: Some(Expect {
            culprit: culprit("passt", cast::helper("passt")),
            kill: None,
            invokers: Vec::new(),
        }),
    })
}
