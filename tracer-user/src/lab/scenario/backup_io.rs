//! A backup reads and writes disks through QEMU: block workers and the iothread push page cache and take buffers. It
//! stays below the limit, so that every byte can be compared.

use super::{GUEST_RATE, LimitError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::plan::{Expect, MIB, Plan};
use crate::role::Role;

const GUEST: u64 = 256 * MIB;
const BUDGET: u64 = 240 * MIB;

pub(super) fn plan(setting: &Setting) -> Result<Plan, LimitError> {
    let sizes = setting.sizes(GUEST, BUDGET, 128 * MIB)?;
    let rate = setting.rate(24 * MIB);
    let file = |name: &str, bytes| Step::File {
        path: setting.folder.join(name),
        bytes,
        rate,
    };
    let heap = |bytes| Step::Heap { bytes, rate };
    let qemu = setting
        .filling_qemu(sizes.guest, 1, GUEST_RATE)
        .with("worker", |thread| {
            thread.then(2, heap(24 * MIB)).then(2, file("backup-1.raw", 80 * MIB))
        })
        .with("IO iothread1", |thread| {
            thread.then(2, heap(16 * MIB)).then(2, file("backup-2.raw", 40 * MIB))
        });
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([qemu]),
        expect: Expect {
            culprit: culprit("qemu", Role::BlockWorker),
            kill: false,
            invokers: Vec::new(),
        },
    })
}
