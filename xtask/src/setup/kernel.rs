//! Debian's cloud kernels: small, with BTF, function tracing and kvm-amd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::debian::{Archive, Suite};
use super::step;
use crate::paths;

/// A kernel line and where Debian has it. One row is all that another line needs.
#[derive(Debug)]
pub struct Line {
    /// The version that all its kernels begin with.
    pub name: &'static str,
    /// The suites that carry it.
    suites: &'static [Suite],
    /// Whether Debian builds it with the v1 memory controller.
    pub cgroup_v1: bool,
}

/// The lines that VMs can boot.
pub const LINES: &[Line] = &[
    Line {
        name: "5.10",
        suites: &[Suite::Main("bullseye"), Suite::Security("bullseye-security")],
        cgroup_v1: true,
    },
    Line {
        name: "6.1",
        suites: &[Suite::Main("bookworm"), Suite::Security("bookworm-security")],
        cgroup_v1: true,
    },
    Line {
        name: "6.12",
        suites: &[Suite::Main("trixie"), Suite::Security("trixie-security")],
        cgroup_v1: false,
    },
    Line {
        name: "7.2",
        suites: &[Suite::Main("forky"), Suite::Main("sid")],
        cgroup_v1: false,
    },
    Line {
        name: "7.3",
        suites: &[Suite::Main("trixie-backports"), Suite::Main("sid")],
        cgroup_v1: false,
    },
];

/// An unpacked kernel package.
#[derive(Debug)]
pub struct Kernel {
    /// Its line.
    pub line: &'static Line,
    /// Its exact version, as `uname -r` prints it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The folder with its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The file of a module, compressed or not; `None` where the kernel has it built in, or not at all.
    #[must_use]
    pub fn module(&self, path: &str) -> Option<PathBuf> {
        ["ko", "ko.xz", "ko.zst"]
            .map(|extension| self.modules.join(format!("kernel/{path}.{extension}")))
            .into_iter()
            .find(|file| file.is_file())
    }
}

/// The newest kernel of a line, from the cache or from Debian.
///
/// # Errors
/// For an unknown line, or when it can be neither found nor downloaded.
pub fn ensure(name: &str) -> Result<Kernel> {
    let line = find(name)?;
    let folder = cached(line)?;
    if !folder.is_dir() {
        download(line, &folder).with_context(|| {
            format!(
                "unpack a kernel package by hand: `dpkg -x PACKAGE {}`",
                folder.display()
            )
        })?;
    }
    open(line, &folder)
}

/// Puts the newest kernel of a line into the cache, in place of the one that is there.
///
/// # Errors
/// As [`ensure`]; the old kernel stays then.
pub fn update(name: &str) -> Result<()> {
    let line = find(name)?;
    let folder = cached(line)?;
    // Beside the old one first, so that a failure leaves that in place.
    let new = folder.with_file_name(format!("{}.new", line.name));
    remove(&new)?;
    download(line, &new)?;
    remove(&folder)?;
    fs::rename(&new, &folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

fn find(name: &str) -> Result<&'static Line> {
    LINES.iter().find(|line| line.name == name).with_context(|| {
        let known: Vec<&str> = LINES.iter().map(|line| line.name).collect();
        format!("there is no kernel line {name}; there is {}", known.join(", "))
    })
}

fn remove(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn cached(line: &Line) -> Result<PathBuf> {
    Ok(paths::cache()?.join("kernels").join(line.name))
}

fn download(line: &Line, folder: &Path) -> Result<()> {
    let archive = Archive::open(line.suites)?;
    let names = archive.names(&format!("linux-image-{}.", line.name))?;
    let package = newest(&names).with_context(|| format!("Debian has no {} kernel", line.name))?;
    step("kernel", format_args!("{package} into {}", folder.display()));
    let mut packages = vec![package.to_owned()];
    for part in parts(package) {
        if archive.names(&part)?.contains(&part) {
            packages.push(part);
        }
    }
    archive.unpack(&packages, folder)
}

/// The packages that hold what an image package of Debian 14 and its backports only depends on.
fn parts(image: &str) -> [String; 2] {
    ["linux-binary-", "linux-modules-"].map(|part| image.replacen("linux-image-", part, 1))
}

/// The newest cloud kernel among package names; a signed one before the same one unsigned.
fn newest(names: &[String]) -> Option<&str> {
    let bootable = names.iter().filter_map(|name| {
        let unsigned = name.strip_suffix("-unsigned");
        let version = unsigned.unwrap_or(name).strip_suffix("-cloud-amd64")?;
        Some((numbers(version), unsigned.is_none(), name.as_str()))
    });
    bootable.max().map(|(.., name)| name)
}

/// The numbers in a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn open(line: &'static Line, folder: &Path) -> Result<Kernel> {
    // Debian moved the modules with the /usr merge, and then the image to them.
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|modules| folder.join(modules))
        .iter()
        .find_map(|modules| fs::read_dir(modules).ok()?.flatten().next())
        .map(|entry| entry.path())
        .with_context(|| format!("{} holds no modules: remove it", folder.display()))?;
    let release = modules.file_name().and_then(|name| name.to_str());
    let release = release.context("a release is text")?.to_owned();
    let image = [
        folder.join("boot").join(format!("vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ]
    .into_iter()
    .find(|image| image.is_file())
    .with_context(|| format!("{} holds no kernel: remove it", folder.display()))?;
    Ok(Kernel {
        line,
        release,
        image,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_newest_bootable_kernel() {
        let names = [
            "linux-image-6.12.96+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-cloud-amd64-dbg",
            "linux-image-6.12.117+deb13-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names), Some("linux-image-6.12.117+deb13-cloud-amd64"));
    }

    #[test]
    fn an_image_in_parts_is_fetched_with_them() {
        assert_eq!(
            parts("linux-image-7.3.4+deb13-cloud-amd64"),
            [
                "linux-binary-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
    }

    #[test]
    fn an_unsigned_kernel_will_do() {
        let names = ["linux-image-7.2.1-cloud-amd64-unsigned".to_owned()];
        assert_eq!(newest(&names), Some("linux-image-7.2.1-cloud-amd64-unsigned"));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn a_point_release_of_the_package_is_newer() {
        let names = [
            "linux-image-6.12.115+deb13.1-cloud-amd64",
            "linux-image-6.12.115+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names), Some("linux-image-6.12.115+deb13.1-cloud-amd64"));
    }

    #[test]
    fn an_unknown_line_names_the_known_ones() {
        let error = ensure("2.6").unwrap_err().to_string();
        assert!(error.contains("6.12"), "{error}");
    }
}
