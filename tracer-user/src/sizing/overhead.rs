//! KubeVirt's overhead, term by term.
//!
//! kubevirt: GetMemoryOverhead, pkg/virt-controller/services/template.go (0.54), renderresources.go (0.59-1.7),
//! pkg/hypervisor/kvm/hypervisorbackend.go (1.8)

use serde::Serialize;

use super::ratio::Ratio;
use super::version::KubeVirt;
use super::vm::Vm;
use super::{Error, GIB, MIB};

/// One part of the overhead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// What it is for.
    pub name: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Where the size comes from.
    pub why: String,
    /// Whether the ratio multiplies it.
    pub multiplied: bool,
}

/// The overhead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overhead {
    /// Its parts; the ratio's own is among them.
    pub terms: Vec<Term>,
    /// Their sum.
    pub bytes: u64,
}

/// The overhead that this release budgets for a VM.
///
/// # Errors
/// [`Error::Overflow`], or [`Error::NotInVersion`] where the VM asks for what the release does not know.
pub fn overhead(kubevirt: KubeVirt, vm: &Vm, ratio: Ratio) -> Result<Overhead, Error> {
    check(kubevirt, vm, ratio)?;
    let mut terms = Vec::new();
    processes(kubevirt, vm, &mut terms)?;
    devices(kubevirt, vm, &mut terms)?;
    let dedicated = (vm.dedicated_cpu || vm.wants_guaranteed()) && kubevirt.since(1, 1);
    if dedicated && kubevirt.since(1, 6) {
        push(
            &mut terms,
            "dedicated CPUs",
            100 * MIB,
            "dedicated CPUs or Guaranteed QoS, once".to_owned(),
        );
    }
    if vm.added_overhead > 0 {
        push(
            &mut terms,
            "reserved overhead",
            vm.added_overhead,
            "reservedOverhead.addedOverhead".to_owned(),
        );
    }
    let base = sum(&terms)?;
    let added = ratio.adds(base)?;
    let mut after = Vec::new();
    if ratio != Ratio::ONE {
        push(
            &mut after,
            "ratio",
            added,
            format!("{base} bytes in whole kB x ({} - 1)", ratio.factor()),
        );
    }
    if dedicated && !kubevirt.since(1, 6) {
        push(
            &mut after,
            "dedicated CPUs",
            100 * MIB,
            "dedicated CPUs or Guaranteed QoS, once, after the ratio".to_owned(),
        );
    }
    if vm.passt > 0 && kubevirt.since(1, 8) {
        push(&mut after, "passt", 250 * MIB, "once, after the ratio".to_owned());
    }
    if vm.binding_memory > 0 {
        push(
            &mut after,
            "network bindings",
            vm.binding_memory,
            "what the binding plugins ask for, after the ratio".to_owned(),
        );
    }
    terms.extend(after.into_iter().map(|term| Term {
        multiplied: false,
        ..term
    }));
    let bytes = sum(&terms)?;
    Ok(Overhead { terms, bytes })
}

/// What the release does not have.
fn check(kubevirt: KubeVirt, vm: &Vm, ratio: Ratio) -> Result<(), Error> {
    for (asked, major, minor, what) in [
        (
            ratio != Ratio::ONE,
            1,
            0,
            "additionalGuestMemoryOverheadRatio (it came with 1.0)",
        ),
        (vm.added_overhead > 0, 1, 8, "reservedOverhead (it came with 1.8)"),
        (vm.sev_snp, 1, 7, "SEV-SNP (it came with 1.7)"),
        (
            vm.binding_memory > 0,
            1,
            3,
            "memory overhead of binding plugins (it came with 1.3)",
        ),
    ] {
        if asked && !kubevirt.since(major, minor) {
            return Err(Error::NotInVersion {
                version: kubevirt.0.to_string(),
                what,
            });
        }
    }
    Ok(())
}

fn processes(kubevirt: KubeVirt, vm: &Vm, terms: &mut Vec<Term>) -> Result<(), Error> {
    // Since 1.7 a request that is missing is filled in only when the pod is made, too late for this term.
    // kubevirt: pkg/defaults/defaults.go setDefaultResourceRequests (1.6, 1.7)
    let request = match vm.request {
        Some(request) => request,
        None if kubevirt.since(1, 7) => 0,
        None => vm.limit.map_or_else(|| vm.guest_memory(), Ok)?,
    };
    let kilobytes = request.div_ceil(1000);
    let pages = kilobytes
        .checked_mul(1000)
        .ok_or(Error::Overflow("the memory request"))?
        / 512;
    push(
        terms,
        "page tables",
        pages,
        format!("memory request {request} bytes, in whole kB, / 512"),
    );
    let constants = kubevirt.constants();
    let libvirt = if kubevirt.since(0, 59) { "virtqemud" } else { "libvirtd" };
    for (name, mib) in [
        ("virt-launcher-monitor", constants.monitor),
        ("virt-launcher", constants.launcher),
        ("virtlogd", constants.virtlogd),
        (libvirt, constants.libvirt),
        ("qemu", constants.qemu),
    ] {
        push(terms, name, mib * MIB, "constant per process".to_owned());
    }
    let vcpus = vm.vcpus.max(1);
    let bytes = vcpus
        .checked_mul(8 * MIB)
        .ok_or(Error::Overflow("8 MiB x the number of vCPUs"))?;
    push(terms, "vCPUs", bytes, format!("8 MiB x {vcpus}"));
    push(terms, "iothreads", 8 * MIB, "flat, whatever their number".to_owned());
    if !vm.no_graphics {
        push(
            terms,
            "video",
            constants.video * MIB,
            "a graphics device is attached".to_owned(),
        );
    }
    Ok(())
}

fn devices(kubevirt: KubeVirt, vm: &Vm, terms: &mut Vec<Term>) -> Result<(), Error> {
    let vfio = vm.host_devices > 0 || vm.sriov > 0;
    for (present, name, bytes, why) in [
        (vm.arm64, "arm64 firmware", 128 * MIB, "two pflash devices of 64 MiB"),
        (vfio, "VFIO", GIB, "host devices, GPUs or SR-IOV, once"),
        (vm.downward_metrics, "downward metrics", MIB, "a volume in memory"),
        (vm.sev || vm.sev_snp, "SEV", 256 * MIB, "memory encryption"),
        (vm.tpm, "swtpm", 53 * MIB, "a TPM device"),
    ] {
        if present {
            push(terms, name, bytes, why.to_owned());
        }
    }
    if vm.exec_probes > 0 {
        let probes = vm.exec_probes.min(2);
        push(
            terms,
            "exec probes",
            (100 + 10 * probes) * MIB,
            format!("100 MiB + 10 MiB x {probes}"),
        );
    }
    // kubevirt: renderresources.go (0.59-1.2): for each interface that forwards every port, before the ratio
    if vm.passt > 0 && kubevirt.since(0, 59) && !kubevirt.since(1, 3) {
        let bytes = vm
            .passt
            .checked_mul(800 * MIB)
            .ok_or(Error::Overflow("800 MiB x the passt interfaces"))?;
        push(terms, "passt", bytes, format!("800 MiB x {}", vm.passt));
    }
    Ok(())
}

fn push(terms: &mut Vec<Term>, name: &'static str, bytes: u64, why: String) {
    terms.push(Term {
        name,
        bytes,
        why,
        multiplied: true,
    });
}

fn sum(terms: &[Term]) -> Result<u64, Error> {
    terms
        .iter()
        .try_fold(0_u64, |total, term| total.checked_add(term.bytes))
        .filter(|total| i64::try_from(*total).is_ok())
        .ok_or(Error::Overflow("the overhead"))
}
