//! The host's QEMU for use inside a VM, where it runs on the VM's own KVM.

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::program;
use crate::process::capture;
use crate::setup::qemu::emulator;

/// What `-machine pc` loads: a BIOS, where it is given none (the lab's guest is its own), and an option ROM.
const FIRMWARE: [&str; 2] = ["bios-256k.bin", "kvmvapic.bin"];

/// Modules that lie outside QEMU's program where it was built modular: `-accel tcg` is one.
const MODULES: [&str; 2] = ["accel-tcg-x86_64.so", "accel-qtest-x86_64.so"];

/// QEMU, its libraries, firmware and modules, at the paths where they are on the host and have to be in the VM.
///
/// # Errors
/// When QEMU or its firmware is not installed.
pub fn files() -> Result<Vec<PathBuf>> {
    let qemu = emulator()?;
    let mut files: Vec<PathBuf> = program::with_libraries(&qemu)?.into_iter().collect();
    let folders = capture(Command::new(&qemu).args(["-L", "help"]))?;
    let folders: Vec<PathBuf> = folders
        .lines()
        .map(|line| without_parents(Path::new(line.trim())))
        .collect();
    for name in FIRMWARE {
        let file = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file());
        files.push(file.with_context(|| {
            format!("QEMU's firmware {name} is not installed: `apt-get install qemu-system-data seabios`")
        })?);
    }
    let modules = qemu
        .parent()
        .and_then(Path::parent)
        .context("QEMU is in no folder")?
        .join("lib");
    for folder in [modules.join("x86_64-linux-gnu/qemu"), modules.join("qemu")] {
        files.extend(
            MODULES
                .map(|module| folder.join(module))
                .into_iter()
                .filter(|file| file.is_file()),
        );
    }
    Ok(files)
}

/// `/usr/bin/../share/qemu` as `/usr/share/qemu`.
fn without_parents(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            component => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_parents() {
        let plain = without_parents(Path::new("/usr/bin/../lib/ipxe/qemu"));
        assert_eq!(plain, Path::new("/usr/lib/ipxe/qemu"));
    }
}
