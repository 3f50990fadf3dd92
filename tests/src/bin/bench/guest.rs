//! Counting instructions in an emulated machine.

use anyhow::Result;
use headroom_tests::Memcg;
use nix::sys::utsname::uname;
use xtask::bench::{Figure, Figures};

use crate::counter;
use crate::setup::Setup;
use crate::work::{Counts, Worker};

/// Batches of a step; the median of them counts.
const BATCHES: usize = 31;
/// Batches before these, in which caches of the kernel's allocators fill.
const WARM_UP: usize = 4;

/// Measures each piece of work under each set-up, in a memory cgroup of its own, and prints what came of it.
pub fn measure(loads: &[&str], setups: &[&str]) -> Result<()> {
    counter::check()?;
    let group = Memcg::create()?;
    let mut figures = Figures {
        kernel: uname()?.release().to_string_lossy().into_owned(),
        ..Figures::default()
    };
    measure_in(&group, loads, setups, &mut figures)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn measure_in(group: &Memcg, loads: &[&str], setups: &[&str], figures: &mut Figures) -> Result<()> {
    let mut worker = Worker::start(group, loads)?;
    // The kernel's first answers to each are others than its later ones: it has to find huge pages, and grows its caches.
    for load in 0..loads.len() {
        for _ in 0..BATCHES {
            worker.batch(load)?;
        }
    }
    counter::check()?;
    for name in setups {
        if let Some(reason) = Setup::lacks(name) {
            figures.missing.push(reason);
            continue;
        }
        let mut setup = Setup::start(name, group, worker.pid())?;
        figures.hooks = setup.hooks().unwrap_or(figures.hooks);
        for (number, load) in loads.iter().enumerate() {
            match worker.guest_ram(number) {
                Some(ram) => setup.place_guest_ram(ram)?,
                None if *name == "guest" => continue,
                None => {}
            }
            let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
            for batch in 0..BATCHES + WARM_UP {
                let Counts(counts) = worker.batch(number)?;
                setup.drain();
                if batch < WARM_UP {
                    continue;
                }
                for (step, count) in counts {
                    match steps.iter_mut().find(|(known, _)| *known == step) {
                        Some((_, batches)) => batches.push(count),
                        None => steps.push((step, vec![count])),
                    }
                }
            }
            let figure = |(step, batches): &(String, Vec<f64>)| Figure::of(name, load, step, batches);
            figures.figures.extend(steps.iter().filter_map(figure));
        }
        setup.finish()?;
    }
    Ok(())
}
