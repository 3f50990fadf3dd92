//! What tracing costs.
//!
//! `bench guest LOADS SETUPS` counts instructions in a machine that `cargo xtask bench` emulates, and prints a document.

mod empty;
mod guest;
mod load;
mod peers;
mod setup;

use std::env;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["guest", loads, setups] => guest::measure(&list(loads), &list(setups)),
        _ => bail!("usage: bench guest LOADS SETUPS"),
    }
}

fn list(words: &str) -> Vec<&str> {
    words.split(',').filter(|word| !word.is_empty()).collect()
}
