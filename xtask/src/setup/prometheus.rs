//! A Prometheus, which scrapes what `headroom watch --listen` says.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::{Archive, Suite};
use super::step;
use crate::paths;
use crate::process::find;

const NAME: &str = "prometheus";

/// The system's, else Debian's unpacked into the cache: installed, its package would start a service.
///
/// # Errors
/// When there is none and it cannot be downloaded.
pub fn ensure() -> Result<PathBuf> {
    if let Some(program) = find(NAME) {
        return Ok(program);
    }
    let folder = paths::cache()?.join(NAME);
    let program = folder.join("usr/bin").join(NAME);
    if !program.is_file() {
        let archive = Archive::open(&[Suite::Main("trixie")])?;
        step(NAME, format_args!("Debian's into {}", folder.display()));
        archive.unpack(&[NAME.to_owned()], &folder)?;
    }
    Ok(program)
}
