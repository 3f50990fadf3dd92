//! Programs of other projects that read what headroom exports and what it is deployed with, in Python environments of
//! their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::step;
use super::tools::{self, Tool};
use crate::paths;
use crate::process::{capture, find};

/// An environment, in a folder of this name in the cache.
pub(super) struct Environment {
    name: &'static str,
    packages: &'static [&'static str],
}

/// The readers of exports: HdrHistogram's, Prometheus', and the published messages of Perfetto.
pub(super) const READERS: Environment = Environment {
    name: "python",
    packages: &[
        "hdrhistogram==0.10.8",
        "perfetto==0.59.1",
        "prometheus_client==0.26.0",
        "protobuf==7.36.2",
    ],
};

/// What knows the schemas of Kubernetes.
pub(super) const KUBERNETES: Environment = Environment {
    name: "kubernetes",
    packages: &["kubernetes-validate==1.37.0"],
};

const PYTHON: [Tool; 1] = [Tool {
    programs: &["python3"],
    package: "python3-venv",
}];

/// The interpreter that has the packages, installed first if need be.
///
/// # Errors
/// Names what to install by hand.
pub(super) fn ensure(environment: &Environment) -> Result<PathBuf> {
    let folder = paths::cache()?.join(environment.name);
    let python = folder.join("bin/python");
    // Written last: an environment without it is half a one.
    let mark = folder.join("packages");
    let packages = environment.packages.join("\n");
    let done = fs::read_to_string(&mark).is_ok_and(|had| had == packages);
    if !done || !python.exists() {
        install(&folder, environment.packages).context("these packages come from PyPI: is there a network?")?;
        fs::write(&mark, packages).with_context(|| format!("cannot write {}", mark.display()))?;
    }
    Ok(python)
}

fn install(folder: &Path, packages: &[&str]) -> Result<()> {
    tools::ensure("the look at exports and manifests", &PYTHON)?;
    step(
        "python",
        format_args!("{} into {}", packages.join(" "), folder.display()),
    );
    let python = find("python3").context("python3 is missing")?;
    capture(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder))
        .context("install by hand: `apt-get install python3-venv` or your system's counterpart")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    capture(Command::new(folder.join("bin/python")).args(pip).args(packages)).map(drop)
}
