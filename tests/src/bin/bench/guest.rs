//! Counting instructions: the emulated machine's time stamp counter advances one an instruction.

use std::arch::asm;
use std::arch::x86_64::_rdtsc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use headroom_tests::Memcg;
use nix::sys::utsname::uname;
use xtask::bench::{Figure, Figures};

use crate::load::{self, Load};
use crate::setup::Setup;

/// Batches of a step; the median of them counts.
const BATCHES: usize = 31;
/// Batches before these, in which caches of the kernel's allocators fill.
const WARM_UP: usize = 4;

/// What steps took, batch by batch.
#[derive(Default)]
pub struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    /// Runs a step that does `units` pieces of work.
    pub fn step<T>(&mut self, name: &'static str, units: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = now();
        let result = work()?;
        self.add(name, units, now() - before);
        Ok(result)
    }

    /// Takes what a step took that did `units` pieces of work.
    pub fn add(&mut self, name: &'static str, units: usize, instructions: u64) {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let each = instructions as f64 / units as f64;
        match self.0.iter_mut().find(|(step, _)| *step == name) {
            Some((_, batches)) => batches.push(each),
            None => self.0.push((name, vec![each])),
        }
    }
}

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
fn check_counter() -> Result<()> {
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

/// Measures each piece of work under each set-up, in a memory cgroup of its own, and prints what came of it.
pub fn measure(loads: &[&str], setups: &[&str]) -> Result<()> {
    check_counter()?;
    let watched = Memcg::create()?;
    watched.write("cgroup.procs", "0")?;
    let mut figures = Figures {
        kernel: uname()?.release().to_string_lossy().into_owned(),
        ..Figures::default()
    };
    let result = measure_in(&watched, loads, setups, &mut figures);
    // This process holds the group; the machine ends with it.
    std::mem::forget(watched);
    result?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn measure_in(group: &Memcg, loads: &[&str], setups: &[&str], figures: &mut Figures) -> Result<()> {
    let mut loads: Vec<Box<dyn Load>> = loads.iter().map(|name| load::find(name)).collect::<Result<_>>()?;
    // The kernel's first answers to each are others than its later ones: it has to find huge pages, and grows its caches.
    for load in &mut loads {
        for _ in 0..BATCHES {
            load.batch(&mut Samples::default())?;
        }
    }
    check_counter()?;
    for name in setups {
        if let Some(reason) = Setup::lacks(name) {
            figures.missing.push(reason);
            continue;
        }
        let mut setup = Setup::start(name, group)?;
        figures.hooks = setup.hooks().unwrap_or(figures.hooks);
        for load in &mut loads {
            if let Some(guest) = load.guest_ram()
                && !setup.place_guest_ram(&guest)?
            {
                continue;
            } else if load.guest_ram().is_none() && *name == "guest" {
                continue;
            }
            let mut samples = Samples::default();
            for batch in 0..BATCHES + WARM_UP {
                if batch == WARM_UP {
                    samples = Samples::default();
                }
                load.batch(&mut samples)?;
                setup.drain();
            }
            let figure = |(step, batches): &(&str, Vec<f64>)| Figure::of(name, load.name(), step, batches);
            figures.figures.extend(samples.0.iter().filter_map(figure));
        }
        setup.finish()?;
    }
    Ok(())
}
