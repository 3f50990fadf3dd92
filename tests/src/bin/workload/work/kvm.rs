//! A virtual machine's page tables: KVM makes them for guest RAM that its vCPU touches, and memory.stat shows them apart.

use std::collections::HashSet;
use std::env;

use anyhow::{Context as _, Result, bail, ensure};
use headroom::lab::real::KVM_ALLOWED;
use headroom::recording::event::Event;
use headroom_tests::conserve::figures::threads_named;
use headroom_tests::conserve::{Check, Sums};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use tracer_common::Kind;

use super::Workload;
use crate::memory::{HUGE, MIB, PAGE, Pages, thread};
use crate::stage::{Stage, signed, standstill};

/// Guest RAM, of which the guest touches a page in each 2 MiB: a page table each.
const GUEST: usize = 512 * MIB;
const TABLES: usize = GUEST / HUGE;
/// Where the guest's program is, in the first of those pages.
const CODE: usize = PAGE;
/// The vCPU's thread, as QEMU names it.
const VCPU: &str = "CPU 0/KVM";

/// A guest that touches its RAM, and its end.
pub struct VirtualMachine;

impl Workload for VirtualMachine {
    fn act(&self) -> Result<()> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        // In small pages, so that each 2 MiB take a page table of their own.
        let guest = Pages::aligned(GUEST)?;
        guest.write(CODE, &program()?)?;
        let vm = kvm.create_vm()?;
        let vcpu = machine(&vm, &guest)?;
        standstill("halted", &[("anon", PAGE)])?;
        let vcpu = thread()
            .name(VCPU.to_owned())
            .spawn(move || -> Result<VcpuFd> {
                let mut vcpu = vcpu;
                match vcpu.run()? {
                    VcpuExit::Hlt => Ok(vcpu),
                    other => bail!("the guest did not come to its end: {other:?}"),
                }
            })?
            .join()
            .map_err(|_| anyhow::anyhow!("the vCPU's thread panicked"))??;
        standstill("guest ran", &[("anon", TABLES * PAGE)])?;
        drop((vcpu, vm));
        drop(guest);
        standstill("VM gone", &[("anon", 0)])
    }

    fn prepare(&mut self, _stage: &mut Stage) -> Result<Option<String>> {
        ensure!(
            env::var(KVM_ALLOWED).is_ok_and(|value| value == "1"),
            "only a VM's own KVM may be used: {KVM_ALLOWED} is not 1"
        );
        Ok(None)
    }

    fn after(&mut self, stage: &mut Stage, phase: &str) -> Result<()> {
        let shown = stage.last().map(|phase| phase.kernel.clone()).unwrap_or_default();
        // Before 6.1 memory.stat does not tell them, and neither does v1's.
        let Some(bytes) = shown.get(Kind::SecondaryPagetable.as_str()) else {
            return Ok(());
        };
        let name = format!("{phase}: page tables of KVM that there are");
        let tables = (TABLES * PAGE) as u64;
        stage.check(match phase {
            "guest ran" => Check::at_least(name, tables, *bytes),
            "VM gone" => Check::bytes(name, 0, signed(*bytes), 0),
            // What it makes in advance.
            _ => Check {
                name,
                expected: format!("less than {tables}"),
                got: bytes.to_string(),
                ok: *bytes < tables,
            },
        });
        Ok(())
    }

    fn finish(&self, stage: &mut Stage, events: &[Event]) -> Result<()> {
        if stage.tells_apart(Kind::SecondaryPagetable) {
            let sums = Sums::of(events);
            let vcpu: HashSet<u32> = threads_named(events, VCPU);
            let tables = (TABLES * PAGE) as u64;
            let by = sums.charged_by(&vcpu, Kind::SecondaryPagetable);
            stage.check(Check::at_least(
                "page tables charged by the vCPU's thread".to_owned(),
                tables - PAGE as u64,
                by,
            ));
        }
        Ok(())
    }
}

/// Writes to a byte in each 2 MiB of guest RAM, and halts.
fn program() -> Result<Vec<u8>> {
    let step = u32::try_from(HUGE)?.to_le_bytes();
    let end = u32::try_from(GUEST)?.to_le_bytes();
    let mut code = vec![0xb8]; // mov eax, step
    code.extend(step);
    code.extend([0xc6, 0x00, 0x01]); // next: mov byte [eax], 1
    code.push(0x05); // add eax, step
    code.extend(step);
    code.push(0x3d); // cmp eax, end
    code.extend(end);
    code.extend([0x72, 0xf1]); // jb next
    code.push(0xf4); // hlt
    Ok(code)
}

/// Gives a VM its RAM and a vCPU that stands in front of the program: in protected mode, all addresses as they are.
fn machine(vm: &VmFd, guest: &Pages) -> Result<VcpuFd> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: GUEST as u64,
        userspace_addr: guest.address() as u64,
    };
    // SAFETY: the memory is ours, nobody holds a reference into it, and it outlives the VM.
    unsafe { vm.set_user_memory_region(region) }?;
    let vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    let flat = |kind: u8, selector: u16| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..kvm_segment::default()
    };
    // Code that can be read, and data that can be written, both accessed.
    special.cs = flat(0b1011, 8);
    let data = flat(0b0011, 16);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    // Protection on.
    special.cr0 |= 1;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        rip: CODE as u64,
        // This bit is always set.
        rflags: 2,
        ..kvm_regs::default()
    })?;
    Ok(vcpu)
}
