//! Debian's archive through a private apt: own sources, own lists, own cache. It needs no root and leaves the system's
//! apt untouched.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::mirror::Mirror;
use super::step;
use crate::paths;
use crate::process::{capture, find};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of one of Debian's archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Of the main archive, such as `trixie`.
    Main(&'static str),
    /// Of the security archive, such as `trixie-security`.
    Security(&'static str),
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Main(name) | Self::Security(name) => name,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some suites, with their package lists up to date.
#[derive(Debug)]
pub struct Archive {
    configuration: PathBuf,
}

impl Archive {
    /// Fetches the package lists of `suites`.
    ///
    /// # Errors
    /// Without apt, dpkg or Debian's keyring, and when the mirror does not answer.
    pub fn open(suites: &[Suite]) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg"] {
            if find(tool).is_none() {
                bail!("there is no {tool}: Debian packages cannot be fetched here");
            }
        }
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring");
        }
        let names: Vec<&str> = suites.iter().map(|suite| suite.name()).collect();
        let folder = paths::cache()?.join("apt").join(names.join("+"));
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = folder.join("sources.list");
        write(&sources, &sources_list(suites, &Mirror::of_system()))?;
        let configuration = folder.join("apt.conf");
        write(&configuration, &apt_configuration(&folder, &sources))?;
        let archive = Self { configuration };
        step("debian", format_args!("package lists of {}", names.join(", ")));
        capture(archive.apt("apt-get").args(["-q", "update"]))?;
        Ok(archive)
    }

    /// Names of the packages that begin with `prefix`.
    ///
    /// # Errors
    /// When apt fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Versions of `package`, newest first.
    ///
    /// # Errors
    /// When apt fails.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = capture(self.apt("apt-cache").args(["madison", package]))?;
        Ok(table.lines().filter_map(version_column).map(str::to_owned).collect())
    }

    /// `packages` and all that they depend on, as if nothing were installed.
    ///
    /// # Errors
    /// When apt fails, or finds that they cannot be installed together.
    pub fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut install = self.apt("apt-get");
        install
            .args([
                "-o",
                "Dir::State::status=/dev/null",
                "--simulate",
                "--no-install-recommends",
            ])
            .arg("install")
            .args(packages);
        let plan = capture(&mut install)?;
        Ok(plan.lines().filter_map(planned).map(str::to_owned).collect())
    }

    /// Downloads packages (each a name, or `NAME=VERSION`) and unpacks them over each other as `folder`, which appears
    /// only when complete.
    ///
    /// # Errors
    /// When a download or `dpkg -x` fails.
    pub fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let parent = folder.parent().context("a folder in the cache has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let scratch = tempfile::tempdir_in(parent).context("cannot make a folder in the cache")?;
        let mut download = self.apt("apt-get");
        capture(
            download
                .current_dir(scratch.path())
                .args(["-q", "download"])
                .args(packages),
        )?;
        let files: Vec<PathBuf> = fs::read_dir(scratch.path())?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        if files.len() != packages.len() {
            bail!("apt-get downloaded {} files for {}", files.len(), packages.join(" "));
        }
        let root = scratch.path().join("root");
        for file in files {
            capture(Command::new("dpkg").arg("-x").arg(&file).arg(&root))?;
        }
        fs::rename(&root, folder).with_context(|| format!("cannot put {} in place", folder.display()))
    }

    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.arg("-c").arg(&self.configuration);
        command
    }
}

fn sources_list(suites: &[Suite], mirror: &Mirror) -> String {
    let mut list = String::new();
    for suite in suites {
        let uri = match suite {
            Suite::Main(_) => &mirror.main,
            Suite::Security(_) => &mirror.security,
        };
        // Writing to a string does not fail.
        let _ = writeln!(list, "deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main");
    }
    list
}

/// apt reads the system's configuration first (a proxy stays in force), then this.
fn apt_configuration(folder: &Path, sources: &Path) -> String {
    format!(
        "Dir::Etc::sourcelist \"{sources}\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         // The unprivileged _apt cannot write to a cache in a home folder.\n\
         APT::Sandbox::User \"\";\n\
         // The system's hooks are about the system's packages.\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Languages \"none\";\n",
        sources = sources.display(),
        folder = folder.display(),
    )
}

/// The second column of `apt-cache madison`: `rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://... Packages`.
fn version_column(line: &str) -> Option<&str> {
    line.split('|')
        .nth(1)
        .map(str::trim)
        .filter(|version| !version.is_empty())
}

/// The name in a line of what apt would do: `Inst libbpf1 (1:1.5.0-3 Debian:13/stable [amd64])`.
fn planned(line: &str) -> Option<&str> {
    line.strip_prefix("Inst ")?.split(' ').next()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_come_from_their_own_archive() {
        let mirror = Mirror {
            main: "http://m/debian".to_owned(),
            security: "http://s/debian-security".to_owned(),
        };
        let list = sources_list(&[Suite::Main("trixie"), Suite::Security("trixie-security")], &mirror);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("] http://m/debian trixie main"), "{list}");
        assert!(
            lines[1].ends_with("] http://s/debian-security trixie-security main"),
            "{list}"
        );
    }

    #[test]
    fn reads_what_apt_says() {
        let line = "  rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://m/debian trixie-backports/main amd64 Packages";
        assert_eq!(version_column(line), Some("1.95.0+dfsg1-1~bpo13+1"));
        assert_eq!(
            planned("Inst libbpf1 (1:1.5.0-3 Debian:13/stable [amd64])"),
            Some("libbpf1")
        );
        assert_eq!(planned("Conf libbpf1 (1:1.5.0-3 Debian:13/stable [amd64])"), None);
        assert_eq!(version_column("N: Unable to locate package"), None);
    }
}
