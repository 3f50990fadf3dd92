//! What tracing costs.
//!
//! `bench guest LOADS SETUPS` counts instructions in a machine that `cargo xtask bench` emulates, and prints a document. `bench host
//! BPFTRACE...` measures times here.

mod counter;
mod empty;
mod guest;
mod host;
mod load;
mod peers;
mod setup;
mod work;

use std::env;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["guest", loads, setups] => guest::measure(&list(loads), &list(setups)),
        ["work", loads] => work::serve(&list(loads)),
        ["host", bpftrace @ ..] => host::measure(bpftrace),
        ["pace", pages] => host::pace(pages.parse()?),
        _ => bail!("usage: bench guest LOADS SETUPS | bench host BPFTRACE..."),
    }
}

fn list(words: &str) -> Vec<&str> {
    words.split(',').filter(|word| !word.is_empty()).collect()
}
