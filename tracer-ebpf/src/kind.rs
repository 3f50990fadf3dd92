//! Which kind kernel memory is of. It is charged as pages or as objects, and its kind is known only where the kernel
//! counts it for memory.stat: there its bytes move from one kind to the other, and none are added.

use tracer_common::{ITEMS, Kind};

use crate::account::reclassify;
use crate::constants::{constant, offset};
use crate::hooks::{Access, Anyone, Probed, Subject, at_entry};
use crate::kernel::{Folio, Pointer, read};
use crate::live::told_apart;
use crate::unplaced::collapsed_into_file;
use crate::watch::{OfFolio, OfMemcg};

// kernel: void lruvec_stat_mod_folio(struct folio *, enum node_stat_item, int) (7.x), __lruvec_stat_mod_folio (6.9 to
// 6.18), void __mod_lruvec_page_state(struct page *, enum node_stat_item, int) (5.11 to 6.8)
at_entry!(kind_of_pages, kind_of_pages_again, kind_of_pages_kprobe, OfPageItem(1) => pages_counted(0, 2));

/// Which of `enum node_stat_item`, modulo their number, are of no interest where pages are counted. User space says so before
/// loading.
#[unsafe(no_mangle)]
pub static OTHER_ITEMS: [u8; ITEMS] = [0; ITEMS];

#[inline(always)]
fn is_of_no_interest(item: u32) -> bool {
    let first = (&raw const OTHER_ITEMS).cast::<u8>();
    // SAFETY: within the array, which is never written to after loading.
    unsafe { first.add(item as usize % ITEMS).read_volatile() != 0 }
}

/// What is counted, of pages or of a memcg itself: nearly always something else than what is told apart here.
#[derive(Clone, Copy)]
struct OfItem<const OF_PAGES: bool>(u32);

type OfPageItem = OfItem<true>;
type OfMemcgItem = OfItem<false>;

impl<const OF_PAGES: bool> Subject for OfItem<OF_PAGES> {
    type Argument = u32;

    #[inline(always)]
    fn of<A: Access>(item: u32) -> Self {
        Self(item)
    }

    #[inline(always)]
    fn is_other(self) -> bool {
        if OF_PAGES {
            is_of_no_interest(self.0)
        } else {
            self.0 != offset!(stat_vmalloc) && self.0 != offset!(stat_percpu)
        }
    }
}

#[inline(always)]
fn pages_counted<A: Access>(OfItem(item): OfPageItem, folio: Pointer, value: i32) -> Option<()> {
    let (kind, unit) = if item == offset!(stat_pagetable) {
        (Kind::Pagetable, constant!(page_size))
    } else if item == offset!(stat_secondary_pagetable) {
        (Kind::SecondaryPagetable, constant!(page_size))
    } else if item == offset!(stat_kernel_stack) {
        (Kind::KernelStack, 1024)
    } else if item == offset!(stat_node_vmalloc) {
        (Kind::Vmalloc, constant!(page_size))
    } else if item == offset!(stat_slab_unreclaimable) {
        // What is too large for a slab is charged by the page; objects in slabs are not counted by the page.
        (Kind::Slab, 1)
    } else if item == offset!(stat_shmem_huge) || item == offset!(stat_file_huge) {
        return collapsed_into_file(Folio(folio));
    } else {
        return None;
    };
    let owner = OfFolio::of::<A>(folio);
    if !owner.is_kmem(Folio(folio)) {
        return None;
    }
    let bytes = i64::from(value) * unit as i64;
    let number = reclassify(owner.memcg()?, Kind::Kmem, kind, bytes);
    if bytes > 0 {
        told_apart(folio, number, bytes as u64);
    }
    Some(())
}

/// Pages of a kernel stack at most. kernel: THREAD_SIZE_ORDER 2, with KASAN 3 (5.10)
const MAX_STACK_PAGES: u32 = 8;
/// Bytes of a pointer.
const POINTER: u32 = 8;

// kernel: static void account_kernel_stack(struct task_struct *, int account) (5.10), 1 or -1, while its pages are charged
at_entry!(kind_of_stack, kind_of_stack_again, kind_of_stack_kprobe, Anyone(0) => stack_counted(0, 1));

#[inline(always)]
fn stack_counted<A: Access>(_: Anyone, task: Pointer, account: i32) -> Option<()> {
    let area: Pointer = read(task, offset!(task_stack_area))?;
    let count: u32 = read(area, offset!(vm_nr_pages))?;
    let pages: Pointer = read(area, offset!(vm_pages))?;
    let first: Pointer = read(pages, 0)?;
    let owner = OfFolio::of::<Probed>(first);
    if !owner.is_kmem(Folio(first)) {
        return None;
    }
    let bytes = u64::from(count) * constant!(page_size);
    let number = reclassify(
        owner.memcg()?,
        Kind::Kmem,
        Kind::KernelStack,
        i64::from(account) * bytes as i64,
    );
    if account > 0 {
        for index in 0..MAX_STACK_PAGES {
            if index < count {
                told_apart(read(pages, index * POINTER)?, number, constant!(page_size));
            }
        }
    }
    Some(())
}

// kernel: void mod_memcg_state(struct mem_cgroup *, enum memcg_stat_item, int) (6.15 to 7.3), before it
// __mod_memcg_state(struct mem_cgroup *, int | enum memcg_stat_item, int) (5.3 to 6.14)
at_entry!(kind_of_memcg_stat, kind_of_memcg_stat_again, kind_of_memcg_stat_kprobe, OfMemcgItem(1) => memcg_stat_counted(0, 2));

#[inline(always)]
fn memcg_stat_counted<A: Access>(OfItem(item): OfMemcgItem, memcg: Pointer, value: i32) -> Option<()> {
    let (from, to, unit) = if item == offset!(stat_vmalloc) {
        (Kind::Kmem, Kind::Vmalloc, constant!(page_size))
    } else if item == offset!(stat_percpu) {
        // Per-CPU memory is charged like objects, in bytes.
        (Kind::Slab, Kind::Percpu, 1)
    } else {
        return None;
    };
    let memcg = OfMemcg::of::<A>(memcg).memcg()?;
    reclassify(memcg, from, to, i64::from(value) * unit as i64);
    Some(())
}
