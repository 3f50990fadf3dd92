//! Reads of kernel structs, through offsets that user space resolved from BTF.

use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};

use tracer_common::{ABSENT, COMM_LEN};

use crate::constants::{bit, constant, field, offset};
use crate::hooks::{Access, Probed, Subject as _};
use crate::watch::{Memcg, OfFolio};

/// A kernel address of a struct.
pub type Pointer = *const u8;

/// Reads a field by a probe read: works on any address.
#[inline(always)]
pub fn read<T>(base: Pointer, offset: u32) -> Option<T> {
    // SAFETY: a probe read of a bad address fails, it does not fault.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// The cgroup id of a memcg: `memcg->css.cgroup->kn->id`, the inode number of its directory.
///
/// kernel: cgroup_id(), include/linux/cgroup.h (5.10 to 7.3)
#[inline(always)]
pub fn cgroup_id(memcg: Pointer) -> Option<u64> {
    let cgroup: Pointer = read(memcg, offset!(memcg_cgroup))?;
    let node: Pointer = read(cgroup, offset!(cgroup_kn))?;
    read(node, offset!(kernfs_id))
}

/// As [`cgroup_id`], through a pointer that came as an argument.
#[inline(always)]
pub fn cgroup_id_typed(memcg: Pointer) -> u64 {
    let cgroup: Pointer = field!(memcg_cgroup).load(memcg);
    let node: Pointer = field!(cgroup_kn).load(cgroup);
    field!(kernfs_id).load(node)
}

/// The memcg of a task: `task->cgroups->subsys[memory_cgrp_id]`, which is the address of the memcg itself since its
/// css is its first member.
#[inline(always)]
pub fn task_memcg(task: Pointer) -> Option<Pointer> {
    let set: Pointer = read(task, offset!(task_cgroups))?;
    read(set, offset!(css_set_memory))
}

/// The cgroup id of the current thread's memcg.
#[inline(always)]
pub fn current_memcg_id() -> Option<u64> {
    cgroup_id(task_memcg(current_task())?)
}

/// The current thread's `task_struct`, not typed.
#[inline(always)]
pub fn current_task() -> Pointer {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    task as Pointer
}

/// Thread id and thread group id of the current thread, in the initial pid namespace.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    (both as u32, (both >> 32) as u32)
}

/// The name of the current thread, NUL padded.
#[inline(always)]
pub fn current_comm() -> [u8; COMM_LEN] {
    /// Of words, so that it is not copied byte by byte.
    const WORDS: usize = COMM_LEN / size_of::<u64>();
    let mut comm = [0_u64; WORDS];
    // SAFETY: the helper writes so many bytes.
    unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LEN as u32);
        core::mem::transmute(comm)
    }
}

/// Thread id and `start_boottime` of the current thread. With bpf_get_current_task_btf (5.11) these are direct loads.
#[inline(always)]
pub fn current_thread() -> (u64, u64) {
    if constant!(has_task_btf) != 0 {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task_btf() }.cast::<u8>();
        let tid: u32 = field!(task_pid).load(task);
        return (tid.into(), field!(task_start).load(task));
    }
    let (tid, _) = current_ids();
    (tid.into(), read(current_task(), offset!(task_start)).unwrap_or(0))
}

/// A folio (before 5.16: the head page of what is one) and what its fields say.
#[derive(Clone, Copy)]
pub struct Folio(pub Pointer);

/// `memcg_data` bit 0, and bit 0 of `page.mem_cgroup`: a slab page, whose pointer is a vector of obj_cgroups.
/// kernel: MEMCG_DATA_OBJCGS, MEMCG_DATA_OBJEXTS (5.9 to 7.3)
pub const MEMCG_DATA_OBJECTS: u64 = 1;
/// `memcg_data` bit 1: a page charged as kernel memory, whose pointer is an obj_cgroup.
/// kernel: enum page_memcg_data_flags, MEMCG_DATA_KMEM (5.11 to 7.3)
pub const MEMCG_DATA_KMEM: u64 = 2;
/// `mapping` bit 0: an anonymous page, whose pointer is an anon_vma.
/// kernel: PAGE_MAPPING_ANON, FOLIO_MAPPING_ANON (5.10 to 7.3)
const MAPPING_ANON: u64 = 1;
/// `page_type` of a page that has no type: it shares its place with `_mapcount`, which is -1 in a page that is not
/// mapped. kernel: PageType(), include/linux/page-flags.h (5.10)
const NO_TYPE: u32 = u32::MAX;

impl Folio {
    /// The number of the memcg that the folio is charged to, if it is watched; `None` where it is charged object by object.
    #[inline(always)]
    pub fn owner(self) -> Option<Memcg> {
        OfFolio::of::<Probed>(self.0).memcg()
    }

    /// Before 5.11 kernel memory is told by a page type: PG_kmemcg, the only one that a charged page can have. A page that is
    /// mapped has a small count there instead.
    #[inline(always)]
    pub fn is_kmem_by_type(self) -> bool {
        let page_type: u32 = read(self.0, offset!(page_type)).unwrap_or(NO_TYPE);
        page_type != NO_TYPE && (page_type as i32) < 0
    }

    /// Whether the folio is charged to anyone.
    #[inline(always)]
    pub fn is_charged(self) -> bool {
        read(self.0, offset!(folio_owner)) != Some(0_u64)
    }

    /// Bytes of the folio.
    #[inline(always)]
    pub fn bytes(self) -> u64 {
        constant!(page_size) * self.pages()
    }

    /// As [`Folio::bytes`], where its flags are known.
    #[inline(always)]
    pub fn bytes_with(self, flags: Flags) -> u64 {
        if flags.is_huge() {
            self.bytes()
        } else {
            constant!(page_size)
        }
    }

    /// The flags of a folio that came as an argument.
    #[inline(always)]
    pub fn flags_in<A: Access>(self) -> Flags {
        Flags(A::get(self.0, field!(folio_flags)))
    }

    /// Whether it is mapped as anonymous memory, of a folio that came as an argument.
    #[inline(always)]
    pub fn is_anon_in<A: Access>(self) -> bool {
        u64::from(low_half(A::get(self.0, field!(folio_mapping)))) & MAPPING_ANON != 0
    }

    /// As [`Folio::is_hugetlb`], where its flags are known: none of hugetlbfs is a single page.
    #[inline(always)]
    pub fn is_hugetlb_with(self, flags: Flags) -> bool {
        flags.is_huge() && self.is_hugetlb()
    }

    /// The user address of an anonymous folio that came as an argument: its index is the page number of the address it was
    /// first mapped at.
    /// kernel: linear_page_index(), include/linux/pagemap.h (private anonymous mappings: vm_pgoff = vm_start >> 12)
    #[inline(always)]
    pub fn address_in<A: Access>(self) -> u64 {
        let index: u64 = A::get(self.0, field!(folio_index));
        index << (constant!(page_shift) & 31)
    }

    #[inline(always)]
    fn pages(self) -> u64 {
        if !self.has(bit!(pg_head)) {
            return 1;
        }
        let pages: u32 = read(self.0, offset!(folio_nr_pages)).unwrap_or(1);
        u64::from(pages)
    }

    #[inline(always)]
    fn has(self, bit: u64) -> bool {
        let flags: u64 = read(self.0, offset!(folio_flags)).unwrap_or(0);
        flags & bit != 0
    }

    /// PG_swapbacked: anonymous or shmem.
    #[inline(always)]
    pub fn is_swapbacked(self) -> bool {
        self.has(bit!(pg_swapbacked))
    }

    /// PG_swapcache: just read back from swap, or about to go there.
    #[inline(always)]
    pub fn in_swap_cache(self) -> bool {
        // kernel: PG_swapcache is PG_owner_priv_1, which file systems use on pages of their own; hence both.
        self.is_swapbacked() && self.has(bit!(pg_swapcache))
    }

    /// `mapping` with its flag bits.
    #[inline(always)]
    pub fn mapping(self) -> u64 {
        read(self.0, offset!(folio_mapping)).unwrap_or(0)
    }

    /// Whether the folio, which came as an argument, belongs to a file already.
    #[inline(always)]
    pub fn is_mapped_file_in<A: Access>(self) -> bool {
        let mapping: Pointer = A::get(self.0, field!(folio_mapping));
        !mapping.is_null() && u64::from(low_half(mapping)) & MAPPING_ANON == 0
    }

    /// Whether it is a huge page of hugetlbfs. Known where huge pages can be charged to memory and have a page type.
    #[inline(always)]
    pub fn is_hugetlb(self) -> bool {
        if offset!(pgty_hugetlb) == ABSENT {
            return false;
        }
        let page_type: u32 = read(self.0, offset!(page_type)).unwrap_or(0);
        // kernel: enum pagetype is the top byte (6.12 to 7.3)
        page_type >> 24 == offset!(pgty_hugetlb)
    }
}

/// `flags` of a folio.
#[derive(Clone, Copy)]
pub struct Flags(u64);

impl Flags {
    /// PG_head: of several pages.
    #[inline(always)]
    pub fn is_huge(self) -> bool {
        self.0 & bit!(pg_head) != 0
    }

    /// PG_swapbacked: anonymous or shmem.
    #[inline(always)]
    pub fn is_swapbacked(self) -> bool {
        self.0 & bit!(pg_swapbacked) != 0
    }

    /// Either.
    #[inline(always)]
    pub fn is_swapbacked_or_huge(self) -> bool {
        self.0 & constant!(swapbacked_or_huge) != 0
    }
}

/// The lower half of an address, as a number.
#[inline(always)]
pub fn low_half(address: Pointer) -> u32 {
    let number: u64;
    // SAFETY: copies a register. The verifier takes this copy for a number; arithmetic on the address it would refuse.
    // kernel: kernel/bpf/verifier.c, "partial copy of pointer" (5.10 to 7.3)
    unsafe { core::arch::asm!("w0 = w1", in("r1") address, out("r0") number) };
    number as u32
}

/// An address as a number. Of a pointer whose type it knows, the verifier lets nothing but constants be added.
#[inline(always)]
pub fn as_number(pointer: Pointer) -> u64 {
    let low = low_half(pointer);
    let mut address = pointer as u64;
    // SAFETY: a variable of this function; writes the byte that is there. Of a pointer on the stack that was written to in
    // part, the verifier remembers nothing.
    // kernel: kernel/bpf/verifier.c check_stack_write(), "destroys any spilled ptr" (5.10 to 7.3)
    unsafe {
        let address = &raw mut address;
        address.write_volatile(pointer as u64);
        address.cast::<u8>().write_volatile(low as u8);
        address.read_volatile()
    }
}
