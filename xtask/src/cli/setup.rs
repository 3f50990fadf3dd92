//! `cargo xtask setup`.

use anyhow::Result;
use clap::Args;
use xtask::setup;
use xtask::vm::DEFAULT_KERNEL;

/// Install what the build and the tests need: rust-src, bpf-linker, QEMU, a kernel, a browser, tmux, zstd, jq, readers
/// of exports, Prometheus.
#[derive(Debug, Args)]
pub struct Setup {
    /// Fetch the newest kernel even if there is one.
    #[arg(long)]
    update: bool,
}

impl Setup {
    pub fn run(&self) -> Result<()> {
        setup::ebpf()?;
        if self.update {
            setup::update_kernel(DEFAULT_KERNEL)?;
        }
        setup::observers()?;
        let kernel = setup::vm(DEFAULT_KERNEL)?;
        setup::browser()?;
        setup::readers()?;
        setup::kubernetes()?;
        setup::prometheus()?;
        eprintln!("setup: all is there; VMs boot {}", kernel.release);
        Ok(())
    }
}
