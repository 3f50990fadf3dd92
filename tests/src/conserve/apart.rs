//! Kinds of kernel memory that both a backend and memory.stat tell apart.

use std::collections::BTreeMap;

use tracer_common::Kind;

/// Kinds of kernel memory by their names in memory.stat of v2, which shows those that its kernel knows. Written down here
/// once more, so that what headroom takes them for is looked at, too. kernel: mm/memcontrol.c memory_stats (5.10 to 7.3)
pub const NAMES: [(&str, Kind); 6] = [
    ("slab", Kind::Slab),
    ("pagetables", Kind::Pagetable),
    ("sec_pagetables", Kind::SecondaryPagetable),
    ("kernel_stack", Kind::KernelStack),
    ("vmalloc", Kind::Vmalloc),
    ("percpu", Kind::Percpu),
];

/// Kinds that each probe brings, where it is attached.
const BROUGHT: [(&str, &[Kind]); 4] = [
    (
        "kind_of_pages",
        &[Kind::Pagetable, Kind::SecondaryPagetable, Kind::KernelStack],
    ),
    ("kind_of_stack", &[Kind::KernelStack]),
    ("kind_of_memcg_stat", &[Kind::Vmalloc, Kind::Percpu]),
    // Tracepoints tell of objects by the page: slab and per-CPU memory are `kmem`.
    (
        "lruvec_stat",
        &[
            Kind::Pagetable,
            Kind::SecondaryPagetable,
            Kind::KernelStack,
            Kind::Vmalloc,
        ],
    ),
];

/// Kinds that are told apart by these backends of probes, as a recording's header has them.
#[must_use]
pub fn told_apart(backends: &BTreeMap<String, String>) -> Vec<Kind> {
    let attached = |probe: &str| {
        let backend = backends.get(probe).and_then(|text| text.split(' ').next());
        backend.is_some_and(|word| ["fentry", "kprobe", "tracepoint"].contains(&word))
    };
    let brought = BROUGHT.iter().filter(|(probe, _)| attached(probe));
    let mut kinds: Vec<Kind> = brought.flat_map(|(_, kinds)| kinds.iter().copied()).collect();
    // What is too large for a slab is charged by the page: it takes both to see all of it.
    if attached("charge_objects") && attached("kind_of_pages") {
        kinds.push(Kind::Slab);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_that_are_attached_bring_kinds() {
        let backends = [
            ("kind_of_pages", "none: this kernel has no lruvec_stat_mod_folio"),
            (
                "kind_of_stack",
                "kprobe account_kernel_stack, not by fentry: refused (EPERM)",
            ),
            ("charge_objects", "not needed: charge_objects sees them freed too"),
        ];
        let backends = backends.map(|(probe, text)| (probe.to_owned(), text.to_owned()));
        assert_eq!(told_apart(&BTreeMap::from(backends)), [Kind::KernelStack]);
    }
}
