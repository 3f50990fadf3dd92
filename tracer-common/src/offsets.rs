//! Where the running kernel keeps what the eBPF side reads: resolved from its BTF at start, and written into the
//! programs with the other [`Constants`](crate::Constants).

use crate::assert_layout;

/// An offset or enum value that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! kernel_offsets {
    ($($(#[$meta:meta])* $field:ident,)*) => {
        /// Byte offsets, bit numbers and enum values of the running kernel; [`ABSENT`] where it has no such thing.
        /// User space resolves each from BTF: `probe/kernel_table.rs` says from what.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
        pub struct KernelOffsets { $($(#[$meta])* pub $field: u32,)* }

        impl KernelOffsets {
            /// Nothing resolved yet.
            pub const UNRESOLVED: Self = Self { $($field: ABSENT,)* };
        }
    };
}

kernel_offsets! {
    /// `folio.flags` (`page.flags` before folios).
    folio_flags,
    /// Whom a page is charged to: `folio.memcg_data`, a pointer to a memcg or an obj_cgroup with flag bits; `page.mem_cgroup`
    /// before 5.11.
    folio_owner,
    /// `folio.mapping`
    folio_mapping,
    /// `folio.index`
    folio_index,
    /// Pages of a large folio, from its head: `folio._nr_pages` (6.18), `folio._folio_nr_pages` (6.1, 6.12), `compound_nr`
    /// of the second page (5.10).
    folio_nr_pages,
    /// 1 where a page holds its memcg without flags (before 5.11), else 0.
    owner_has_no_flags,
    /// `page.page_type`
    page_type,
    /// Bit of `enum pageflags`: PG_head.
    pg_head,
    /// Bit of `enum pageflags`: PG_swapbacked.
    pg_swapbacked,
    /// Bit of `enum pageflags`: PG_swapcache.
    pg_swapcache,
    /// `enum pagetype`: PGTY_hugetlb, the top byte of a huge page's type (6.12).
    pgty_hugetlb,
    /// 1 where kernel pages hold a memcg as LRU pages do, although they have `memcg_data` (5.11, 5.12), else 0.
    kernel_pages_hold_memcg,
    /// 1 where LRU folios hold an obj_cgroup as kernel pages do (7.1 and later: `uncharge_gather.objcg`), else 0.
    lru_folios_hold_objcg,
    /// `mem_cgroup.css.cgroup`
    memcg_cgroup,
    /// `mem_cgroup.memory.usage`
    memcg_usage,
    /// `mem_cgroup.memory.max`
    memcg_max,
    /// `mem_cgroup.memory.parent`: the page counter of the parent memcg.
    memcg_counter_parent,
    /// `mem_cgroup.memory`: from a page counter back to its memcg.
    memcg_counter,
    /// `cgroup.kn`
    cgroup_kn,
    /// `kernfs_node.id`
    kernfs_id,
    /// `obj_cgroup.memcg`
    objcg_memcg,
    /// `task_struct.pid`: the thread id.
    task_pid,
    /// `task_struct.tgid`
    task_tgid,
    /// `task_struct.comm`
    task_comm,
    /// `task_struct.start_boottime`
    task_start,
    /// `task_struct.cgroups`
    task_cgroups,
    /// `task_struct.mm`: none for kernel threads.
    task_mm,
    /// `css_set.subsys[memory_cgrp_id]`
    css_set_memory,
    /// `task_struct.stack_vm_area`: the area of its kernel stack.
    task_stack_area,
    /// `vm_struct.pages`
    vm_pages,
    /// `vm_struct.nr_pages`
    vm_nr_pages,
    /// `sock.sk_memcg`
    sock_memcg,
    /// `vm_area_struct.vm_mm`
    vma_mm,
    /// `mm_struct.owner`
    mm_owner,
    /// `address_space.host`
    mapping_host,
    /// `inode.i_sb`
    inode_sb,
    /// `inode.i_ino`
    inode_number,
    /// `super_block.s_dev`
    sb_device,
    /// `oom_control.memcg`
    oom_memcg,
    /// `oom_control.gfp_mask`
    oom_gfp_mask,
    /// `oom_control.order`
    oom_order,
    /// `oom_control.chosen`
    oom_chosen,
    /// `oom_control.constraint`
    oom_constraint,
    /// `enum node_stat_item`: NR_ANON_MAPPED.
    stat_anon,
    /// `enum node_stat_item`: NR_FILE_PAGES, which includes shmem.
    stat_file,
    /// `enum node_stat_item`: NR_SHMEM.
    stat_shmem,
    /// `enum node_stat_item`: NR_SHMEM_THPS, huge pages of shmem.
    stat_shmem_huge,
    /// `enum node_stat_item`: NR_FILE_THPS, huge pages of files.
    stat_file_huge,
    /// `enum node_stat_item`: NR_PAGETABLE.
    stat_pagetable,
    /// `enum node_stat_item`: NR_SECONDARY_PAGETABLE.
    stat_secondary_pagetable,
    /// `enum node_stat_item`: NR_KERNEL_STACK_KB.
    stat_kernel_stack,
    /// `enum node_stat_item`: NR_SLAB_UNRECLAIMABLE_B, in bytes.
    stat_slab_unreclaimable,
    /// `enum node_stat_item`: NR_HUGETLB.
    stat_hugetlb,
    /// `enum memcg_stat_item`: MEMCG_KMEM, all kernel memory in pages.
    stat_kmem,
    /// `enum memcg_stat_item`: MEMCG_SOCK.
    stat_sock,
    /// `enum memcg_stat_item`: MEMCG_VMALLOC (5.18 to 6.18).
    stat_vmalloc,
    /// `enum node_stat_item`: NR_VMALLOC (7.2 and later), in place of the above.
    stat_node_vmalloc,
    /// `enum memcg_stat_item`: MEMCG_PERCPU_B, in bytes.
    stat_percpu,
}
assert_layout!(KernelOffsets, size 232);
