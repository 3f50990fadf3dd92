//! The standard library's source: `core` is built from it for the BPF target.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::debian::{Archive, Suite};
use super::rustc::Rustc;
use super::step;
use crate::paths;
use crate::process::{capture, find};

/// Where Debian keeps compilers of different ages.
const SUITES: [Suite; 3] = [
    Suite::Main("trixie-backports"),
    Suite::Main("trixie"),
    Suite::Main("sid"),
];

/// Makes `SYSROOT/lib/rustlib/src/rust` hold the library's source.
///
/// # Errors
/// When neither rustup nor Debian has it.
pub fn ensure(rustc: &Rustc) -> Result<()> {
    let wanted = rustc.sysroot.join("lib/rustlib/src/rust");
    if wanted.join("library/core/Cargo.toml").is_file() {
        return Ok(());
    }
    step("rust-src", "rustup component add rust-src");
    let Err(by_rustup) = from_rustup(&wanted) else {
        return Ok(());
    };
    step("rust-src", format_args!("{by_rustup:#}"));
    let by_hand = || {
        format!(
            "install it by hand: `rustup component add rust-src` for rustc {}",
            rustc.release
        )
    };
    from_debian(rustc, &wanted).with_context(by_hand)
}

fn from_rustup(wanted: &Path) -> Result<()> {
    if find("rustup").is_none() {
        bail!("there is no rustup");
    }
    capture(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    if !wanted.join("library/core/Cargo.toml").is_file() {
        bail!("rustup succeeded, but {} is missing", wanted.display());
    }
    Ok(())
}

/// Debian packages the source of each rustc; only exactly the same version will do.
fn from_debian(rustc: &Rustc, wanted: &Path) -> Result<()> {
    let folder = paths::cache()?.join(format!("rust-src-{}", rustc.release));
    let source = folder.join(format!("usr/src/rustc-{}", rustc.release));
    if !source.is_dir() {
        unpack(&rustc.release, &folder)?;
    }
    if wanted.is_symlink() {
        fs::remove_file(wanted).with_context(|| format!("cannot replace {}", wanted.display()))?;
    }
    let parent = wanted.parent().context("a sysroot has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    symlink(&source, wanted).with_context(|| format!("cannot link {}", wanted.display()))
}

fn unpack(release: &str, folder: &Path) -> Result<()> {
    for suite in SUITES {
        let archive = Archive::open(&[suite])?;
        let versions = archive.versions("rust-src")?;
        let same = |version: &&String| {
            version.starts_with(&format!("{release}+")) || version.starts_with(&format!("{release}-"))
        };
        if let Some(version) = versions.iter().find(same) {
            step("rust-src", format_args!("Debian's rust-src {version} from {suite}"));
            return archive.unpack(&[format!("rust-src={version}")], folder);
        }
    }
    bail!("Debian has no rust-src {release}")
}
