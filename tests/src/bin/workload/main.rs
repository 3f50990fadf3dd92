//! Workloads that move memory in every way that a kernel charges or gives back, and the comparison of what headroom
//! records of them with the kernel's own figures.
//!
//! `workload check NAME [BACKEND]` plays one in a memcg of its own, under `headroom record`, and prints a document;
//! `workload act NAME` is what it runs in there. `workload agree` holds the backends against each other; `workload fallback`
//! has the kernel refuse one.

mod agree;
mod bpf;
mod cycles;
mod fallback;
mod stage;
mod work;

use std::env;

use anyhow::{Context as _, Result, bail};
use headroom_tests::conserve::Document;
use headroom_tests::memory;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["act", name @ ("pulse" | "load")] => cycles::act(name),
        ["act", name] => stage::begin().and_then(|()| work::find(name)?.act()),
        ["check", name] => print(&checked(name, "auto")),
        ["check", name, backend] => print(&checked(name, backend)),
        ["killed", backend] => print(&cycles::killed(backend)?),
        ["fallback"] => print(&fallback::check()?),
        ["agree"] => print(&agree::check()?),
        ["cycles", count, backend] => print(&cycles::check(count.parse()?, backend)?),
        _ => bail!(
            "usage: workload check NAME [BACKEND] | workload agree | workload fallback | workload killed BACKEND | workload cycles COUNT BACKEND"
        ),
    }
}

/// A workload that cannot be played to its end has failed: that is a finding too.
fn checked(name: &str, backend: &str) -> Document {
    stage::play(name, backend).unwrap_or_else(|error| Document::failed(name, backend, &format!("{error:#}")))
}

fn print(document: &Document) -> Result<()> {
    let text = serde_json::to_string(document)?;
    println!("{text}");
    document.expect_conserved().context("it differs")
}
