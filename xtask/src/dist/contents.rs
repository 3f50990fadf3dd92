//! What is handed out: the program, what it says of itself, documents, and what is deployed with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::archive::{Entry, gzip};
use crate::paths;
use crate::process::{capture, run};

/// Shells, and what each calls its completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "headroom.bash"),
    ("zsh", "_headroom"),
    ("fish", "headroom.fish"),
];
/// Where Debian's shells look for them.
const DEBIAN_SHELLS: [(&str, &str); 3] = [
    ("headroom.bash", "usr/share/bash-completion/completions/headroom"),
    ("_headroom", "usr/share/zsh/vendor-completions/_headroom"),
    ("headroom.fish", "usr/share/fish/vendor_completions.d/headroom.fish"),
];
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
const DOCUMENTS: [&str; 2] = ["README.md", "CHANGELOG.md"];
/// Folders of the workspace that are handed out as they are.
const FOLDERS: [&str; 2] = ["docs", "deploy"];
const UNIT: &str = "deploy/headroom.service";

/// Everything that is handed out.
#[derive(Clone, Debug)]
pub struct Contents {
    program: Vec<u8>,
    /// By file name.
    completions: Vec<(String, Vec<u8>)>,
    /// By file name.
    pages: Vec<(String, Vec<u8>)>,
    /// Files of the workspace, by their paths in it.
    documents: Vec<(String, Vec<u8>)>,
}

impl Contents {
    /// Gathers it. Completions and manual pages come from the program itself.
    ///
    /// # Errors
    /// When the program does not run or a file is missing.
    pub fn gather(program: &Path) -> Result<Self> {
        let completions = SHELLS
            .iter()
            .map(|(shell, name)| {
                let text = capture(Command::new(program).args(["completions", shell]))?;
                Ok(((*name).to_owned(), text.into_bytes()))
            })
            .collect::<Result<_>>()?;
        let folder = tempfile::tempdir()?;
        run(Command::new(program).arg("man").arg(folder.path()))?;
        let pages = files_of(folder.path(), "")?;
        ensure!(pages.iter().any(|(name, _)| name == "headroom.1"), "no manual page");
        let root = paths::workspace();
        let mut documents = Vec::new();
        for name in LICENCES.iter().chain(&DOCUMENTS) {
            documents.push(((*name).to_owned(), read(&root.join(name))?));
        }
        for folder in FOLDERS {
            documents.extend(files_of(&root.join(folder), &format!("{folder}/"))?);
        }
        Ok(Self {
            program: read(program)?,
            completions,
            pages,
            documents,
        })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// For any Linux: everything beside the program, in a folder of this name.
    #[must_use]
    pub fn archive(&self, folder: &str) -> Vec<Entry> {
        let at = |path: &str| format!("{folder}/{path}");
        let mut entries = vec![Entry::program(at("headroom"), self.program.as_slice())];
        for (name, text) in &self.completions {
            entries.push(Entry::file(at(&format!("completions/{name}")), text.as_slice()));
        }
        for (name, page) in &self.pages {
            entries.push(Entry::file(at(&format!("man/{name}")), page.as_slice()));
        }
        for (path, text) in &self.documents {
            entries.push(Entry::file(at(path), text.as_slice()));
        }
        entries
    }

    /// For Debian: everything where it belongs below `/`.
    ///
    /// # Errors
    /// When something that belongs there is missing.
    pub fn debian(&self) -> Result<Vec<Entry>> {
        let mut entries = vec![Entry::program("usr/bin/headroom", self.program.as_slice())];
        for (name, text) in &self.completions {
            let place = DEBIAN_SHELLS.iter().find(|(completion, _)| completion == name);
            let (_, path) = place.with_context(|| format!("no place for {name}"))?;
            entries.push(Entry::file(*path, text.as_slice()));
        }
        for (name, page) in &self.pages {
            entries.push(Entry::file(format!("usr/share/man/man1/{name}.gz"), gzip(page)?));
        }
        entries.push(Entry::file(
            "usr/lib/systemd/system/headroom.service",
            self.document(UNIT)?,
        ));
        entries.push(self.copyright()?);
        for (path, text) in &self.documents {
            if path != UNIT && !LICENCES.contains(&path.as_str()) {
                entries.push(Entry::file(format!("usr/share/doc/headroom/{path}"), text.as_slice()));
            }
        }
        Ok(entries)
    }

    /// For an image: the program and its licence, nothing else.
    ///
    /// # Errors
    /// When the licence is missing.
    pub fn image(&self) -> Result<Vec<Entry>> {
        Ok(vec![
            Entry::program("usr/bin/headroom", self.program.as_slice()),
            self.copyright()?,
        ])
    }

    fn document(&self, path: &str) -> Result<&[u8]> {
        let found = self.documents.iter().find(|(name, _)| name == path);
        found
            .map(|(_, text)| text.as_slice())
            .with_context(|| format!("no {path}"))
    }

    fn copyright(&self) -> Result<Entry> {
        let mut text = b"MIT or Apache-2.0, as you like.\n".to_vec();
        for licence in LICENCES {
            text.push(b'\n');
            text.extend_from_slice(self.document(licence)?);
        }
        Ok(Entry::file("usr/share/doc/headroom/copyright", text))
    }
}

/// The files of a folder and the folders in it, their paths behind `prefix`.
fn files_of(folder: &Path, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name that is no text")?;
        if path.is_dir() {
            files.extend(files_of(&path, &format!("{prefix}{name}/"))?);
        } else {
            files.push((format!("{prefix}{name}"), read(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
