//! Programs of the host for use inside a VM: a dynamically linked one brings its libraries along.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::capture;

/// The program and every library it loads, at the paths where they are on the host and have to be in the VM.
///
/// # Errors
/// When the program is missing or one of its libraries is.
pub fn with_libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    if !program.is_file() {
        bail!("there is no {}", program.display());
    }
    let listing = capture(Command::new("ldd").arg(program))
        .with_context(|| format!("cannot tell which libraries {} loads", program.display()))?;
    let mut files = libraries(&listing)?;
    files.insert(program.to_owned());
    Ok(files)
}

/// The paths in the output of `ldd`.
fn libraries(listing: &str) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for line in listing.lines() {
        if line.contains("=> not found") {
            bail!("a library is missing: {}", line.trim());
        }
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`,
        // or `linux-vdso.so.1 (0x...)`, which is no file.
        let path = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = path.split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            files.insert(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(listing).unwrap(), BTreeSet::from(expected));
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = libraries("\tlibaio.so.1 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libaio.so.1"), "{error}");
    }
}
