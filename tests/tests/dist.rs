//! What `cargo xtask dist` hands out, looked at by the programs that a node has for it: tar, sha256sum, dpkg-deb, bash,
//! systemd-analyze, and a chroot with nothing in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::TempDir;
use xtask::build::binaries;
use xtask::dist::{self, Artifacts};
use xtask::process::capture;

/// When what is made here was made: 2026-01-02 03:04:05 UTC.
const TIME: u64 = 1_767_323_045;
/// The same, as tar lists it.
const LISTED: &str = "2026-01-02 03:04:05";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A look at something.
type Check = fn() -> Result<()>;

/// What is looked at, in one test: making everything takes long, and each test is a process of its own.
const CHECKS: [(&str, Check); 8] = [
    ("the same bytes again", the_same_program_gives_the_same_bytes),
    ("checksums", checksums_are_those_of_the_files),
    ("archive", the_archive_holds_everything),
    ("chroot", the_program_runs_where_there_is_nothing_else),
    ("completions", bash_completes_what_the_archive_has),
    ("package", debian_takes_the_package),
    ("unit", systemd_takes_the_unit),
    ("image", the_image_is_a_layout_whose_digests_hold),
];

#[test]
fn what_is_handed_out_is_what_it_says() -> Result<()> {
    let mut wrong = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = check() {
            wrong.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Everything, made of this build: nothing here depends on how fast the program is.
fn artifacts() -> Result<&'static Artifacts> {
    static MADE: OnceLock<Result<(TempDir, Artifacts), String>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let make = || -> Result<(TempDir, Artifacts)> {
            let folder = tempfile::tempdir()?;
            let artifacts = dist::make(&binaries()?.headroom(), folder.path(), TIME)?;
            Ok((folder, artifacts))
        };
        make().map_err(|error| format!("{error:#}"))
    });
    made.as_ref()
        .map(|(_, artifacts)| artifacts)
        .map_err(|error| anyhow!(error.clone()))
}

/// What a program prints, in UTC and plain English.
fn say(program: &str, arguments: &[&str]) -> Result<String> {
    capture(
        Command::new(program)
            .args(arguments)
            .env("TZ", "UTC")
            .env("LC_ALL", "C"),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Unpacks a tar archive into a new folder.
fn unpack(archive: &Path) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    say(
        "tar",
        &["--extract", "--file", text(archive), "--directory", text(folder.path())],
    )?;
    Ok(folder)
}

/// Every entry is root's, of the given time, and stands behind the one before.
fn expect_reproducible(archive: &Path) -> Result<Vec<String>> {
    let listed = say("tar", &["--numeric-owner", "--full-time", "-tvf", text(archive)])?;
    let mut names = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, owner, _, day, hour, name, ..] = words.as_slice() else {
            anyhow::bail!("{line}");
        };
        ensure!(*owner == "0/0" && format!("{day} {hour}") == LISTED, "{line}");
        names.push((*name).to_owned());
    }
    let (folders, files): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| name.ends_with('/'));
    ensure!(folders.is_sorted() && files.is_sorted(), "{names:?}");
    Ok(names)
}

fn the_same_program_gives_the_same_bytes() -> Result<()> {
    let first = artifacts()?;
    let folder = tempfile::tempdir()?;
    let second = dist::make(&first.program, folder.path(), TIME)?;
    ensure!(fs::read_to_string(&first.sums)? == fs::read_to_string(&second.sums)?);
    Ok(())
}

fn checksums_are_those_of_the_files() -> Result<()> {
    let artifacts = artifacts()?;
    let checked = capture(
        Command::new("sha256sum")
            .args(["--check", "--strict", dist::SUMS])
            .current_dir(&artifacts.folder),
    )?;
    let files = fs::read_dir(&artifacts.folder)?.count();
    ensure!(checked.lines().count() == files - 1 && files == 5, "{checked}");
    Ok(())
}

fn the_archive_holds_everything() -> Result<()> {
    let artifacts = artifacts()?;
    let names = expect_reproducible(&artifacts.archive)?;
    let top = format!("headroom-{VERSION}-x86_64-linux/");
    for file in [
        "headroom",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "completions/headroom.bash",
        "completions/_headroom",
        "completions/headroom.fish",
        "man/headroom.1",
        "man/headroom-record.1",
        "man/headroom-watch.1",
        "docs/sizing.md",
        "deploy/headroom.service",
    ] {
        ensure!(names.contains(&format!("{top}{file}")), "no {file} in {names:?}");
    }
    Ok(())
}

/// A root of files with nothing in it but the program of the archive.
fn bare_root() -> Result<TempDir> {
    let unpacked = unpack(&artifacts()?.archive)?;
    let root = tempfile::tempdir()?;
    let program = unpacked
        .path()
        .join(format!("headroom-{VERSION}-x86_64-linux/headroom"));
    // What the tests in VMs run as their only file.
    ensure!(
        fs::read(&program)? == fs::read(binaries()?.headroom())?,
        "another program"
    );
    fs::copy(program, root.path().join("headroom"))?;
    Ok(root)
}

fn the_program_runs_where_there_is_nothing_else() -> Result<()> {
    let root = bare_root()?;
    let said = say("chroot", &[text(root.path()), "/headroom", "--version"])?;
    ensure!(said.trim() == format!("headroom {VERSION}"), "{said}");
    let sizes = say(
        "chroot",
        &[text(root.path()), "/headroom", "size", "--memory", "2Gi", "--cpus", "1"],
    )?;
    ensure!(sizes.contains("MiB"), "{sizes}");
    // Without /proc and /sys it says what it misses, and with them it traces.
    let blind = Command::new("chroot")
        .arg(root.path())
        .args(["/headroom", "doctor"])
        .output()?;
    let said = String::from_utf8_lossy(&blind.stderr).into_owned();
    ensure!(
        blind.status.code() == Some(3) && said.contains("/proc/self/mountinfo"),
        "{said}"
    );
    let script = "mkdir $0/proc $0/sys && mount --rbind /proc $0/proc && mount --rbind /sys $0/sys && \
                  exec chroot $0 /headroom doctor --json";
    let found = say("unshare", &["--mount", "sh", "-c", script, text(root.path())])?;
    let found: Value = serde_json::from_str(&found)?;
    ensure!(found["ok"] == true, "{found}");
    Ok(())
}

fn bash_completes_what_the_archive_has() -> Result<()> {
    let unpacked = unpack(&artifacts()?.archive)?;
    let file = unpacked
        .path()
        .join(format!("headroom-{VERSION}-x86_64-linux/completions/headroom.bash"));
    let script = format!(
        "source {} && COMP_WORDS=(headroom re) COMP_CWORD=1 && _headroom headroom re headroom && echo ${{COMPREPLY[*]}}",
        file.display()
    );
    let words = say("bash", &["-c", &script])?;
    ensure!(
        words.contains("record") && words.contains("report") && !words.contains("watch"),
        "{words}"
    );
    Ok(())
}

fn debian_takes_the_package() -> Result<()> {
    let package = &artifacts()?.package;
    let fields: BTreeMap<String, String> = say("dpkg-deb", &["--field", text(package)])?
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let field = |name: &str| fields.get(name).map(String::as_str);
    ensure!(
        field("Package") == Some("headroom") && field("Version") == Some(VERSION),
        "{fields:?}"
    );
    ensure!(
        field("Architecture") == Some("amd64") && field("Depends").is_none(),
        "{fields:?}"
    );
    say("dpkg-deb", &["--info", text(package)])?;

    let folder = tempfile::tempdir()?;
    say("dpkg-deb", &["--raw-extract", text(package), text(folder.path())])?;
    let sums = capture(
        Command::new("md5sum")
            .args(["--check", "--strict", "DEBIAN/md5sums"])
            .current_dir(folder.path()),
    )?;
    let contents = say("dpkg-deb", &["--contents", text(package)])?;
    let files: Vec<&str> = contents.lines().filter(|line| !line.starts_with('d')).collect();
    ensure!(sums.lines().count() == files.len(), "{sums} {contents}");
    for line in contents.lines() {
        ensure!(
            line.contains(" root/root ") && line.contains("2026-01-02 03:04"),
            "{line}"
        );
    }
    for (path, mode) in [
        ("usr/bin/headroom", "-rwxr-xr-x"),
        ("usr/share/bash-completion/completions/headroom", "-rw-r--r--"),
        ("usr/share/zsh/vendor-completions/_headroom", "-rw-r--r--"),
        ("usr/share/fish/vendor_completions.d/headroom.fish", "-rw-r--r--"),
        ("usr/share/man/man1/headroom-record.1.gz", "-rw-r--r--"),
        ("usr/lib/systemd/system/headroom.service", "-rw-r--r--"),
        ("usr/share/doc/headroom/copyright", "-rw-r--r--"),
    ] {
        let line = files.iter().find(|line| line.ends_with(&format!(" {path}")));
        ensure!(line.is_some_and(|line| line.starts_with(mode)), "{path}: {contents}");
    }
    let kib: u64 = field("Installed-Size").context("no size")?.parse()?;
    let program = fs::metadata(folder.path().join("usr/bin/headroom"))?.len() / 1024;
    ensure!(
        kib > program && kib < program + 4096,
        "{kib} KiB, the program has {program}"
    );
    let page = say(
        "gzip",
        &["-dc", text(&folder.path().join("usr/share/man/man1/headroom.1.gz"))],
    )?;
    ensure!(page.contains(".TH headroom 1"), "{page}");
    for script in ["postinst", "prerm", "postrm"] {
        say("sh", &["-n", text(&folder.path().join("DEBIAN").join(script))])?;
    }
    Ok(())
}

/// The package's files, where they would be installed.
fn installed() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    say(
        "dpkg-deb",
        &["--extract", text(&artifacts()?.package), text(folder.path())],
    )?;
    Ok(folder)
}

/// systemd knows every line of the unit, and finds little that it could still do without.
fn systemd_takes_the_unit() -> Result<()> {
    let root = installed()?;
    let option = format!("--root={}", root.path().display());
    // What the unit is part of.
    let units = root.path().join("usr/lib/systemd/system");
    for target in [
        "sysinit.target",
        "basic.target",
        "shutdown.target",
        "multi-user.target",
        "local-fs.target",
    ] {
        fs::write(units.join(target), "[Unit]\nDefaultDependencies=no\n")?;
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", &option, "headroom.service"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.is_empty(), "{said}");
    let output = Command::new("systemd-analyze")
        .args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=50",
            &option,
            "headroom.service",
        ])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// A blob of the layout, which is what its digest and size say.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    let hex = digest.strip_prefix("sha256:").context("another digest")?;
    let path = layout.join("blobs/sha256").join(hex);
    ensure!(say("sha256sum", &[text(&path)])?.starts_with(hex), "{digest}");
    ensure!(
        Some(fs::metadata(&path)?.len()) == descriptor["size"].as_u64(),
        "{descriptor}"
    );
    Ok(path)
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(path)?).with_context(|| format!("{}", path.display()))
}

fn the_image_is_a_layout_whose_digests_hold() -> Result<()> {
    let image = &artifacts()?.image;
    expect_reproducible(image)?;
    let layout = unpack(image)?;
    let layout = layout.path();
    ensure!(json(&layout.join("oci-layout"))?["imageLayoutVersion"] == "1.0.0");
    let index = json(&layout.join("index.json"))?;
    let manifests = index["manifests"].as_array().context("no manifests")?;
    let [manifest] = manifests.as_slice() else {
        anyhow::bail!("{index}");
    };
    let manifest = json(&blob(layout, manifest)?)?;
    let config = json(&blob(layout, &manifest["config"])?)?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    let [layer] = layers.as_slice() else {
        anyhow::bail!("{manifest}");
    };
    let layer = blob(layout, layer)?;
    ensure!(
        fs::read_dir(layout.join("blobs/sha256"))?.count() == 3,
        "blobs that nothing names"
    );

    let tree = tempfile::NamedTempFile::new()?;
    fs::write(
        tree.path(),
        Command::new("gzip").arg("-dc").arg(&layer).output()?.stdout,
    )?;
    let sum = say("sha256sum", &[text(tree.path())])?;
    let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap_or_default());
    ensure!(config["rootfs"]["diff_ids"] == serde_json::json!([digest]), "{config}");
    ensure!(config["architecture"] == "amd64" && config["os"] == "linux", "{config}");
    ensure!(config["created"] == "2026-01-02T03:04:05Z", "{config}");
    let entry = config["config"]["Entrypoint"][0].as_str().context("no entry point")?;
    let names = expect_reproducible(tree.path())?;
    ensure!(names.contains(&entry.trim_start_matches('/').to_owned()), "{names:?}");

    let root = unpack(tree.path())?;
    let said = say("chroot", &[text(root.path()), entry, "--version"])?;
    ensure!(said.trim() == format!("headroom {VERSION}"), "{said}");
    Ok(())
}
