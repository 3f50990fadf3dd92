//! A backup reads and writes disks through QEMU: block workers and the iothread push page cache and take buffers. It
//! stays below the limit, so that every byte can be compared.

use super::{GUEST_RATE, PlanError, Setting, culprit};
use crate::lab::actor::spec::Step;
use crate::lab::plan::{Expect, MIB, Member, Plan};
use crate::lab::real::{Cache, Task};
use crate::role::Role;

const GUEST: u64 = 256 * MIB;
const BUDGET: u64 = 240 * MIB;
/// What a real guest writes, and how many requests of 1 MiB it has in flight.
const WRITTEN: u64 = 96 * MIB;
const DEPTH: u64 = 8;

pub(super) fn plan(setting: &Setting) -> Result<Plan, PlanError> {
    let sizes = setting.sizes(GUEST, BUDGET, 128 * MIB)?;
    let tasks = [
        Task::Touch {
            until: sizes.guest,
            rate: GUEST_RATE,
        },
        Task::Write {
            bytes: WRITTEN,
            depth: DEPTH,
        },
    ];
    let qemu = setting
        .real(sizes.guest, &tasks)
        .unwrap_or_else(|| stand_in(setting, sizes.guest));
    // Past the page cache there is nothing to blame anybody for.
    let direct = setting.qemu.as_ref().is_some_and(|qemu| qemu.cache == Cache::None);
    Ok(Plan {
        guest_ram: sizes.guest,
        limit: sizes.limit,
        cast: setting.cast([qemu]),
        expect: Some(Expect {
            culprit: culprit("qemu", Role::BlockWorker).filter(|_| !direct),
            kill: None,
            invokers: Vec::new(),
        }),
    })
}

fn stand_in(setting: &Setting, guest: u64) -> Member {
    let rate = setting.rate(24 * MIB);
    let file = |name: &str, bytes| Step::File {
        path: setting.folder.join(name),
        bytes,
        rate,
    };
    let heap = |bytes| Step::Heap { bytes, rate };
    setting
        .filling_qemu(guest, 1, GUEST_RATE)
        .with("worker", |thread| {
            thread.then(2, heap(24 * MIB)).then(2, file("backup-1.raw", 80 * MIB))
        })
        .with("IO iothread1", |thread| {
            thread.then(2, heap(16 * MIB)).then(2, file("backup-2.raw", 40 * MIB))
        })
}
