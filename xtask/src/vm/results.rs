//! Files brought back from a VM: init writes an archive to a raw disk, the host unpacks it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use cpio::newc::Reader;

/// Unpacks the archive on `disk` into `folder`.
///
/// # Errors
/// When the disk holds no complete archive, or a name in it points out of the folder.
pub fn unpack(disk: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::open(disk).with_context(|| format!("cannot read {}", disk.display()))?;
    let mut archive = BufReader::new(file);
    loop {
        let mut entry = Reader::new(archive).context("the VM left an incomplete archive of results")?;
        if entry.entry().is_trailer() {
            return Ok(());
        }
        let name = entry.entry().name().to_owned();
        if !Path::new(&name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            bail!("the VM's result {name:?} would be outside of {}", folder.display());
        }
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        io::copy(&mut entry, &mut file).with_context(|| format!("cannot unpack {name}"))?;
        archive = entry.finish().with_context(|| format!("cannot unpack {name}"))?;
    }
}

#[cfg(test)]
mod tests {
    use cpio::newc::{Builder, ModeFileType, trailer};
    use std::io::Write as _;

    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            let builder = Builder::new(name).set_mode_file_type(ModeFileType::Regular);
            let mut writer = builder.write(bytes, 4);
            writer.write_all(b"text").unwrap();
            bytes = writer.finish().unwrap();
        }
        bytes
    }

    #[test]
    fn unpacks_what_a_larger_disk_begins_with() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let mut bytes = trailer(archive(&["a.json", "sub/b"])).unwrap();
        bytes.resize(1 << 16, 0);
        fs::write(&disk, bytes).unwrap();
        unpack(&disk, &folder.path().join("out")).unwrap();
        assert_eq!(fs::read(folder.path().join("out/sub/b")).unwrap(), b"text");
        assert_eq!(fs::read(folder.path().join("out/a.json")).unwrap(), b"text");
    }

    #[test]
    fn an_empty_disk_and_a_name_that_leads_out_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs::write(&disk, [0; 4096]).unwrap();
        assert!(unpack(&disk, &folder.path().join("out")).is_err());
        fs::write(&disk, archive(&["../escaped"])).unwrap();
        assert!(unpack(&disk, &folder.path().join("out")).is_err());
        assert!(!folder.path().join("escaped").exists());
    }
}
