//! The counter of instructions: the emulated machine's time stamp counter advances one an instruction.

use std::arch::asm;
use std::arch::x86_64::_rdtsc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

/// Instructions so far.
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the counter, and the kernel lets programs read it.
    unsafe { _rdtsc() }
}

/// Turns of a loop of two instructions.
const TURNS: u64 = 1_000_000;
/// How long the kernel may be busy with itself after it has booted (7.3: two seconds), in seconds.
const BUSY: usize = 30;
/// How often in a row, a second apart, it is to be found idle.
const CALM: usize = 3;

/// Counts the instructions of a loop whose number is known, until others leave it alone for a while: elsewhere than in such a
/// machine the counter is a clock.
pub fn check() -> Result<()> {
    // The timer's interrupts come in between.
    let right = 2 * TURNS..2 * TURNS + TURNS / 10;
    let (mut counted, mut calm) = (0, 0);
    for _ in 0..BUSY {
        counted = count_loop();
        calm = if right.contains(&counted) { calm + 1 } else { 0 };
        if calm == CALM {
            return Ok(());
        }
        sleep(Duration::from_secs(1));
    }
    bail!(
        "the time stamp counter counts no instructions: {counted} of {}",
        2 * TURNS
    );
}

/// The most of several counts: whether others run in between.
fn count_loop() -> u64 {
    let counted = (0..16).map(|_| {
        let turns = TURNS;
        let before = now();
        // SAFETY: counts a register down.
        unsafe { asm!("2:", "dec {0}", "jnz 2b", inout(reg) turns => _) };
        now() - before
    });
    counted.max().unwrap_or(0)
}
