//! How good forecasts are, over many random runs of a simulated ledger. Seeded, so that every run is the same.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::simulation::{MIB, Simulation};

const RUNS: u32 = 100;

/// How growth goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Growth {
    /// Evenly.
    Constant,
    /// The rate wanders.
    Wandering,
    /// The rate jumps now and then, by a factor of up to six.
    Jumping,
    /// By steps of random size at random times.
    Steps,
    /// Evenly, with a saw-tooth on top.
    SawTooth,
    /// In bursts, with memory given back in between.
    Bursts,
}

impl Growth {
    const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Wandering => "the rate wanders",
            Self::Jumping => "the rate jumps",
            Self::Steps => "by steps",
            Self::SawTooth => "with a saw-tooth on top",
            Self::Bursts => "in bursts",
        }
    }
}

const VARYING: [Growth; 5] = [
    Growth::Wandering,
    Growth::Jumping,
    Growth::Steps,
    Growth::SawTooth,
    Growth::Bursts,
];

struct Random(TestRng);

impl Random {
    fn new(seed: u32) -> Self {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// Uniform in 0 to 1.
    fn uniform(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Seconds until the kill: low, expected, high.
type Left = (f64, f64, Option<f64>);

/// A second of a run.
struct Second {
    t: f64,
    /// Part of the headroom that is left.
    part: f64,
    forecast: Option<Left>,
    /// The driver is the one that grows.
    right: bool,
}

/// A run: when growth began, when the limit was met, and what was forecast in between.
struct Run {
    onset: f64,
    end: f64,
    /// From the onset on.
    seconds: Vec<Second>,
}

/// What growth adds in a second.
struct Source {
    growth: Growth,
    mean: f64,
    seconds: f64,
    volatility: f64,
    rate: f64,
    piece_left: f64,
    tooth: (f64, f64),
    between_steps: f64,
}

impl Source {
    fn new(growth: Growth, mean: f64, seconds: f64, random: &mut Random) -> Self {
        Self {
            growth,
            mean,
            seconds,
            volatility: random.between(0.2, 0.6) / seconds.sqrt(),
            rate: if growth == Growth::Bursts { 0.0 } else { 1.0 },
            piece_left: 0.0,
            tooth: (
                random.between(10.0, 60.0) * MIB,
                (seconds * random.between(0.02, 0.15)).max(4.0),
            ),
            between_steps: (seconds * random.between(0.01, 0.08)).max(2.0),
        }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        match self.growth {
            Growth::Constant | Growth::SawTooth => self.mean,
            Growth::Wandering => {
                self.rate *= (self.volatility * random.normal()).exp();
                self.mean * self.rate
            }
            Growth::Jumping => {
                if self.piece_left <= 0.0 {
                    self.rate = 0.4_f64.powf(random.between(-1.0, 1.0));
                    self.piece_left = self.seconds * random.between(0.1, 0.4);
                }
                self.piece_left -= 1.0;
                self.mean * self.rate
            }
            Growth::Steps if random.uniform() < 1.0 / self.between_steps => {
                self.mean * self.between_steps * random.between(0.5, 1.5)
            }
            Growth::Steps => 0.0,
            Growth::Bursts => {
                self.rate = 0.8 * self.rate + 0.6 * random.normal();
                self.mean * (1.0 + 1.5 * self.rate)
            }
        }
    }

    fn tooth(&self, since: f64) -> f64 {
        match self.growth {
            Growth::SawTooth => (since / self.tooth.1).fract() * self.tooth.0,
            _ => 0.0,
        }
    }
}

fn run(growth: Growth, random: &mut Random) -> Run {
    let guest_ram = random.between(256.0, 1024.0) * MIB;
    let mut pod = Simulation::new(guest_ram + random.between(150.0, 400.0) * MIB, guest_ram);
    let full = random.uniform() < 0.5;
    pod.guest = if full {
        guest_ram
    } else {
        guest_ram * random.between(0.4, 1.0)
    };
    let guest_fills = !full && random.uniform() < 0.5;
    let seconds = 40.0 * 8.0_f64.powf(random.uniform());
    let mean = pod.available() / seconds;
    let mut source = Source::new(growth, mean, seconds, random);
    for _ in 0..5 + random.0.next_u32() % 60 {
        pod.vcpu = 0.15 * MIB * random.normal();
        pod.second();
    }
    let (onset, room) = (pod.t, pod.available());
    let mut run = Run {
        onset,
        end: onset,
        seconds: Vec::new(),
    };
    let mut grown = 0.0_f64;
    while pod.t - onset < 20.0 * seconds {
        grown = (grown + source.next(random)).max(0.0);
        pod.helper = grown + source.tooth(pod.t - onset);
        if guest_fills {
            pod.guest = (pod.guest + 0.5 * mean).min(guest_ram);
        }
        pod.vcpu = 0.15 * MIB * random.normal();
        pod.second();
        if pod.available() <= 0.0 {
            break;
        }
        let right = pod.driver().as_deref() == Some("helper virtqemud");
        run.seconds.push(Second {
            t: pod.t,
            part: pod.available() / room,
            forecast: pod.left(),
            right,
        });
    }
    run.end = pod.t;
    run
}

/// The forecast at the first moment at which half of the headroom is left, and the real time.
fn at_half(run: &Run) -> Option<(Left, f64, bool)> {
    let second = run.seconds.iter().find(|second| second.part <= 0.5)?;
    Some((second.forecast?, run.end - second.t, second.right))
}

/// How many forecasts there were, and how their bounds held.
#[derive(Default)]
struct Tally {
    forecasts: u32,
    within: u32,
    /// Have an upper bound.
    bounded: u32,
    within_both: u32,
    /// The bounds are less than four times the expected time apart.
    narrow: u32,
}

impl Tally {
    fn add(&mut self, (low, expected, high): Left, real: f64) -> bool {
        // Samples are a second apart.
        let within = real >= low - 1.0 && high.is_none_or(|high| real <= high + 1.0);
        self.forecasts += 1;
        self.within += u32::from(within);
        self.bounded += u32::from(high.is_some());
        self.within_both += u32::from(within && high.is_some());
        self.narrow += u32::from(high.is_some_and(|high| high - low < 4.0 * expected));
        within
    }

    /// A row of docs/forecast.md, for who asks with `--nocapture`.
    fn print(&self, what: &str, possible: u32) {
        let Self {
            forecasts,
            within,
            bounded,
            within_both,
            narrow,
        } = self;
        let percent = |part: u32, of: u32| 100 * part / of.max(1);
        println!(
            "measured: | {what} | {forecasts} of {possible} | {within} ({}%) | {bounded} ({}%) | {within_both} ({}% of those) \
             | {narrow} ({}%) |",
            percent(*within, *forecasts),
            percent(*bounded, *forecasts),
            percent(*within_both, *bounded),
            percent(*narrow, *forecasts),
        );
    }
}

#[test]
fn at_constant_rate_the_time_and_the_driver_are_right_and_the_warning_early() {
    let mut random = Random::new(1);
    let mut tally = Tally::default();
    for number in 0..RUNS {
        let run = run(Growth::Constant, &mut random);
        let (left, real, right) = at_half(&run).unwrap_or_else(|| panic!("run {number}: no forecast"));
        let (_, expected, _) = left;
        tally.add(left, real);
        assert!(
            (expected - real).abs() <= 0.15 * real,
            "run {number}: {expected} s, really {real} s"
        );
        assert!(right, "run {number}: another driver");
        // From when on was it forecast without interruption?
        let silent = run.seconds.iter().rposition(|second| second.forecast.is_none());
        let first = silent.map_or(0, |silent| silent + 1);
        let lead = run.end - run.seconds[first].t;
        let most = run.end - run.onset;
        assert!(lead >= 0.7 * most, "run {number}: told {lead} s ahead of {most} s");
    }
    tally.print("constant rate, when half is left", RUNS);
}

#[test]
fn at_varying_rates_the_real_time_lies_within_the_bounds() {
    let mut random = Random::new(2);
    let mut tally = Tally::default();
    let mut misses = Vec::new();
    for number in 0..RUNS {
        let growth = VARYING[number as usize % VARYING.len()];
        let Some((left, real, _)) = at_half(&run(growth, &mut random)) else {
            continue;
        };
        if !tally.add(left, real) {
            misses.push((growth, left, real));
        }
    }
    tally.print("varying rates, when half is left", RUNS);
    let Tally {
        forecasts,
        within,
        narrow,
        ..
    } = tally;
    // Silence does not count as right.
    assert!(within * 100 >= RUNS * 80, "{within} of {forecasts}: {misses:?}");
    // Bounds that say nothing hold easily.
    assert!(forecasts >= RUNS * 3 / 4, "only {forecasts} forecasts");
    assert!(narrow * 5 >= forecasts * 2, "only {narrow} of {forecasts} are bounded");
}

/// Runs that all grow in one way, with a seed of their own; the least part of them whose bounds must hold, in percent.
fn expect_bounds(growth: Growth, seed: u32, least: u32) {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    for _ in 0..RUNS / 2 {
        if let Some((left, real, _)) = at_half(&run(growth, &mut random)) {
            tally.add(left, real);
        }
    }
    tally.print(
        &format!("varying rates, when half is left: {}", growth.name()),
        RUNS / 2,
    );
    let Tally { forecasts, within, .. } = tally;
    assert!(forecasts * 4 >= RUNS / 2 * 3, "only {forecasts} forecasts");
    assert!(within * 100 >= forecasts * least, "{within} of {forecasts}");
}

#[test]
fn the_bounds_of_a_rate_that_wanders_hold() {
    expect_bounds(Growth::Wandering, 5, 80);
}

#[test]
fn the_bounds_of_a_rate_that_jumps_mostly_hold() {
    // That it will jump cannot be seen before it has.
    expect_bounds(Growth::Jumping, 4, 70);
}

#[test]
fn the_bounds_of_growth_by_steps_hold() {
    expect_bounds(Growth::Steps, 6, 80);
}

#[test]
fn the_bounds_beneath_a_saw_tooth_hold() {
    expect_bounds(Growth::SawTooth, 7, 80);
}

#[test]
fn the_bounds_of_growth_in_bursts_mostly_hold() {
    // Part of them ends within a few seconds, before there is a trend.
    expect_bounds(Growth::Bursts, 8, 70);
}

#[test]
fn over_all_moments_the_bounds_hold_as_well() {
    let mut random = Random::new(3);
    let mut tally = Tally::default();
    let mut moments = 0;
    for number in 0..RUNS / 2 {
        let run = run(VARYING[number as usize % VARYING.len()], &mut random);
        // Every run counts the same, however long it is.
        let step = (run.seconds.len() / 20).max(1);
        for Second { t, forecast, .. } in run.seconds.iter().step_by(step) {
            moments += 1;
            if let Some(left) = forecast {
                tally.add(*left, run.end - t);
            }
        }
    }
    tally.print("varying rates, all moments of 50 runs", moments);
    let Tally { forecasts, within, .. } = tally;
    assert!(forecasts >= 200, "only {forecasts} forecasts");
    assert!(within * 100 >= forecasts * 80, "{within} of {forecasts}");
}
