//! Whether a memcg is watched, for everyone's charges: the answer must cost next to nothing where it is no.
//!
//! User space gives each watched memcg a number. A charge names its owner by the address of a memcg or of an obj_cgroup, in a
//! page or as an argument: a cache knows what such words stand for. One that stands for nobody who is watched is there as it
//! is: one look and one comparison, which programs begin with. A word means the same until a memcg is made or goes away, when
//! the whole cache is forgotten. What is not known is followed to the memcg's id, and a filter of a byte for each 65,536th id
//! answers for most.

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::marker::PhantomData;

use aya_ebpf::macros::{fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext, RetProbeContext};
use tracer_common::{FILTER_LEN, KNOWN_LEN, WATCHES, WatchState, WatchedMemcg};

use crate::constants::{field, offset};
use crate::hash;
use crate::hooks::{Access, Subject};
use crate::kernel::{Folio, MEMCG_DATA_KMEM, MEMCG_DATA_OBJECTS, Pointer, as_number, cgroup_id, read};
use crate::maps::{STATE, WATCHED, WATCHED_FILTER, WATCHED_MEMCGS};

/// A watched memcg, and what is known of it. User space replaces it as a whole: a torn read of two numbers would be corrected
/// by the next.
pub type Memcg = &'static WatchedMemcg;

/// The number of a watched memcg: never zero, and below [`WATCHES`].
pub type Watch = u64;

/// What words stand for that name owners, each in the place of its hash: the word itself where nobody who is watched, else
/// [`form`] of it with the number in its low bits. One word, so that it is never seen half written. It stands alone in its
/// section, which user space clears as a whole: zero names no owner.
#[unsafe(no_mangle)]
pub static mut KNOWN: [u64; KNOWN_LEN] = [0; KNOWN_LEN];

/// Addresses in the kernel have at least one bit more than these in common, which are all set; those of objects of more than
/// 32 bytes end in at least five zeroes. Together that makes room for a number.
///
/// kernel: 57 bits of virtual address (Documentation/arch/x86/x86_64/5level-paging.rst), ARCH_KMALLOC_MINALIGN and
/// kmalloc's size classes of 64 bytes and more (5.10 to 7.3)
const COMMON_BITS: u32 = 7;
const ALIGNMENT: u64 = 1 << 5;

/// All that can be set in an owner besides its address.
const FLAGS: u64 = MEMCG_DATA_OBJECTS | MEMCG_DATA_KMEM;

/// The place of a word in the cache. Words with and without flags have places of their own.
#[inline(always)]
fn place(word: Pointer) -> *mut u64 {
    let offset = hash::offset::<u64, KNOWN_LEN>(word as u64);
    let first = (&raw mut KNOWN).cast::<u8>();
    // SAFETY: within the map's value, at a multiple of a word's size.
    unsafe { first.add(offset) }.cast()
}

/// How a word with a number stands in the cache: the address without the bits that all have in common, of which the first is
/// left out, so that it is no address.
#[inline(always)]
fn form(word: u64) -> u64 {
    ((word & !(ALIGNMENT - 1)) << COMMON_BITS) & (u64::MAX >> 1)
}

/// Who is charged, as an argument tells: the word that names it, and what the cache has in its place.
#[derive(Clone, Copy)]
pub struct Charged<Argument> {
    word: Pointer,
    entry: u64,
    argument: PhantomData<Argument>,
}

/// How an argument tells who is charged.
pub trait Names: Copy {
    /// What is at the address that the word names.
    const WHAT: What;

    /// The word that names it.
    fn word<A: Access>(argument: Pointer) -> Pointer;

    /// The word as a number.
    #[inline(always)]
    fn number(word: Pointer) -> u64 {
        as_number(word)
    }
}

/// What a word names.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum What {
    /// What folios have: its flags tell.
    Owner,
    Memcg,
    Objcg,
}

/// Who a folio is charged to.
pub type OfFolio = Charged<ByFolio>;
/// A memcg.
pub type OfMemcg = Charged<ByMemcg>;
/// An obj_cgroup.
pub type OfObjcg = Charged<ByObjcg>;
/// Who buffers of a socket are charged to.
pub type OfSocket = Charged<BySocket>;

/// See [`OfFolio`].
#[derive(Clone, Copy)]
pub struct ByFolio;
/// See [`OfMemcg`].
#[derive(Clone, Copy)]
pub struct ByMemcg;
/// See [`OfObjcg`].
#[derive(Clone, Copy)]
pub struct ByObjcg;
/// See [`OfSocket`].
#[derive(Clone, Copy)]
pub struct BySocket;

impl Names for ByFolio {
    const WHAT: What = What::Owner;

    #[inline(always)]
    fn word<A: Access>(folio: Pointer) -> Pointer {
        A::get(folio, field!(folio_owner))
    }

    /// What has flags is a number to the verifier, too.
    #[inline(always)]
    fn number(owner: Pointer) -> u64 {
        if offset!(owner_has_no_flags) == 1 {
            as_number(owner)
        } else {
            owner as u64
        }
    }
}

impl Names for ByMemcg {
    const WHAT: What = What::Memcg;

    #[inline(always)]
    fn word<A: Access>(memcg: Pointer) -> Pointer {
        memcg
    }
}

impl Names for ByObjcg {
    const WHAT: What = What::Objcg;

    #[inline(always)]
    fn word<A: Access>(objcg: Pointer) -> Pointer {
        objcg
    }
}

impl Names for BySocket {
    const WHAT: What = What::Memcg;

    // kernel: mem_cgroup_from_sk(), the low bits are flags (6.16 to 7.3)
    #[inline(always)]
    fn word<A: Access>(socket: Pointer) -> Pointer {
        A::get(socket, field!(sock_memcg))
    }
}

impl<By: Names> Subject for Charged<By> {
    type Argument = Pointer;

    #[inline(always)]
    fn of<A: Access>(argument: Pointer) -> Self {
        let word = By::word::<A>(argument);
        Self {
            word,
            // SAFETY: a live map value.
            entry: unsafe { place(word).read_volatile() },
            argument: PhantomData,
        }
    }

    /// Whether it is known that nobody who is watched is charged; nor is anyone where there is a null pointer.
    #[inline(always)]
    fn is_other(self) -> bool {
        self.entry == self.word as u64
    }
}

impl<By: Names> Charged<By> {
    /// The memcg, if it is watched; `None` where objects in a folio are charged each.
    #[inline(always)]
    pub fn memcg(self) -> Option<Memcg> {
        self.number().map(known)
    }

    /// Its number: as the cache knows, else as is found out.
    #[inline(always)]
    pub fn number(self) -> Option<Watch> {
        let word = By::number(self.word);
        if self.entry == word {
            return None;
        }
        // Not zero, which no owner has.
        let number = self.entry ^ form(word);
        if number < u64::from(WATCHES) {
            return Some(number);
        }
        let number = find_out(word, By::WHAT as u32);
        (number != 0).then_some(number)
    }
}

impl OfFolio {
    /// Whether the folio, which this is of, is kernel memory.
    #[inline(always)]
    pub fn is_kmem(self, folio: Folio) -> bool {
        if offset!(owner_has_no_flags) == 1 {
            folio.is_kmem_by_type()
        } else {
            ByFolio::number(self.word) & MEMCG_DATA_KMEM != 0
        }
    }
}

/// Finds out what a word stands for, and keeps it: the number of a memcg, zero of one that is not watched. Nor is one that
/// cannot be read, which is not kept. As `add` in `account.rs`, the verifier looks at this once.
#[unsafe(no_mangle)]
extern "C" fn find_out(word: u64, what: u32) -> u64 {
    let before = changes();
    let Some(id) = follow(word, what) else {
        return 0;
    };
    let number = of_id(id).unwrap_or(0) & u64::from(WATCHES - 1);
    remember(word, number, before);
    number
}

/// Keeps what a word stands for, if that did not change since it was asked for.
#[inline(always)]
fn remember(word: u64, number: Watch, before: (u64, u64)) {
    if state(WatchState::Caches) == 0 {
        return;
    }
    let entry = if number == 0 {
        word
    } else if word & (ALIGNMENT - 1) & !FLAGS == 0 {
        form(word) | number
    } else {
        return;
    };
    let place = place(word as Pointer);
    // SAFETY: a live map value.
    unsafe { place.write_volatile(entry) };
    // Whoever changes what words mean says so first and clears the cache then: either that clears this one, or this sees that
    // it was said. The addition keeps the two apart on this CPU.
    if let Some(fence) = STATE.get_ptr_mut(WatchState::Fence as u32) {
        // SAFETY: a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(fence, 1) };
    }
    if changes() != before {
        // SAFETY: as above.
        unsafe { place.write_volatile(0) };
    }
}

/// Follows a word to the cgroup id of the memcg that it stands for.
#[inline(always)]
fn follow(word: u64, what: u32) -> Option<u64> {
    let is = |of: What| what == of as u32;
    if is(What::Owner) && word & MEMCG_DATA_OBJECTS != 0 {
        return None;
    }
    let has_objcg = if !is(What::Owner) {
        is(What::Objcg)
    } else if word & MEMCG_DATA_KMEM != 0 {
        offset!(kernel_pages_hold_memcg) != 1
    } else {
        offset!(lru_folios_hold_objcg) == 1
    };
    let mut memcg = (word & !FLAGS) as Pointer;
    if has_objcg {
        memcg = read(memcg, offset!(objcg_memcg))?;
    }
    cgroup_id(memcg)
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

/// The watched memcg of a number.
#[inline(always)]
pub fn known(number: Watch) -> Memcg {
    let mut number = number;
    let mut first = &raw const WATCHED_MEMCGS;
    // SAFETY: the number stays what it is, but bounded where the verifier sees it. The compiler does not see that nothing here
    // writes to the array.
    unsafe {
        asm!(
            "{number} &= {mask}",
            "/* {first} */",
            number = inout(reg) number,
            first = inout(reg) first,
            mask = const WATCHES - 1,
            options(pure, nomem, nostack),
        );
        &*first.cast::<WatchedMemcg>().add(number as usize)
    }
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
