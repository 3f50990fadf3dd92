//! Building headroom's binaries.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};

use crate::process::{cargo, run};
use crate::{paths, setup};

/// Set by `cargo xtask test` once everything is built: the folder with the binaries.
pub const BUILT: &str = "HEADROOM_BINARIES";

/// The same for those that run in VMs.
pub const BUILT_FOR_VMS: &str = "HEADROOM_VM_BINARIES";

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

    /// The program that measures what tracing costs (crate headroom-tests).
    #[must_use]
    pub fn bench(&self) -> PathBuf {
        self.folder.join("bench")
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
    static BINARIES: Once = Once::new();
    once(BUILT, &BINARIES, || {
        setup::ebpf()?;
        run(cargo().args(["build", "--quiet", "--bins"])).context("headroom does not build")?;
        Ok(paths::binaries())
    })
}

/// The binaries for VMs, which are the same, but optimised: see the profile in Cargo.toml.
///
/// # Errors
/// When setup or the build fails.
pub fn vm_binaries() -> Result<Binaries> {
    static BINARIES: Once = Once::new();
    once(BUILT_FOR_VMS, &BINARIES, || {
        setup::ebpf()?;
        build_for_vms()?;
        Ok(paths::emulated_binaries())
    })
}

/// Builds the binaries for VMs.
///
/// # Errors
/// When they do not build.
pub fn build_for_vms() -> Result<()> {
    let packages = ["headroom", "headroom-tests", "xtask"].map(|name| ["--package", name]);
    let programs = ["headroom", "workload", "vm-init"].map(|name| ["--bin", name]);
    run(cargo()
        .args(["build", "--quiet", "--profile", paths::EMULATED])
        .args(packages.as_flattened())
        .args(programs.as_flattened()))
    .context("headroom does not build")
}

type Once = OnceLock<Result<Binaries, String>>;

fn once(variable: &str, built: &Once, build: impl FnOnce() -> Result<PathBuf>) -> Result<Binaries> {
    if let Some(folder) = env::var_os(variable) {
        return Ok(Binaries { folder: folder.into() });
    }
    let built = built.get_or_init(|| {
        build()
            .map(|folder| Binaries { folder })
            .map_err(|error| format!("{error:#}"))
    });
    built.clone().map_err(|error| anyhow!(error))
}
