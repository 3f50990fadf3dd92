//! `simulate FILE HOURS`: writes a made-up recording of a busy pod, to measure with.

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("usage: simulate FILE HOURS")?;
    let hours = arguments.next().context("usage: simulate FILE HOURS")?.parse()?;
    println!("{:#?}", headroom_tests::simulate::write(Path::new(&file), hours)?);
    Ok(())
}
