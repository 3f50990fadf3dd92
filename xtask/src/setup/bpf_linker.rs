//! bpf-linker, built against the LLVM that rustc itself brings: no LLVM package is needed, and the two always agree.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::rustc::Rustc;
use super::step;
use crate::paths;
use crate::process::{cargo, run};

/// The version that the eBPF object is built with.
const VERSION: &str = "0.13.0";

/// Builds bpf-linker into the cache unless one for this rustc's LLVM is there.
///
/// # Errors
/// When rustc has no shared LLVM, or the build fails.
pub fn ensure(rustc: &Rustc) -> Result<()> {
    let cache = paths::cache()?;
    let root = cache.join(format!("bpf-linker-{VERSION}"));
    let llvm = LlvmFolder::at(cache.join("llvm"), rustc)?;
    if root.join("bin/bpf-linker").is_file() && llvm.is_current() {
        return Ok(());
    }
    let removed = match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    removed.with_context(|| format!("cannot remove the outdated {}", root.display()))?;
    llvm.link()?;
    install(&root, &llvm, rustc)
}

fn install(root: &Path, llvm: &LlvmFolder, rustc: &Rustc) -> Result<()> {
    step(
        "bpf-linker",
        format_args!("building {VERSION} against rustc {}'s LLVM, about 90 s", rustc.release),
    );
    let mut command = cargo();
    command
        // Away from the workspace, whose configuration makes static binaries: this one must load LLVM.
        .current_dir(paths::cache()?)
        .env("LLVM_PREFIX", &llvm.folder)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--force",
        ])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{}", rustc.llvm_major))
        .arg("--root")
        .arg(root);
    run(&mut command).with_context(|| {
        format!(
            "install bpf-linker {VERSION} for LLVM {} by hand so that it is on PATH (it needs a C compiler to link)",
            rustc.llvm_major
        )
    })
}

/// A folder that looks like an LLVM installation, made of links to rustc's library. It is bpf-linker's rpath, so it
/// must stay.
struct LlvmFolder {
    folder: PathBuf,
    library: PathBuf,
    name: OsString,
}

impl LlvmFolder {
    fn at(folder: PathBuf, rustc: &Rustc) -> Result<Self> {
        let libraries = rustc.sysroot.join("lib");
        let entries = fs::read_dir(&libraries).with_context(|| format!("cannot read {}", libraries.display()))?;
        let name = entries
            .flatten()
            .map(|entry| entry.file_name())
            .find(|name| name.to_string_lossy().starts_with("libLLVM.so."));
        let Some(name) = name else {
            bail!(
                "{} has no libLLVM.so: use the rustc that rustup installs, or put a bpf-linker for LLVM {} on PATH",
                libraries.display(),
                rustc.llvm_major
            );
        };
        Ok(Self {
            folder,
            library: libraries.join(&name),
            name,
        })
    }

    /// The library's name holds rustc's version: with another rustc the linker must be built again.
    fn is_current(&self) -> bool {
        self.folder.join("lib").join(&self.name).is_file() && self.folder.join("lib/libLLVM.so").is_file()
    }

    fn link(&self) -> Result<()> {
        let lib = self.folder.join("lib");
        if lib.exists() {
            fs::remove_dir_all(&lib).with_context(|| format!("cannot remove {}", lib.display()))?;
        }
        fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
        for name in [&self.name, &OsString::from("libLLVM.so")] {
            let link = lib.join(name);
            symlink(&self.library, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(sysroot: &Path, library: &str) -> Rustc {
        fs::create_dir_all(sysroot.join("lib")).unwrap();
        fs::write(sysroot.join("lib").join(library), "").unwrap();
        Rustc {
            sysroot: sysroot.to_owned(),
            release: "1.95.0".to_owned(),
            llvm_major: 22,
        }
    }

    #[test]
    fn another_rustc_makes_the_links_outdated() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("llvm");
        let old = rustc(&cache.path().join("old"), "libLLVM.so.22.1-rust-1.95.0-stable");
        let new = rustc(&cache.path().join("new"), "libLLVM.so.22.1-rust-1.96.0-stable");
        let old = LlvmFolder::at(folder.clone(), &old).unwrap();
        assert!(!old.is_current());
        old.link().unwrap();
        assert!(old.is_current());
        let new = LlvmFolder::at(folder, &new).unwrap();
        assert!(!new.is_current());
        new.link().unwrap();
        assert!(new.is_current() && !old.is_current());
    }

    #[test]
    fn a_removed_toolchain_makes_the_links_outdated() {
        let cache = tempfile::tempdir().unwrap();
        let sysroot = cache.path().join("old");
        let llvm = LlvmFolder::at(
            cache.path().join("llvm"),
            &rustc(&sysroot, "libLLVM.so.22.1-rust-1.95.0-stable"),
        )
        .unwrap();
        llvm.link().unwrap();
        fs::remove_dir_all(sysroot).unwrap();
        assert!(!llvm.is_current());
    }
}
