//! `cargo xtask bench`: what tracing costs, and docs/performance.md of it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xtask::bench::host::{self, Host};
use xtask::bench::{Figures, guest, table};
use xtask::paths;

/// Measure what tracing costs, and write docs/performance.md.
///
/// Instructions are counted in emulated machines, so that they come out the same whatever else this host does. What is
/// asked for alone replaces only its own results, which are kept in target/bench.
/// Example: cargo xtask bench --short
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Bench {
    /// Only instructions on this kernel line; may be given several times.
    #[arg(long)]
    kernel: Vec<String>,
    /// Only times on this host. Needs root.
    #[arg(long, conflicts_with = "kernel")]
    host: bool,
    /// Only this piece of work where instructions are counted; may be given several times.
    #[arg(long, value_parser = guest::LOADS)]
    load: Vec<String>,
    /// Without bpftrace and the program in C, which take most of the time.
    #[arg(long)]
    no_peers: bool,
    /// Only headroom's own figures on one kernel, printed and not written.
    #[arg(long)]
    short: bool,
    /// Only write the document, from the results that are kept.
    #[arg(long)]
    table: bool,
}

/// Kernels whose instructions are counted.
const KERNELS: [&str; 2] = ["6.12", "7.3"];
/// The name of this host's results.
const HOST: &str = "host";

impl Bench {
    pub fn run(self) -> Result<()> {
        let loads: Vec<&str> = guest::LOADS
            .into_iter()
            .filter(|name| self.load.is_empty() || self.load.iter().any(|one| one == name))
            .collect();
        if self.short {
            let kernel = self.kernel.first().map_or(KERNELS[0], String::as_str);
            let figures = guest::measure(kernel, &loads)?;
            println!("{}", described(&figures));
            return Ok(());
        }
        if !self.table && !self.host {
            let kernels = KERNELS.into_iter();
            for kernel in kernels.filter(|name| self.kernel.is_empty() || self.kernel.iter().any(|one| one == name)) {
                eprintln!("bench: counting instructions on {kernel}");
                let figures = if self.no_peers {
                    guest::measure(kernel, &loads)
                } else {
                    guest::measure_with_peers(kernel, &loads)
                };
                keep(kernel, &figures?)?;
            }
        }
        if !self.table && self.kernel.is_empty() {
            eprintln!("bench: measuring this host");
            keep(HOST, &host::measure()?)?;
        }
        let mut text = String::new();
        for kernel in KERNELS {
            if let Some(figures) = kept::<Figures>(kernel)? {
                text.push_str(&described(&figures));
            }
        }
        if !text.is_empty() {
            table::write("instructions", &text)?;
        }
        match kept::<Host>(HOST)? {
            Some(figures) => table::write("host", &host::tables(&figures)),
            None => Ok(()),
        }
    }
}

/// The table of a kernel with what has to be known about it.
fn described(figures: &Figures) -> String {
    let mut text = format!("\n### {}\n\n{}\n", figures.kernel, table::instructions(figures));
    let _ = writeln!(
        text,
        "Hooks with a program: {}, with two: {}. Widest spread of a figure (quartiles of its batches): {:.1}%.",
        figures.hooks.0,
        figures.hooks.1,
        100.0 * table::widest_spread(figures)
    );
    for missing in &figures.missing {
        let _ = writeln!(text, "\nNot measured: {missing}");
    }
    text
}

fn file(name: &str) -> PathBuf {
    paths::target().join("bench").join(format!("{name}.json"))
}

fn keep(name: &str, figures: &impl Serialize) -> Result<()> {
    let path = file(name);
    let folder = path.parent().context("target/bench has a name")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&path, serde_json::to_vec_pretty(figures)?).with_context(|| format!("cannot write {}", path.display()))
}

fn kept<T: DeserializeOwned>(name: &str) -> Result<Option<T>> {
    let path = file(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let figures = serde_json::from_slice(&text);
    figures
        .map(Some)
        .with_context(|| format!("{} is no result of this version: measure it again", path.display()))
}
