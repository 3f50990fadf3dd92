//! headroom's eBPF programs: one file per family of probes, all feeding [`account`].
//!
//! Which kernel function each program is attached to, and which of several candidates is used, is decided in user
//! space (`probe/`), by the programs' names.
#![no_std]
#![no_main]
// The target has atomic additions, but core offers its atomic types only where there is a compare and swap.
#![feature(core_intrinsics, asm_experimental_arch)]
#![expect(internal_features, reason = "as above")]

mod account;
mod alone;
mod charge;
mod constants;
mod fault;
mod hash;
mod hooks;
mod in_flight;
mod kernel;
mod kind;
mod live;
mod maps;
mod memcg_stat;
mod numbers;
mod oom;
mod place;
mod reclaim;
mod singles;
mod stacks;
mod table;
mod thread;
mod uncharge;
mod unplaced;
mod watch;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
