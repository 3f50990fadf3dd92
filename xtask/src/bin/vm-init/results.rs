//! Bringing files back: an archive of `/results` on the results disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use xtask::vm::protocol::{RESULTS, RESULTS_DISK};

/// Writes the archive, down to the disk.
pub fn write() -> Result<()> {
    let disk = OpenOptions::new()
        .write(true)
        .open(RESULTS_DISK)
        .with_context(|| format!("cannot open {RESULTS_DISK}"))?;
    let archive = add_folder(BufWriter::new(disk), Path::new(RESULTS))?;
    let archive = trailer(archive).context("cannot end the archive")?;
    let disk = archive
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .context("cannot write results")?;
    disk.sync_all().context("cannot write results to the disk")
}

/// Adds the files below `folder`; anything that is neither file nor folder is left behind.
fn add_folder<W: Write>(mut archive: W, folder: &Path) -> Result<W> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            archive = add_folder(archive, &path)?;
        } else if path.is_file() {
            archive = add_file(archive, &path)?;
        }
    }
    Ok(archive)
}

fn add_file<W: Write>(archive: W, path: &Path) -> Result<W> {
    let name = path
        .strip_prefix(RESULTS)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned();
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let size = file
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    let size = u32::try_from(size).with_context(|| format!("{} is larger than 4 GiB", path.display()))?;
    let builder = Builder::new(&name)
        .mode(0o644)
        .set_mode_file_type(ModeFileType::Regular);
    let mut writer = builder.write(archive, size);
    io::copy(&mut file, &mut writer).with_context(|| format!("cannot bring {} back", path.display()))?;
    writer
        .finish()
        .with_context(|| format!("cannot bring {} back", path.display()))
}
