//! Other tracers, which the benchmark compares headroom with. They are Debian 13's, whatever this system is, and run with
//! the libraries of their own packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::debian::{Archive, Suite};
use super::step;
use crate::paths;
use crate::process::capture;

/// What runs beside the work, compiles C for eBPF, and what that C includes.
const PACKAGES: [&str; 4] = ["bpftrace", "bpftool", "clang-19", "libbpf-dev"];

/// Programs below the root of the unpacked packages.
const BPFTRACE: &str = "usr/bin/bpftrace";
const BPFTOOL: &str = "usr/sbin/bpftool";
const CLANG: &str = "usr/lib/llvm-19/bin/clang";

/// The unpacked packages.
#[derive(Clone, Debug)]
pub struct Peers {
    root: PathBuf,
}

/// Unpacked into the cache, downloaded if need be.
///
/// # Errors
/// When the packages cannot be downloaded.
pub fn ensure() -> Result<Peers> {
    let root = paths::cache()?.join("peers");
    if !root.is_dir() {
        let archive = Archive::open(&[Suite::Main("trixie")])?;
        let packages = archive.with_dependencies(&PACKAGES)?;
        step(
            "peers",
            format_args!("{} packages into {}", packages.len(), root.display()),
        );
        archive.unpack(&packages, &root)?;
    }
    Ok(Peers { root })
}

impl Peers {
    /// A command of this host that runs one of the programs with the libraries it was built for.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.loader()?);
        command
            .arg("--library-path")
            .arg(self.libraries())
            .arg(self.root.join(program));
        Ok(command)
    }

    /// bpftrace on this host.
    ///
    /// # Errors
    /// When its package lacks what it should have.
    pub fn bpftrace(&self) -> Result<Command> {
        self.command(BPFTRACE)
    }

    fn loader(&self) -> Result<PathBuf> {
        ["usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu"]
            .map(|folder| self.root.join(folder).join("ld-linux-x86-64.so.2"))
            .into_iter()
            .find(|file| file.is_file())
            .with_context(|| format!("{} holds no C library: remove it", self.root.display()))
    }

    fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib/x86_64-linux-gnu")
    }

    /// Compiles a C program for eBPF.
    ///
    /// # Errors
    /// With the compiler's last words.
    pub fn compile(&self, source: &Path, object: &Path) -> Result<()> {
        let mut clang = self.command(CLANG)?;
        clang
            .args([
                "-target",
                "bpf",
                "-mcpu=v3",
                "-O2",
                "-g",
                "-Wall",
                "-Werror",
                "-D__TARGET_ARCH_x86",
                "-nostdinc",
            ])
            .arg("-I")
            .arg(self.root.join("usr/include"))
            .arg("-c")
            .arg(source)
            .arg("-o")
            .arg(object);
        capture(&mut clang)
            .map(drop)
            .with_context(|| format!("cannot compile {}", source.display()))
    }

    /// bpftrace and bpftool with all that they load, each with its place in a machine that has nothing else: the files of
    /// this host, and where they have to be.
    ///
    /// # Errors
    /// When a library is missing.
    pub fn for_guest(&self) -> Result<Vec<(PathBuf, String)>> {
        let mut files = BTreeSet::new();
        for program in [BPFTRACE, BPFTOOL] {
            let mut list = Command::new(self.loader()?);
            list.arg("--library-path").arg(self.libraries()).arg("--list");
            let listing = capture(list.arg(self.root.join(program)))?;
            files.insert(self.root.join(program));
            files.extend(loaded(&listing)?);
        }
        let placed = files.into_iter().map(|file| {
            let inside = file.strip_prefix(&self.root).map(Path::to_owned);
            let inside = inside.with_context(|| format!("{} is not of the packages", file.display()))?;
            let guest = inside.to_str().context("names of packages' files are text")?.to_owned();
            Ok((file, guest))
        });
        let mut placed: Vec<(PathBuf, String)> = placed.collect::<Result<_>>()?;
        placed.push((self.loader()?, "lib64/ld-linux-x86-64.so.2".to_owned()));
        Ok(placed)
    }
}

/// The libraries in what the loader lists: `libz.so.1 => /root/usr/lib/libz.so.1 (0x...)`. The kernel's and the loader itself
/// are none.
fn loaded(listing: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in listing.lines() {
        let Some((name, path)) = line.split_once("=>") else {
            continue;
        };
        let path = path.split_whitespace().next().unwrap_or_default();
        if !path.starts_with('/') {
            bail!("a library is missing: {}", name.trim());
        }
        if !path.contains("ld-linux") {
            files.push(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_listed_and_missing_ones_named() {
        let listing = "\tlinux-vdso.so.1 (0x7f)\n\tlibz.so.1 => /r/usr/lib/libz.so.1 (0x7f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 => /r/usr/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(loaded(listing).unwrap(), [PathBuf::from("/r/usr/lib/libz.so.1")]);
        assert!(loaded("\tlibz.so.1 => not found\n").is_err());
    }
}
