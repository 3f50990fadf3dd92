//! The compiler that builds the eBPF object: rust-src and bpf-linker must both fit it exactly.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::capture;

/// What setup needs to know of the compiler.
#[derive(Debug)]
pub struct Rustc {
    /// Where its files are.
    pub sysroot: PathBuf,
    /// Its version, such as `1.95.0`.
    pub release: String,
    /// The major version of its LLVM.
    pub llvm_major: u32,
}

impl Rustc {
    /// Asks the compiler that cargo uses here.
    ///
    /// # Errors
    /// When there is none, or it does not answer as rustc does.
    pub fn query() -> Result<Self> {
        let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let sysroot = capture(rustc().args(["--print", "sysroot"]))?;
        let verbose = capture(rustc().arg("-vV"))?;
        let (release, llvm_major) = parse(&verbose).context("cannot read the output of `rustc -vV`")?;
        Ok(Self {
            sysroot: PathBuf::from(sysroot.trim()),
            release,
            llvm_major,
        })
    }
}

/// Release and LLVM's major version from `rustc -vV`.
fn parse(verbose: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((field("release")?.to_owned(), llvm_major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_release_and_llvm() {
        let verbose = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(parse(verbose), Some(("1.95.0".to_owned(), 22)));
        assert_eq!(parse("rustc 1.95.0\nrelease: 1.95.0\n"), None);
    }
}
