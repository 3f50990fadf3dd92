//! One body, three ways to run it: each probe of a kernel function is a fentry or fexit program, and the same as a
//! kprobe (with a kretprobe where the return value is needed).
//!
//! User space attaches one of them; it finds the others by name: `NAME`, `NAME_kprobe`, `NAME_kretprobe`.
//!
//! The kernel leaves a fentry or fexit program out while the same program is under way on that CPU: interrupted, or, where
//! the kernel can be preempted, in a thread that waits for its turn. `NAME_again` is the same once more, as a program of
//! its own: the kernel runs it right behind the first, and it does what that one was kept from. User space attaches it where
//! the kernel can be preempted. Where interrupts call a function, and then many times in a row, as they do to free what others
//! could still read, it is `NAME_always` and attached everywhere.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use aya_ebpf::{Argument, EbpfContext};
use tracer_common::LossCounter;

use crate::constants::{Field, constant};
use crate::hash;
use crate::kernel::{Pointer, low_half, read};
use crate::maps::{CALLS, SEEN, count_loss};

/// How a body follows pointers that came as arguments.
pub trait Access {
    /// Reads a field; zero where it cannot be read.
    fn get<T: Copy, const INDEX: usize>(base: Pointer, field: Field<INDEX>) -> T;
}

/// fentry and fexit: the verifier knows the arguments' types, so loads are direct.
pub struct Typed;

impl Access for Typed {
    #[inline(always)]
    fn get<T: Copy, const INDEX: usize>(base: Pointer, field: Field<INDEX>) -> T {
        field.load(base)
    }
}

/// kprobe and kretprobe: arguments are numbers, so every load is a probe read.
pub struct Probed;

impl Access for Probed {
    #[inline(always)]
    fn get<T: Copy, const INDEX: usize>(base: Pointer, field: Field<INDEX>) -> T {
        // SAFETY: only integers and pointers are read, for which zero is a value.
        read(base, field.offset()).unwrap_or_else(|| unsafe { core::mem::zeroed() })
    }
}

/// Most arguments that a kretprobe's body takes.
const SAVED: usize = 3;

/// A call under way, seen by a kprobe and waiting for its kretprobe. The stack's address tells threads and interrupts
/// apart; the function tells calls apart that end in a jump to another function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CallKey {
    /// Where the return address is on the stack.
    stack: u64,
    /// [`call_id`] of the probe.
    probe: u64,
}

/// Arguments of a call under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CallArguments {
    values: [u64; SAVED],
}

impl CallArguments {
    /// Converts one argument.
    #[inline(always)]
    pub fn get<T: Argument>(&self, slot: usize) -> T {
        from_register(self.values.get(slot).copied().unwrap_or(0))
    }
}

/// A number for a probe, from its name (FNV-1a).
pub const fn call_id(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

#[inline(always)]
fn from_register<T: Argument>(value: u64) -> T {
    T::from_register(value)
}

/// An argument of a probed function.
#[inline(always)]
pub fn register<T: Argument>(ctx: &ProbeContext, index: usize) -> T {
    ctx.arg(index).unwrap_or_else(|| from_register(0))
}

/// Keeps the arguments of a call for its kretprobe.
#[inline(always)]
pub fn entered(ctx: &ProbeContext, probe: u64, values: [u64; SAVED]) {
    // SAFETY: the context of a kprobe is the registers.
    let stack = unsafe { (*ctx.regs).rsp };
    let key = CallKey { stack, probe };
    let arguments = CallArguments { values };
    if CALLS.insert(&key, &arguments, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    // Either there is no room, or an earlier call at this place on this stack is over and its return was not seen:
    // the kernel has only so many returns in sight at a time. Either way one call goes uncounted.
    count_loss(LossCounter::ReturnsMissed, 1);
    let _ = CALLS.insert(&key, &arguments, 0);
}

/// The arguments of the call that returns now; `None` when it began before the probe was attached.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext, probe: u64) -> Option<CallArguments> {
    // SAFETY: the context of a kretprobe is the registers.
    let stack = unsafe { (*ctx.regs).rsp };
    // kernel: the return address has been taken off the stack (arch/x86/kernel/kprobes/core.c and rethook.c, 5.10 to
    // 7.3).
    let key = CallKey {
        stack: stack.wrapping_sub(8),
        probe,
    };
    // SAFETY: only this call's return removes or changes its entry.
    let arguments = *unsafe { CALLS.get(&key) }?;
    let _ = CALLS.remove(&key);
    Some(arguments)
}

/// A number for a call under way: where its context is on the stack, which no other call under way shares, be it of another
/// thread or of an interrupt, with the first argument. What is remembered of a call whose second program was left out is so
/// not taken for the next one in the same place, which is often about another page. The lower halves tell enough.
#[inline(always)]
fn call(ctx: &impl EbpfContext) -> u32 {
    let context = ctx.as_ptr().cast::<Pointer>();
    // SAFETY: the context of fentry and fexit begins with the function's arguments, and each function that is probed has one.
    let argument = unsafe { context.read_volatile() };
    low_half(context.cast()) ^ hash::scatter(low_half(argument))
}

/// The place where a call is remembered.
#[inline(always)]
fn seen(call: u32) -> *mut u32 {
    SEEN.place(call.into())
}

/// The first program of a pair has run. Said last: while it runs, an interrupt's call is one that it is kept from.
#[inline(always)]
pub fn ran(ctx: &impl EbpfContext) {
    let call = call(ctx);
    // SAFETY: a live map value.
    unsafe { seen(call).write_volatile(call) };
}

/// Whether there is a second program: `always` where it is attached everywhere.
#[inline(always)]
pub fn is_pair(always: bool) -> bool {
    always || constant!(again) != 0
}

/// What a program asks about first: everyone's charges come so far, and few go on.
pub trait Subject: Copy {
    /// The argument that it is found by.
    type Argument;

    /// Finds it.
    fn of<A: Access>(argument: Self::Argument) -> Self;

    /// Whether there is nothing to do.
    fn is_other(self) -> bool;
}

/// Whether there is nothing to do for what an argument of fentry or fexit is about.
#[inline(always)]
pub fn is_other<S: Subject>(argument: S::Argument) -> bool {
    S::of::<Typed>(argument).is_other()
}

/// Of programs that have something to do whoever it is about.
#[derive(Clone, Copy)]
pub struct Anyone;

impl Subject for Anyone {
    type Argument = Pointer;

    #[inline(always)]
    fn of<A: Access>(_: Pointer) -> Self {
        Self
    }

    #[inline(always)]
    fn is_other(self) -> bool {
        false
    }
}

/// Whether the second program of a pair has to do what the first was kept from.
#[inline(always)]
pub fn must_run_again(ctx: &impl EbpfContext) -> bool {
    let call = call(ctx);
    let slot = seen(call);
    // SAFETY: a live map value.
    if unsafe { slot.read_volatile() } == call {
        // SAFETY: as above.
        unsafe { slot.write_volatile(0) };
        return false;
    }
    count_loss(LossCounter::RunsMadeUp, 1);
    true
}

/// Programs at the entry of a kernel function: `at_entry!(NAME, NAME_again, NAME_kprobe, Subject(ARGUMENT NUMBER) =>
/// body(ARGUMENT NUMBERS))`, or `at_entry!(in interrupts, NAME, NAME_always, ...)`. The body gets the subject first, and is a
/// function of its own, so that those who have nothing to do have no registers to save.
macro_rules! at_entry {
    (in interrupts, $fentry:ident, $($rest:tt)+) => {
        $crate::hooks::at_entry!(@ true, $fentry, $($rest)+);
    };
    ($fentry:ident, $($rest:tt)+) => {
        $crate::hooks::at_entry!(@ false, $fentry, $($rest)+);
    };
    (@ $always:literal, $fentry:ident, $again:ident, $kprobe:ident, $subject:ident($of:literal) => $body:ident($($index:literal),+)) => {
        $crate::hooks::pair!(
            $always, $fentry, $again, aya_ebpf::macros::fentry, aya_ebpf::programs::FEntryContext,
            $subject($of), $body($($index),+)
        );

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let subject = <$subject as $crate::hooks::Subject>::of::<$crate::hooks::Probed>($crate::hooks::register(&ctx, $of));
            let _: Option<()> = $body::<$crate::hooks::Probed>(subject, $($crate::hooks::register(&ctx, $index)),+);
            0
        }
    };
}
pub(crate) use at_entry;

/// Programs at the return of a kernel function, with some of its arguments and its return value as the last one:
/// `at_return!(NAME, NAME_again, NAME_kprobe, NAME_kretprobe, takes 3, Subject(0 from 0) => body(0 from 0, 2 from 1))`, where
/// the function takes 3 arguments, of which the body gets number 0, kept in slot 0, and number 2, kept in slot 1, and the
/// subject number 0; or `at_return!(in interrupts, NAME, NAME_always, ...)`.
///
/// A fexit program finds the return value right behind the last argument: bpf_get_func_ret came with 5.17 only.
macro_rules! at_return {
    (in interrupts, $fexit:ident, $($rest:tt)+) => {
        $crate::hooks::at_return!(@ true, $fexit, $($rest)+);
    };
    ($fexit:ident, $($rest:tt)+) => {
        $crate::hooks::at_return!(@ false, $fexit, $($rest)+);
    };
    (@ $always:literal, $fexit:ident, $again:ident, $kprobe:ident, $kretprobe:ident, takes $count:literal, $subject:ident($of:literal from $kept:literal) => $body:ident($($index:literal from $slot:literal),+)) => {
        $crate::hooks::pair!(
            $always, $fexit, $again, aya_ebpf::macros::fexit, aya_ebpf::programs::FExitContext,
            $subject($of), $body($($index),+, $count)
        );

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let mut values = [0; 3];
            values[$kept] = $crate::hooks::register(&ctx, $of);
            $(values[$slot] = $crate::hooks::register(&ctx, $index);)+
            $crate::hooks::entered(&ctx, const { $crate::hooks::call_id(stringify!($fexit)) }, values);
            0
        }

        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            let probe = const { $crate::hooks::call_id(stringify!($fexit)) };
            if let Some(arguments) = $crate::hooks::returned(&ctx, probe) {
                let subject = <$subject as $crate::hooks::Subject>::of::<$crate::hooks::Probed>(arguments.get($kept));
                let _: Option<()> = $body::<$crate::hooks::Probed>(subject, $(arguments.get($slot)),+, ctx.ret());
            }
            0
        }
    };
}
pub(crate) use at_return;

/// The two programs of a pair, where the verifier knows the arguments' types.
macro_rules! pair {
    ($always:literal, $first:ident, $again:ident, $attribute:path, $context:path, $subject:ident($of:literal), $body:ident($($index:literal),+)) => {
        #[$attribute]
        pub fn $first(ctx: $context) -> u32 {
            #[inline(never)]
            fn run(ctx: $context, subject: $subject) -> u32 {
                let _: Option<()> = $body::<$crate::hooks::Typed>(subject, $(ctx.arg($index)),+);
                // The second one asks as well, and the answer may be known now.
                if $crate::hooks::is_pair($always) && !$crate::hooks::is_other::<$subject>(ctx.arg($of)) {
                    $crate::hooks::ran(&ctx);
                }
                0
            }
            let subject = <$subject as $crate::hooks::Subject>::of::<$crate::hooks::Typed>(ctx.arg($of));
            if $crate::hooks::Subject::is_other(subject) { 0 } else { run(ctx, subject) }
        }

        #[$attribute]
        pub fn $again(ctx: $context) -> u32 {
            #[inline(never)]
            fn run(ctx: $context, subject: $subject) -> u32 {
                if $crate::hooks::must_run_again(&ctx) {
                    let _: Option<()> = $body::<$crate::hooks::Typed>(subject, $(ctx.arg($index)),+);
                }
                0
            }
            let subject = <$subject as $crate::hooks::Subject>::of::<$crate::hooks::Typed>(ctx.arg($of));
            if $crate::hooks::Subject::is_other(subject) { 0 } else { run(ctx, subject) }
        }
    };
}
pub(crate) use pair;
