//! A Debian package: an ar archive of a format version, a control archive and a data archive (deb(5)).

use std::fmt::Write as _;

use anyhow::Result;
use md5::{Digest as _, Md5};

use super::archive::{Entry, gzip, tar};
use super::hex;

/// What the package is called and says of itself.
const CONTROL: &str = "\
Package: headroom
Version: {version}
Architecture: amd64
Maintainer: headroom developers <headroom@localhost>
Installed-Size: {size}
Section: admin
Priority: optional
Description: which thread is eating a VM pod's memory headroom
 Attaches eBPF programs to the charge paths of memory cgroups, tells guest RAM
 from overhead page by page, and says which thread of which process of a
 KubeVirt or Harvester VM pod charged the rest, before the kernel kills the VM.
 It leaves a recording for the postmortem.
 .
 The program is one static file. The service is not enabled by itself.
";

/// The unit is there to be enabled; what systemd knows of it must only be current.
const RELOAD: &str = "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
const STOP: &str = "if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then systemctl stop headroom.service; fi\n";

/// The package with these files.
///
/// # Errors
/// When a file does not fit into an archive.
pub fn package(files: &[Entry], version: &str, time: u64) -> Result<Vec<u8>> {
    let control = control(files, version);
    let members: [(&str, Vec<u8>); 3] = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&tar(&control, time)?)?),
        ("data.tar.gz", gzip(&tar(files, time)?)?),
    ];
    let mut package = ar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = ar::Header::new(name.into(), data.len().try_into()?);
        header.set_mode(0o100_644);
        header.set_mtime(time);
        package.append(&header, data.as_slice())?;
    }
    Ok(package.into_inner()?)
}

fn control(files: &[Entry], version: &str) -> Vec<Entry> {
    let kib: usize = files.iter().map(|file| file.data.len().div_ceil(1024)).sum();
    let text = CONTROL
        .replace("{version}", version)
        .replace("{size}", &kib.to_string());
    let mut sums = String::new();
    for file in files {
        // A String takes everything.
        let _ = writeln!(sums, "{}  {}", hex(&Md5::digest(&file.data)), file.path);
    }
    let script = |lines: &str| format!("#!/bin/sh\nset -e\n{lines}");
    vec![
        Entry::file("control", text),
        Entry::file("md5sums", sums),
        Entry::program("postinst", script(RELOAD)),
        Entry::program("prerm", script(STOP)),
        Entry::program("postrm", script(RELOAD)),
    ]
}
