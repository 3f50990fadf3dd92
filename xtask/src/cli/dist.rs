//! `cargo xtask dist`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use xtask::{dist, paths};

/// Build what is handed out: the static program, a Debian package, an archive, a container image, checksums.
///
/// The same sources give the same bytes. Files are as old as SOURCE_DATE_EPOCH says, or else as the last commit.
#[derive(Debug, Args)]
pub struct Dist {
    /// Folder for it all, `target/dist` when absent.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Pack this program instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl Dist {
    pub fn run(self) -> Result<()> {
        let time = dist::time()?;
        let program = match self.program {
            Some(program) => program,
            None => dist::release()?,
        };
        let folder = self.output.unwrap_or_else(|| paths::target().join("dist"));
        let artifacts = dist::make(&program, &folder, time)?;
        for path in [
            &artifacts.program,
            &artifacts.archive,
            &artifacts.package,
            &artifacts.image,
            &artifacts.sums,
        ] {
            println!("{}", path.display());
        }
        Ok(())
    }
}
