//! Where things are: the workspace, its target folder, and the cache that outlives a clone.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The target that `.cargo/config.toml` builds everything for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's root.
#[must_use]
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}

/// The folder that `cargo build` puts binaries into.
#[must_use]
pub fn binaries() -> PathBuf {
    target().join(TARGET).join("debug")
}

/// The cargo profile of binaries for VMs.
pub const EMULATED: &str = "emulated";

/// The folder with the binaries for VMs.
#[must_use]
pub fn emulated_binaries() -> PathBuf {
    target().join(TARGET).join(EMULATED)
}

/// The cache for what takes long to get: `$HEADROOM_CACHE`, else `headroom` in `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// When none of these variables is set.
pub fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("HEADROOM_CACHE") {
        return Ok(workspace().join(cache));
    }
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(env::var_os("HOME").context("set HOME or HEADROOM_CACHE: there is no place to cache in")?)
                .join(".cache")
        }
    };
    Ok(base.join("headroom"))
}
