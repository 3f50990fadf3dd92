//! What a VM took against what its overhead budgets for, term by term and in the three parts that operators know from
//! Harvester's documentation.

use std::collections::BTreeMap;

use serde::Serialize;

use super::overhead::Overhead;
use crate::units::clamp;

/// Who takes overhead that a term budgets for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consumer {
    /// The kernel: page tables, KVM's page tables, stacks, and what else it keeps for the pod.
    Kernel,
    /// QEMU's vCPU threads.
    Vcpus,
    /// QEMU's iothreads and block workers.
    Iothreads,
    /// The rest of QEMU; all of it where threads are not told apart.
    Qemu,
    /// A helper process, by its short name.
    Process(String),
}

/// What consumers took, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By consumer.
    pub by: BTreeMap<Consumer, u64>,
    /// QEMU's threads are told apart: else what vCPUs and iothreads took is in [`Consumer::Qemu`].
    pub threads: bool,
    /// Everything but guest RAM and page cache that reclaim could take, where that is known by itself.
    pub total: Option<u64>,
}

impl Taken {
    /// Adds to a consumer.
    pub fn add(&mut self, consumer: Consumer, bytes: u64) {
        let taken = self.by.entry(consumer).or_default();
        *taken = taken.saturating_add(bytes);
    }
}

/// A part of the overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Part {
    /// vCPUs and iothreads.
    #[serde(rename = "CPU and threads")]
    Cpu,
    /// Page tables and other memory of the kernel.
    #[serde(rename = "memory management")]
    Memory,
    /// QEMU itself, devices and helper processes.
    #[serde(rename = "devices and helpers")]
    Devices,
    /// For whatever needs it: what the ratio adds, and what was added by hand.
    #[serde(rename = "reserve")]
    Reserve,
}

impl Part {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU and threads",
            Self::Memory => "memory management",
            Self::Devices => "devices and helpers",
            Self::Reserve => "reserve",
        }
    }
}

/// A term, or terms that one consumer takes, against what it took. Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which part it belongs to.
    pub part: Part,
    /// The term's name, or the consumer's where nothing is budgeted for it.
    pub name: String,
    /// What is budgeted.
    pub budgeted: u64,
    /// What was taken; absent where that is not measured by itself.
    pub taken: Option<u64>,
}

/// A part against what it took. Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSum {
    /// Which.
    pub part: Part,
    /// What is budgeted.
    pub budgeted: u64,
    /// What was taken; absent where nothing of it is measured by itself.
    pub taken: Option<u64>,
    /// By how much more than budgeted.
    pub exceeded_by: u64,
}

/// The overhead broken down. Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    /// By term.
    pub lines: Vec<Line>,
    /// By part.
    pub parts: Vec<PartSum>,
    /// What is budgeted in all.
    pub budgeted: u64,
    /// What was taken in all, where that is known.
    pub taken: Option<u64>,
    /// What was taken in all and is in none of the lines. Below zero where the lines have more than that: each is a peak,
    /// and not all had theirs at one time; or a process brought pages along that another memcg is charged for.
    pub not_told_apart: i64,
}

/// Which part a term belongs to, and who takes it.
fn place(term: &str, threads: bool) -> (Part, Option<Consumer>) {
    let process = |name: &str| Some(Consumer::Process(name.to_owned()));
    match term {
        "page tables" => (Part::Memory, Some(Consumer::Kernel)),
        "SEV" => (Part::Memory, None),
        "vCPUs" if threads => (Part::Cpu, Some(Consumer::Vcpus)),
        "iothreads" if threads => (Part::Cpu, Some(Consumer::Iothreads)),
        "vCPUs" | "iothreads" => (Part::Cpu, Some(Consumer::Qemu)),
        "dedicated CPUs" => (Part::Cpu, None),
        "qemu" | "video" | "arm64 firmware" => (Part::Devices, Some(Consumer::Qemu)),
        "virt-launcher-monitor" | "virt-launcher" | "virtlogd" | "swtpm" | "passt" => (Part::Devices, process(term)),
        // One daemon under the name of its time.
        "virtqemud" | "libvirtd" => (Part::Devices, process("virtqemud")),
        "ratio" | "reserved overhead" => (Part::Reserve, None),
        _ => (Part::Devices, None),
    }
}

/// libvirt's daemon under either of its names.
fn canonical(consumer: &Consumer) -> Consumer {
    match consumer {
        Consumer::Process(name) if name == "libvirtd" => Consumer::Process("virtqemud".to_owned()),
        other => other.clone(),
    }
}

/// Compares what was taken with what is budgeted.
#[must_use]
pub fn breakdown(overhead: &Overhead, taken: &Taken) -> Breakdown {
    let mut left: BTreeMap<Consumer, u64> = BTreeMap::new();
    for (consumer, bytes) in &taken.by {
        let sum = left.entry(canonical(consumer)).or_default();
        *sum = sum.saturating_add(*bytes);
    }
    let mut lines: Vec<(Option<Consumer>, Line)> = Vec::new();
    for term in &overhead.terms {
        let (part, consumer) = place(term.name, taken.threads);
        let joins = lines
            .iter_mut()
            .find(|(other, _)| other.is_some() && *other == consumer);
        if let Some((_, line)) = joins {
            line.budgeted = line.budgeted.saturating_add(term.bytes);
            line.name = format!("{}, {}", line.name, term.name);
            // QEMU as a whole is a device more than it is its threads.
            line.part = line.part.max(part);
            continue;
        }
        let line = Line {
            part,
            name: term.name.to_owned(),
            budgeted: term.bytes,
            taken: consumer.as_ref().and_then(|consumer| left.remove(consumer)),
        };
        lines.push((consumer, line));
    }
    lines.extend(left.into_iter().filter(|(_, bytes)| *bytes > 0).map(without_budget));
    let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
    let told = lines.iter().filter_map(|line| line.taken).fold(0, u64::saturating_add);
    Breakdown {
        parts: parts(&lines),
        budgeted: overhead.bytes,
        taken: taken.total,
        not_told_apart: taken
            .total
            .map_or(0, |total| clamp(i128::from(total) - i128::from(told))),
        lines,
    }
}

fn without_budget((consumer, bytes): (Consumer, u64)) -> (Option<Consumer>, Line) {
    let (part, name) = match &consumer {
        Consumer::Kernel => (Part::Memory, "kernel memory"),
        Consumer::Vcpus => (Part::Cpu, "vCPUs"),
        Consumer::Iothreads => (Part::Cpu, "iothreads"),
        Consumer::Qemu => (Part::Devices, "qemu"),
        Consumer::Process(name) => (Part::Devices, name.as_str()),
    };
    let line = Line {
        part,
        name: name.to_owned(),
        budgeted: 0,
        taken: Some(bytes),
    };
    (Some(consumer), line)
}

fn parts(lines: &[Line]) -> Vec<PartSum> {
    [Part::Cpu, Part::Memory, Part::Devices, Part::Reserve]
        .into_iter()
        .filter_map(|part| {
            let mut lines = lines.iter().filter(|line| line.part == part).peekable();
            lines.peek()?;
            let (mut budgeted, mut taken) = (0_u64, None::<u64>);
            for line in lines {
                budgeted = budgeted.saturating_add(line.budgeted);
                if let Some(bytes) = line.taken {
                    taken = Some(taken.unwrap_or(0).saturating_add(bytes));
                }
            }
            Some(PartSum {
                part,
                budgeted,
                taken,
                exceeded_by: taken.unwrap_or(0).saturating_sub(budgeted),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::overhead::overhead;
    use crate::sizing::ratio::Ratio;
    use crate::sizing::version::KubeVirt;
    use crate::sizing::vm::Vm;
    use crate::sizing::{GIB, MIB};

    fn budget(kubevirt: &str, ratio: &str) -> Overhead {
        let vm = Vm {
            guest: Some(2 * GIB),
            request: Some(2 * GIB),
            limit: Some(2 * GIB),
            vcpus: 4,
            tpm: true,
            ..Vm::default()
        };
        overhead(KubeVirt::named(kubevirt).unwrap(), &vm, Ratio::kubevirt(ratio).unwrap()).unwrap()
    }

    fn taken(threads: bool, by: &[(Consumer, u64)]) -> Taken {
        Taken {
            by: by.iter().map(|(consumer, mib)| (consumer.clone(), mib * MIB)).collect(),
            threads,
            total: Some(by.iter().map(|(_, mib)| mib * MIB).sum::<u64>() + MIB),
        }
    }

    fn process(name: &str) -> Consumer {
        Consumer::Process(name.to_owned())
    }

    #[test]
    fn every_byte_of_the_budget_and_of_the_use_is_in_one_line() {
        let overhead = budget("1.5", "1.5");
        let taken = taken(
            true,
            &[
                (Consumer::Kernel, 30),
                (Consumer::Vcpus, 2),
                (Consumer::Iothreads, 9),
                (Consumer::Qemu, 60),
                (process("virtqemud"), 41),
                (process("swtpm"), 5),
                (process("memhold"), 400),
            ],
        );
        let broken = breakdown(&overhead, &taken);
        let sum = |of: fn(&Line) -> u64| broken.lines.iter().map(of).sum::<u64>();
        assert_eq!(sum(|line| line.budgeted), overhead.bytes);
        assert_eq!(sum(|line| line.taken.unwrap_or(0)), 547 * MIB);
        assert_eq!(broken.not_told_apart, MIB.cast_signed());
        let line = |name: &str| broken.lines.iter().find(|line| line.name == name).unwrap();
        assert_eq!(
            (line("iothreads").budgeted, line("iothreads").taken),
            (8 * MIB, Some(9 * MIB))
        );
        assert_eq!((line("memhold").budgeted, line("memhold").part), (0, Part::Devices));
        assert_eq!(line("qemu, video").taken, Some(60 * MIB));
        let part = |part| broken.parts.iter().find(|sum| sum.part == part).unwrap();
        assert_eq!((part(Part::Cpu).budgeted, part(Part::Cpu).exceeded_by), (40 * MIB, 0));
        assert_eq!(part(Part::Memory).exceeded_by, 30 * MIB - part(Part::Memory).budgeted);
        assert_eq!(part(Part::Reserve).taken, None);
        assert!(part(Part::Devices).exceeded_by > 200 * MIB);
    }

    #[test]
    fn without_threads_qemu_stands_against_all_that_is_budgeted_for_it() {
        let broken = breakdown(
            &budget("0.54", "1"),
            &taken(false, &[(Consumer::Qemu, 80), (process("libvirtd"), 9)]),
        );
        let qemu = broken.lines.iter().find(|line| line.name.contains("qemu")).unwrap();
        assert_eq!((qemu.budgeted, qemu.taken), ((30 + 32 + 8 + 16) * MIB, Some(80 * MIB)));
        assert_eq!(qemu.part, Part::Devices);
        assert!(broken.parts.iter().all(|part| part.part != Part::Cpu));
        let libvirt = broken.lines.iter().find(|line| line.name == "libvirtd").unwrap();
        assert_eq!((libvirt.budgeted, libvirt.taken), (33 * MIB, Some(9 * MIB)));
    }
}
