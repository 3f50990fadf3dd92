//! Kernel modules, compressed or not.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// Has the kernel unpack the module itself (kernel: include/uapi/linux/module.h, from 5.17); libc does not name it.
const MODULE_INIT_COMPRESSED_FILE: libc::c_uint = 4;

/// Loads modules; one that is there already is fine. Which one needs which differs between kernels: one that lacks
/// another's symbols gets its turn again after the others.
pub fn load(modules: &[String]) -> Result<()> {
    let mut waiting: Vec<&String> = modules.iter().collect();
    while !waiting.is_empty() {
        let mut refused = Vec::new();
        for &path in &waiting {
            match load_one(Path::new(path)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(Errno::ENOENT) => refused.push(path),
                Err(errno) => return Err(errno).with_context(|| format!("cannot load {path}")),
            }
        }
        if refused.len() == waiting.len() {
            bail!("modules lack symbols or are missing: {refused:?}");
        }
        waiting = refused;
    }
    Ok(())
}

fn load_one(path: &Path) -> nix::Result<()> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    if path.extension().is_some_and(|extension| extension == "ko") {
        return init_module(&std::fs::read(path).map_err(errno)?, c"");
    }
    let file = File::open(path).map_err(errno)?;
    finit_module(
        file.as_fd(),
        c"",
        ModuleInitFlags::from_bits_retain(MODULE_INIT_COMPRESSED_FILE),
    )
}
