//! The one table of what the eBPF side reads from kernel structs and enums, and how it is resolved from BTF.

use tracer_common::{ABSENT, KernelOffsets};

use super::btf::KernelTypes;

/// How a value is found.
enum Source {
    /// Byte offset of the first of these fields that exists.
    Field(&'static [&'static str]),
    /// Value of an enumerator.
    Enum(&'static str),
    /// Byte offset of the first of these fields that exists, else of a field of `struct page` in the page behind.
    FieldOrNextPage(&'static [&'static str], &'static str),
    /// 1 if the field exists, else 0.
    Has(&'static str),
    /// 1 if the function and the field exist, else 0.
    HasBoth(&'static str, &'static str),
    /// `css_set.subsys` plus eight bytes for each subsystem before the memory controller.
    SubsysMemory,
}

/// Whether headroom can do without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    /// Only some backends or kernels have or need it; those are checked by their probes.
    Optional,
}

struct Row {
    name: &'static str,
    source: Source,
    need: Need,
    set: fn(&mut KernelOffsets, u32),
}

macro_rules! rows {
    ($($need:ident $name:ident = $source:expr;)*) => {
        &[$(Row { name: stringify!($name), source: $source, need: Need::$need, set: |offsets, value| offsets.$name = value },)*]
    };
}

// kernel: fields and enumerators checked on 5.10, 6.1, 6.12, 6.18, 7.2 and 7.3.
const ROWS: &[Row] = rows! {
    Always folio_flags = Source::Field(&["folio.flags", "page.flags"]);
    Optional folio_owner = Source::Field(&["folio.memcg_data", "page.memcg_data", "page.mem_cgroup"]);
    Always folio_mapping = Source::Field(&["folio.mapping", "page.mapping"]);
    Always folio_index = Source::Field(&["folio.index", "page.index"]);
    Always folio_nr_pages = Source::FieldOrNextPage(&["folio._nr_pages", "folio._folio_nr_pages"], "page.compound_nr");
    Always owner_has_no_flags = Source::Has("page.mem_cgroup");
    Always page_type = Source::Field(&["page.page_type"]);
    Always pg_head = Source::Enum("PG_head");
    Always pg_swapbacked = Source::Enum("PG_swapbacked");
    Always pg_swapcache = Source::Enum("PG_swapcache");
    Optional pgty_hugetlb = Source::Enum("PGTY_hugetlb");
    Always kernel_pages_hold_memcg = Source::HasBoth("__memcg_kmem_charge", "page.memcg_data");
    Always lru_folios_hold_objcg = Source::Has("uncharge_gather.objcg");
    Always memcg_cgroup = Source::Field(&["mem_cgroup.css.cgroup"]);
    Always memcg_usage = Source::Field(&["mem_cgroup.memory.usage"]);
    Always memcg_max = Source::Field(&["mem_cgroup.memory.max"]);
    Always memcg_counter_parent = Source::Field(&["mem_cgroup.memory.parent"]);
    Always memcg_counter = Source::Field(&["mem_cgroup.memory"]);
    Always cgroup_kn = Source::Field(&["cgroup.kn"]);
    Always kernfs_id = Source::Field(&["kernfs_node.id"]);
    Always objcg_memcg = Source::Field(&["obj_cgroup.memcg"]);
    Always task_pid = Source::Field(&["task_struct.pid"]);
    Always task_tgid = Source::Field(&["task_struct.tgid"]);
    Always task_comm = Source::Field(&["task_struct.comm"]);
    Always task_start = Source::Field(&["task_struct.start_boottime"]);
    Always task_cgroups = Source::Field(&["task_struct.cgroups"]);
    Always task_mm = Source::Field(&["task_struct.mm"]);
    Always css_set_memory = Source::SubsysMemory;
    Optional task_stack_area = Source::Field(&["task_struct.stack_vm_area"]);
    Optional vm_pages = Source::Field(&["vm_struct.pages"]);
    Optional vm_nr_pages = Source::Field(&["vm_struct.nr_pages"]);
    Optional sock_memcg = Source::Field(&["sock.sk_memcg"]);
    Always vma_mm = Source::Field(&["vm_area_struct.vm_mm"]);
    Always mm_owner = Source::Field(&["mm_struct.owner"]);
    Always mapping_host = Source::Field(&["address_space.host"]);
    Always inode_sb = Source::Field(&["inode.i_sb"]);
    Always inode_number = Source::Field(&["inode.i_ino"]);
    Always sb_device = Source::Field(&["super_block.s_dev"]);
    Always oom_memcg = Source::Field(&["oom_control.memcg"]);
    Always oom_gfp_mask = Source::Field(&["oom_control.gfp_mask"]);
    Always oom_order = Source::Field(&["oom_control.order"]);
    Always oom_chosen = Source::Field(&["oom_control.chosen"]);
    Always oom_constraint = Source::Field(&["oom_control.constraint"]);
    Always stat_anon = Source::Enum("NR_ANON_MAPPED");
    Always stat_file = Source::Enum("NR_FILE_PAGES");
    Always stat_shmem = Source::Enum("NR_SHMEM");
    Optional stat_pagetable = Source::Enum("NR_PAGETABLE");
    Optional stat_secondary_pagetable = Source::Enum("NR_SECONDARY_PAGETABLE");
    Optional stat_shmem_huge = Source::Enum("NR_SHMEM_THPS");
    Optional stat_file_huge = Source::Enum("NR_FILE_THPS");
    Always stat_kernel_stack = Source::Enum("NR_KERNEL_STACK_KB");
    Optional stat_slab_unreclaimable = Source::Enum("NR_SLAB_UNRECLAIMABLE_B");
    Optional stat_hugetlb = Source::Enum("NR_HUGETLB");
    Optional stat_kmem = Source::Enum("MEMCG_KMEM");
    Always stat_sock = Source::Enum("MEMCG_SOCK");
    Optional stat_vmalloc = Source::Enum("MEMCG_VMALLOC");
    Optional stat_node_vmalloc = Source::Enum("NR_VMALLOC");
    Optional stat_percpu = Source::Enum("MEMCG_PERCPU_B");
};

/// What headroom needs and this kernel does not show.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this kernel's BTF has no {}", .0.join(", "))]
pub struct Unresolved(pub Vec<&'static str>);

/// Resolves every offset from the kernel's types.
///
/// # Errors
/// When something that headroom cannot do without is missing; all of it is named.
pub fn resolve_offsets(types: &KernelTypes) -> Result<KernelOffsets, Unresolved> {
    let mut offsets = KernelOffsets::UNRESOLVED;
    let mut missing = Vec::new();
    for row in ROWS {
        match value(types, &row.source) {
            Some(value) => (row.set)(&mut offsets, value),
            None if row.need == Need::Always => missing.push(row.name),
            None => {}
        }
    }
    if missing.is_empty() {
        Ok(offsets)
    } else {
        Err(Unresolved(missing))
    }
}

/// Fields and enumerators that headroom can do without, and this kernel does not have, under the kernel's names.
#[must_use]
pub fn absent(types: &KernelTypes) -> Vec<&'static str> {
    let rows = ROWS.iter().filter(|row| value(types, &row.source).is_none());
    rows.filter_map(|row| match row.source {
        Source::Field(paths) => paths.first().copied(),
        Source::Enum(name) => Some(name),
        _ => None,
    })
    .collect()
}

fn value(types: &KernelTypes, source: &Source) -> Option<u32> {
    match source {
        Source::Field(paths) => paths.iter().find_map(|path| types.field_offset(path)),
        Source::FieldOrNextPage(paths, behind) => {
            let here = paths.iter().find_map(|path| types.field_offset(path));
            here.or_else(|| Some(types.struct_size("page")? + types.field_offset(behind)?))
        }
        Source::HasBoth(function, field) => Some(u32::from(
            types.function(function).is_some() && types.field_offset(field).is_some(),
        )),
        Source::Enum(name) => types.enum_value(name).and_then(|value| u32::try_from(value).ok()),
        Source::Has(path) => Some(u32::from(types.field_offset(path).is_some())),
        Source::SubsysMemory => {
            let subsystem = u32::try_from(types.enum_value("memory_cgrp_id")?).ok()?;
            Some(types.field_offset("css_set.subsys")? + 8 * subsystem)
        }
    }
    .filter(|&value| value != ABSENT)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_running_kernel_has_everything_that_is_needed() {
        let types = KernelTypes::of_running_kernel(Path::new("/")).expect("BTF");
        let offsets = resolve_offsets(&types).expect("resolved");
        assert_ne!(offsets.folio_owner, ABSENT);
        assert_ne!(offsets.stat_kmem, ABSENT);
        assert_eq!(
            offsets.memcg_counter, offsets.memcg_usage,
            "usage is the first field of a page counter"
        );
    }

    #[test]
    fn names_everything_that_is_missing() {
        let mut empty = vec![0x9f, 0xeb, 1, 0];
        for word in [24_u32, 0, 0, 0, 1] {
            empty.extend(word.to_le_bytes());
        }
        empty.push(0);
        let types = KernelTypes::parse(empty).expect("an empty type table");
        let error = resolve_offsets(&types).unwrap_err();
        assert!(
            error.0.contains(&"folio_flags") && error.0.contains(&"oom_chosen"),
            "{error}"
        );
        assert!(!error.0.contains(&"stat_hugetlb"), "optional");
    }
}
