//! Whether a memcg is watched, for everyone's charges: the answer must cost next to nothing where it is no.
//!
//! User space gives each watched memcg a number. A page names its owner by the address of a memcg or of an obj_cgroup: a
//! cache knows the numbers of addresses, zero where nobody watches. An address means the same until a memcg is made or goes
//! away, when the whole cache is forgotten. Arguments of functions are followed to the memcg's id instead, which is cheap
//! where the verifier knows their types, and a filter of a byte for each 65,536th id answers for most.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::macros::{fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext, RetProbeContext};
use tracer_common::{FILTER_LEN, KNOWN_BITS, KNOWN_LEN, WATCHES, WatchState};

use crate::hash;
use crate::hooks::Access;
use crate::kernel::{MEMCG_DATA_KMEM, MEMCG_DATA_OBJECTS, Pointer, cgroup_id, cgroup_id_typed, read};
use crate::maps::{STATE, WATCHED, WATCHED_FILTER, offset};

/// The number of a watched memcg: never zero, and below [`WATCHES`].
pub type Watch = u64;

/// Numbers of memcgs and obj_cgroups by address: the address without what all of them have in common, and in its low bits,
/// which are zero, the number. One word, so that it is never seen half written. It stands alone in its section, which user
/// space clears as a whole.
#[unsafe(no_mangle)]
pub static mut KNOWN: [u64; KNOWN_LEN] = [0; KNOWN_LEN];

/// Addresses in the kernel have at least this many bits in common; those of objects of more than 32 bytes end in at least
/// five zeroes, which makes room for a number.
///
/// kernel: 57 bits of virtual address (Documentation/arch/x86/x86_64/5level-paging.rst), ARCH_KMALLOC_MINALIGN and
/// kmalloc's size classes of 64 bytes and more (5.10 to 7.3)
const COMMON_BITS: u32 = 7;
const ALIGNMENT: u64 = 1 << ALIGNMENT_BITS;
const ALIGNMENT_BITS: u32 = 5;

/// Set in an owner that is the address of a memcg, whatever folios hold on this kernel.
const IS_MEMCG: u64 = 4;
/// All that can be set in an owner besides its address.
const FLAGS: u64 = 7;

/// The word of the cache where this address would be.
#[inline(always)]
fn place(address: u64) -> *mut u64 {
    let index = hash::place((address >> ALIGNMENT_BITS) as u32, u32::BITS - KNOWN_BITS);
    let first = (&raw mut KNOWN).cast::<u64>();
    // SAFETY: a hash of `KNOWN_BITS` bits is an index.
    unsafe { first.add(index as usize) }
}

/// The number of the memcg that an owner (`memcg_data` of a folio) stands for, if it is watched. Everyone's charges come
/// here: where the answer is no, and is known, it takes one look.
#[inline(always)]
pub fn of_owner(owner: u64) -> Option<Watch> {
    let address = owner & !(ALIGNMENT - 1);
    // SAFETY: a live map value.
    let mut number = unsafe { place(address).read_volatile() } ^ (address << COMMON_BITS);
    if number == 0 {
        return None;
    }
    if number >= u64::from(WATCHES) {
        number = resolve(owner);
    }
    // Vectors of objects may lie where a memcg was.
    (number != 0 && owner & MEMCG_DATA_OBJECTS == 0).then_some(number)
}

/// The number of a memcg by its address, as [`of_owner`].
#[inline(always)]
pub fn of_address(memcg: u64) -> Option<Watch> {
    of_owner(memcg | IS_MEMCG)
}

/// Finds out what an owner stands for, and remembers it.
#[inline(never)]
fn resolve(owner: u64) -> u64 {
    let pointer = owner & !FLAGS;
    if pointer == 0 || owner & MEMCG_DATA_OBJECTS != 0 {
        return 0;
    }
    let before = changes();
    let holds_objcg = if owner & IS_MEMCG != 0 {
        false
    } else if owner & MEMCG_DATA_KMEM != 0 {
        offset!(kernel_pages_hold_memcg) != 1
    } else {
        offset!(lru_folios_hold_objcg) == 1
    };
    let mut memcg = pointer as Pointer;
    if holds_objcg {
        memcg = read(memcg, offset!(objcg_memcg)).unwrap_or(core::ptr::null());
    }
    let Some(id) = cgroup_id(memcg) else {
        return 0;
    };
    // SAFETY: entries are only replaced as a whole.
    let number = unsafe { WATCHED.get(&id) }.copied().unwrap_or(0) & u64::from(WATCHES - 1);
    if state(WatchState::Caches) == 0 || pointer & (ALIGNMENT - 1) != 0 {
        return number;
    }
    // SAFETY: a live map value.
    unsafe { place(pointer).write_volatile(pointer << COMMON_BITS | number) };
    // Whoever changes what addresses mean says so first and clears the cache then: either that clears this word, or this
    // sees that it was said. The addition keeps the two apart on this CPU.
    if let Some(fence) = STATE.get_ptr_mut(WatchState::Fence as u32) {
        // SAFETY: a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(fence, 1) };
    }
    if changes() != before {
        // SAFETY: as above.
        unsafe { place(pointer).write_volatile(0) };
    }
    number
}

#[inline(always)]
fn state(which: WatchState) -> u64 {
    STATE.get_ptr(which as u32).map_or(0, |value| {
        // SAFETY: a live map value.
        unsafe { value.read_volatile() }
    })
}

/// How often it changed what addresses mean.
#[inline(always)]
fn changes() -> (u64, u64) {
    (state(WatchState::ChangedByKernel), state(WatchState::ChangedByUser))
}

/// Whether small anonymous pages, page cache and shmem are counted where they get their place, each.
#[inline(always)]
pub fn is_placed(which: WatchState) -> bool {
    state(which) != 0
}

/// The number of the memcg with this cgroup id, if it is watched.
#[inline(always)]
pub fn of_id(id: u64) -> Option<Watch> {
    let filter = WATCHED_FILTER.get(id as u32 % FILTER_LEN)?;
    if *filter == 0 {
        return None;
    }
    // SAFETY: entries are only replaced as a whole.
    unsafe { WATCHED.get(&id) }.copied()
}

/// The number of a memcg that came as an argument, or was loaded through one.
#[inline(always)]
pub fn of_memcg<A: Access>(memcg: Pointer) -> Option<Watch> {
    of_id(cgroup_id_typed::<A>(memcg))
}

/// The number of the memcg of an obj_cgroup that came as an argument.
#[inline(always)]
pub fn of_objcg<A: Access>(objcg: Pointer) -> Option<Watch> {
    of_memcg::<A>(A::get(objcg, offset!(objcg_memcg)))
}

/// Memcgs have changed: an address may mean another one now.
#[inline(always)]
fn changed() -> u32 {
    if let Some(count) = STATE.get_ptr_mut(WatchState::ChangedByKernel as u32) {
        // SAFETY: a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
    }
    let first = (&raw mut KNOWN).cast::<u64>();
    for index in 0..KNOWN_LEN {
        // SAFETY: within the map's value.
        unsafe { first.add(index).write_volatile(0) };
    }
    0
}

/// Programs that run when memcgs have changed. They look at no argument.
macro_rules! at_change {
    ($fexit:ident, $again:ident, $kprobe:ident, $kretprobe:ident) => {
        #[fexit]
        pub fn $fexit(_ctx: FExitContext) -> u32 {
            changed()
        }

        // Once more does no harm.
        #[fexit]
        pub fn $again(_ctx: FExitContext) -> u32 {
            changed()
        }

        #[kprobe]
        pub fn $kprobe(_ctx: ProbeContext) -> u32 {
            0
        }

        #[kretprobe]
        pub fn $kretprobe(_ctx: RetProbeContext) -> u32 {
            changed()
        }
    };
}

// kernel: int mem_cgroup_css_online(struct cgroup_subsys_state *) (5.10 to 7.3): a memcg and its obj_cgroups are there, and no
// process is in it yet. What had been at their addresses has been forgotten by all when they were made.
at_change!(memcg_made, memcg_made_again, memcg_made_kprobe, memcg_made_kretprobe);

// kernel: void mem_cgroup_css_offline(struct cgroup_subsys_state *) (5.10 to 7.3): its obj_cgroups are its parent's now
at_change!(memcg_left, memcg_left_again, memcg_left_kprobe, memcg_left_kretprobe);
