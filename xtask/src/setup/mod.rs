//! Installing what the build, the VM lab and other tests need. Everything here is idempotent and fast when nothing is missing.

pub mod bpf_linker;
pub mod browser;
pub mod debian;
pub mod kernel;
pub mod mirror;
pub mod observers;
pub mod peers;
pub mod pprof;
pub mod prometheus;
pub mod python;
pub mod qemu;
pub mod rust_src;
pub mod rustc;
mod tools;

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::paths;

pub use kernel::Kernel;

/// What compiling the eBPF object needs: the standard library's source and bpf-linker.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn ebpf() -> Result<()> {
    let _lock = lock()?;
    let rustc = rustc::Rustc::query()?;
    rust_src::ensure(&rustc)?;
    bpf_linker::ensure(&rustc)
}

/// What a VM with a kernel of this line (such as `6.12`) needs: QEMU, the tools to fill its disk, the kernel.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn vm(line: &str) -> Result<Kernel> {
    let _lock = lock()?;
    qemu::ensure()?;
    kernel::ensure(line)
}

/// A browser, to look at HTML reports with.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn browser() -> Result<PathBuf> {
    let _lock = lock()?;
    browser::ensure()?;
    browser::program()
}

/// What tests look at headroom and its recordings with: tmux, zstd, jq.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn observers() -> Result<()> {
    let _lock = lock()?;
    observers::ensure()
}

/// A Python with the readers that other projects have for what headroom exports.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn readers() -> Result<PathBuf> {
    let _lock = lock()?;
    python::ensure(&python::READERS)
}

/// A Python with the schemas of Kubernetes.
///
/// # Errors
/// In one line, with what to install by hand.
pub fn kubernetes() -> Result<PathBuf> {
    let _lock = lock()?;
    python::ensure(&python::KUBERNETES)
}

/// A Prometheus.
///
/// # Errors
/// In one line, with what is missing.
pub fn prometheus() -> Result<PathBuf> {
    let _lock = lock()?;
    prometheus::ensure()
}

/// Go's pprof.
///
/// # Errors
/// In one line, with what is missing.
pub fn pprof() -> Result<PathBuf> {
    let _lock = lock()?;
    pprof::ensure()
}

/// Other tracers, to compare with: bpftrace, bpftool and a C compiler for eBPF.
///
/// # Errors
/// In one line, with what is missing.
pub fn peers() -> Result<peers::Peers> {
    let _lock = lock()?;
    peers::ensure()
}

/// Replaces the kernel of this line in the cache by the newest one.
///
/// # Errors
/// When it cannot be downloaded; the old one stays then.
pub fn update_kernel(line: &str) -> Result<()> {
    let _lock = lock()?;
    kernel::update(line)
}

/// Tells the user what happens, since some steps take minutes.
pub(crate) fn step(what: &str, does: impl std::fmt::Display) {
    eprintln!("setup: {what}: {does}");
}

/// Tests run side by side, and all of them set up: only one may fill the cache.
fn lock() -> Result<Flock<File>> {
    let cache = paths::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make the cache {}", cache.display()))?;
    let path = cache.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}
