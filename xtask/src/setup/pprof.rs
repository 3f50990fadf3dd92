//! `pprof` as Go brings it, which reads what `headroom export --format pprof` writes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::debian::{Archive, Suite};
use super::step;
use crate::paths;

/// Debian's package of Go in trixie, and where pprof is in it. Installed, it would make a Go of the system's.
const PACKAGE: &str = "golang-1.24-go";
const PROGRAM: &str = "usr/lib/go-1.24/pkg/tool/linux_amd64/pprof";

/// Debian's, out of its package into the cache. The rest of Go, 300 MB, is not kept.
///
/// # Errors
/// When it cannot be downloaded.
pub fn ensure() -> Result<PathBuf> {
    let program = paths::cache()?.join("pprof");
    if !program.is_file() {
        let archive = Archive::open(&[Suite::Main("trixie")])?;
        step(
            "pprof",
            format_args!("Debian's, out of {PACKAGE}, into {}", program.display()),
        );
        let folder = paths::cache()?.join(PACKAGE);
        archive.unpack(&[PACKAGE.to_owned()], &folder)?;
        fs::rename(folder.join(PROGRAM), &program).with_context(|| format!("there is no {PROGRAM} in {PACKAGE}"))?;
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(program)
}
