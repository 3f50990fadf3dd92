//! What is handed out to nodes: a static program, a Debian package, an archive, a container image, their checksums. The
//! same sources give the same bytes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::process::capture;
use crate::{paths, setup};

pub mod archive;
pub mod contents;
pub mod deb;
pub mod elf;
pub mod oci;
pub mod release;

use contents::Contents;

/// The file with the checksums of all others, as `sha256sum --check` reads it.
pub const SUMS: &str = "SHA256SUMS";
/// The variable that says when what is handed out was made, in seconds since 1970
/// (reproducible-builds.org/specs/source-date-epoch).
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What was made, by file.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The folder that they are in.
    pub folder: PathBuf,
    /// The program itself.
    pub program: PathBuf,
    /// The archive for any Linux.
    pub archive: PathBuf,
    /// The Debian package.
    pub package: PathBuf,
    /// The container image.
    pub image: PathBuf,
    /// The checksums.
    pub sums: PathBuf,
}

/// Makes everything of a built program into a folder, which is made where it is not there. `time` is what the files
/// say of when they were made, seconds since 1970.
///
/// # Errors
/// When the program is not static, does not run, or the folder cannot be written.
pub fn make(program: &Path, folder: &Path, time: u64) -> Result<Artifacts> {
    let contents = Contents::gather(program)?;
    elf::check(contents.program()).with_context(|| format!("{} cannot be handed out", program.display()))?;
    let version = version(program)?;
    let name = format!("headroom-{version}-x86_64-linux");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut sums = String::new();
    let mut write = |name: String, data: &[u8]| -> Result<PathBuf> {
        let path = folder.join(&name);
        fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(sums, "{}  {name}", hex(&Sha256::digest(data)))?;
        Ok(path)
    };
    let artifacts = Artifacts {
        folder: folder.to_owned(),
        program: write(name.clone(), contents.program())?,
        archive: write(
            format!("{name}.tar.gz"),
            &archive::gzip(&archive::tar(&contents.archive(&name), time)?)?,
        )?,
        package: write(
            format!("headroom_{version}_amd64.deb"),
            &deb::package(&contents.debian()?, &version, time)?,
        )?,
        image: write(
            format!("headroom-{version}.oci.tar"),
            &oci::image(&contents.image()?, &version, time)?,
        )?,
        sums: folder.join(SUMS),
    };
    executable(&artifacts.program)?;
    fs::write(&artifacts.sums, sums).with_context(|| format!("cannot write {}", artifacts.sums.display()))?;
    Ok(artifacts)
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("{}", path.display()))
}

/// `headroom 0.1.0`
fn version(program: &Path) -> Result<String> {
    let said = capture(Command::new(program).arg("--version"))?;
    let version = said.trim().strip_prefix("headroom ").unwrap_or_default();
    ensure!(
        version.starts_with(|digit: char| digit.is_ascii_digit()),
        "{} says '{said}' when asked for its version",
        program.display()
    );
    Ok(version.to_owned())
}

/// Seconds since 1970 that the files are to have: `SOURCE_DATE_EPOCH`, else the time of the last commit.
///
/// # Errors
/// When neither is there.
pub fn time() -> Result<u64> {
    let text = match std::env::var(SOURCE_DATE_EPOCH) {
        Ok(text) => text,
        Err(_) => capture(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(paths::workspace()),
        )
        .with_context(|| format!("set {SOURCE_DATE_EPOCH}: outside of git nothing else says how old this is"))?,
    };
    text.trim()
        .parse()
        .with_context(|| format!("{SOURCE_DATE_EPOCH} is no number of seconds: {}", text.trim()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The release build of this workspace.
///
/// # Errors
/// When setup or the build fails.
pub fn release() -> Result<PathBuf> {
    setup::ebpf()?;
    release::build()
}
