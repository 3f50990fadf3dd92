//! The maps.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, Stack};
use tracer_common::{
    Account, FILTER_LEN, FileKey, GuestRanges, LivePages, LossCounter, Placed, RECENT_BITS, SinglePage, WATCHES,
    WatchState, WatchedMemcg,
};

use crate::fault::FaultState;
use crate::hooks::{CallArguments, CallKey};
use crate::in_flight::{IN_FLIGHT_LEN, InFlight};
use crate::numbers::Words;
use crate::reclaim::ReclaimStart;
use crate::table::Table;

/// Records, to user space. Its size is set at load.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Stacks, to user space: apart, so that they cannot displace what is counted. Its size is set at load.
#[map]
pub static STACK_RECORDS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// The accounts by their numbers: the truth that the records only report.
#[map]
pub static ACCOUNTS: Array<Account> = Array::with_max_entries(tracer_common::ACCOUNTS, BPF_F_MMAPABLE);

/// The numbers of the accounts that are open, by the words of their keys.
#[map]
pub static NUMBERS: HashMap<Words, u32> = HashMap::with_max_entries(tracer_common::ACCOUNTS, 0);

/// Numbers that no account has.
#[map]
pub static FREE_NUMBERS: Stack<u32> = Stack::with_max_entries(tracer_common::ACCOUNTS, 0);

/// Numbers of accounts that were added to of late, by a hash of their keys.
#[unsafe(link_section = ".bss.recent")]
pub static RECENT: Table<u32, { 1 << RECENT_BITS }> = Table::of(0);

/// The numbers of the watched memcgs, by cgroup id.
#[map]
pub static WATCHED: HashMap<u64, u64> = HashMap::with_max_entries(WATCHES, 0);

/// The watched memcgs by their numbers. A variable with a section of its own, which becomes a map of one value, as [`Table`]s
/// are.
#[unsafe(link_section = ".bss.watched")]
pub static mut WATCHED_MEMCGS: [WatchedMemcg; WATCHES as usize] = [WatchedMemcg::NONE; WATCHES as usize];

/// Not zero where a watched memcg's id, divided by the length, leaves this.
#[map]
pub static WATCHED_FILTER: Array<u8> = Array::with_max_entries(FILTER_LEN, 0);

/// What concerns all watches.
#[map]
pub static STATE: Array<u64> = Array::with_max_entries(WatchState::COUNT, 0);

/// Which pages are seen getting their place: see [`Placed`]. User space says so before anything is watched.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.places")]
pub static mut PLACES: [u32; Placed::COUNT] = [0; Placed::COUNT];

/// Pages that are charged and have no place yet.
#[unsafe(link_section = ".bss.in_flight")]
pub static IN_FLIGHT: Table<InFlight, IN_FLIGHT_LEN> = Table::of(InFlight::NONE);

/// Guest RAM mappings by thread group id.
#[map]
pub static GUEST_RANGES: HashMap<u32, GuestRanges> = HashMap::with_max_entries(1024, 0);

/// Files that back guest RAM.
#[map]
pub static GUEST_FILES: HashMap<FileKey, u8> = HashMap::with_max_entries(4096, 0);

/// Page cache added, in pages, by memcg and file. The least used give way: it is a top list.
#[map]
pub static FILE_PAGES: LruHashMap<[u64; 3], u64> = LruHashMap::with_max_entries(4096, 0);

/// What QEMU threads are faulting on, by thread id (tracepoint backend).
#[map]
pub static FAULTS: HashMap<u32, FaultState> = HashMap::with_max_entries(8192, 0);

/// Folios that were charged as anonymous memory and wait for their place, by address.
#[map]
pub static UNPLACED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(16_384, 0);

/// Small pages of the page ledger, by their address. Their number is set at load, a power of two.
#[map]
pub static SINGLES: Array<SinglePage> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The page ledger: all others. Its size is set at load.
#[map]
pub static PAGES: HashMap<u64, LivePages> = HashMap::with_max_entries(1, 0);

/// Orders that pages in the ledger were ever of: 1 at their index.
#[map]
pub static ORDERS: Array<[u8; 64]> = Array::with_max_entries(1, 0);

/// Threads that are reclaiming, by thread id.
#[map]
pub static RECLAIMS: HashMap<u32, ReclaimStart> = HashMap::with_max_entries(4096, 0);

/// Calls that a kprobe saw begin and its kretprobe has not seen end.
#[map]
pub static CALLS: HashMap<CallKey, CallArguments> = HashMap::with_max_entries(8192, 0);

/// Calls whose first program ran, so that the second has nothing to do: far more than can be between the two at a time.
#[unsafe(link_section = ".bss.seen")]
pub static SEEN: Table<u32, { 1 << 16 }> = Table::of(0);

/// Threads that have accounts: only their exits and renames are of interest.
#[map]
pub static THREADS: HashMap<u32, u64> = HashMap::with_max_entries(16_384, 0);

/// What could not be done as meant.
#[map]
pub static LOSSES: PerCpuArray<[u64; LossCounter::COUNT]> = PerCpuArray::with_max_entries(1, 0);

/// Counts something that could not be done as meant.
#[inline(always)]
pub fn count_loss(counter: LossCounter, amount: u64) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: the verifier knows the pointer to be a live map value of this CPU.
        unsafe { (*losses)[counter as usize] += amount };
    }
}
