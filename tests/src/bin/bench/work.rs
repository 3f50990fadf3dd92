//! The work, in a process of its own: one that no tracer maps anything into, since where the kernel finds a page's mapping
//! among the others of its process is a matter of fifty instructions.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use headroom_tests::Memcg;
use serde::{Deserialize, Serialize};

use crate::counter;
use crate::load::{self, GuestRam, Load};

/// What the steps of a batch took, in instructions for each piece of work.
#[derive(Default, Serialize, Deserialize)]
pub struct Counts(pub Vec<(String, f64)>);

impl Counts {
    /// Runs a step that does `units` pieces of work.
    pub fn step<T>(&mut self, name: &str, units: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = counter::now();
        let result = work()?;
        let instructions = counter::now() - before;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        self.0.push((name.to_owned(), instructions as f64 / units as f64));
        Ok(result)
    }
}

/// Does what it is told to, a line each: the number of a load is answered with the counts of a batch of it. Says first what of
/// each load's memory can stand for guest RAM.
pub fn serve(names: &[&str]) -> Result<()> {
    let mut loads: Vec<Box<dyn Load>> = names.iter().map(|name| load::find(name)).collect::<Result<_>>()?;
    let guest_ram: Vec<Option<GuestRam>> = loads.iter().map(|load| load.guest_ram()).collect();
    say(&guest_ram)?;
    for line in stdin().lines() {
        let load = loads
            .get_mut(line?.parse::<usize>()?)
            .context("there is no such load")?;
        let mut counts = Counts::default();
        load.batch(&mut counts)?;
        say(&counts)?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(what)?;
    line.push('\n');
    Ok(stdout().write_all(line.as_bytes())?)
}

/// A process that works when it is told to; it ends when this is dropped.
pub struct Worker {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    guest_ram: Vec<Option<GuestRam>>,
}

impl Worker {
    /// Starts one in a memory cgroup, for loads of these names.
    pub fn start(group: &Memcg, names: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["work", &names.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        group.join(&mut command)?;
        let mut child = command.spawn().context("cannot start the work")?;
        let answers = child.stdout.take().context("the work has no output")?;
        let mut this = Self {
            ask: child.stdin.take(),
            answers: BufReader::new(answers),
            child,
            guest_ram: Vec::new(),
        };
        this.guest_ram = this.answer()?;
        Ok(this)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What of a load's memory can stand for guest RAM.
    pub fn guest_ram(&self, load: usize) -> Option<&GuestRam> {
        self.guest_ram.get(load)?.as_ref()
    }

    /// Does a batch of a load.
    pub fn batch(&mut self, load: usize) -> Result<Counts> {
        let ask = self.ask.as_mut().context("the work was told to end")?;
        ask.write_all(format!("{load}\n").as_bytes())?;
        self.answer()
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the work does not answer")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input is the end of the work.
        self.ask = None;
        let _ = self.child.wait();
    }
}
