//! Building headroom's binaries.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};

use crate::process::{cargo, run};
use crate::{paths, setup};

/// Set by `cargo xtask test` once everything is built: the folder with the binaries.
pub const BUILT: &str = "HEADROOM_BINARIES";

/// Where the built binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The `headroom` program: static, so that it runs anywhere.
    #[must_use]
    pub fn headroom(&self) -> PathBuf {
        self.folder.join("headroom")
    }

    /// The program whose workloads conserve every byte (crate headroom-tests).
    #[must_use]
    pub fn workload(&self) -> PathBuf {
        self.folder.join("workload")
    }

    /// The init process of VMs.
    #[must_use]
    pub fn vm_init(&self) -> PathBuf {
        self.folder.join("vm-init")
    }
}

/// The binaries, built once per process unless `cargo xtask test` has done so.
///
/// # Errors
/// When setup or the build fails.
pub fn binaries() -> Result<Binaries> {
    static BINARIES: OnceLock<Result<Binaries, String>> = OnceLock::new();
    if let Some(folder) = env::var_os(BUILT) {
        return Ok(Binaries { folder: folder.into() });
    }
    let built = BINARIES.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<Binaries> {
    setup::ebpf()?;
    run(cargo().args(["build", "--quiet", "--bins"])).context("headroom does not build")?;
    Ok(Binaries {
        folder: paths::binaries(),
    })
}
