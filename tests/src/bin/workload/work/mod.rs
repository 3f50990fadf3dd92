//! The workloads: each with its actor's side and what its stage needs.

mod anon;
mod collapse;
mod file;
mod hugetlb;
mod kernel;
mod kvm;
mod limits;
mod live;
mod loop_device;
mod migrate;
mod nested;
mod remote;
mod shmem;
mod socket;
mod swap;

use std::process::ExitStatus;

use anyhow::{Result, bail, ensure};
use headroom::recording::event::Event;

use crate::stage::Stage;

/// A workload.
pub trait Workload {
    /// What the actor does, in the memcg.
    fn act(&self) -> Result<()>;

    /// Makes ready before the recorder starts. Says so when this kernel lacks what the workload is about.
    fn prepare(&mut self, _stage: &mut Stage) -> Result<Option<String>> {
        Ok(None)
    }

    /// Options that the recorder gets.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Does something from outside after a standstill of the actor.
    fn after(&mut self, _stage: &mut Stage, _phase: &str) -> Result<()> {
        Ok(())
    }

    /// Looks at the actor's end, while it is still recorded.
    fn ended(&mut self, _stage: &mut Stage, status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "the actor failed: {status}");
        Ok(())
    }

    /// Checks more in the whole recording.
    fn finish(&self, _stage: &mut Stage, _events: &[Event]) -> Result<()> {
        Ok(())
    }
}

/// The workload of this name.
pub fn find(name: &str) -> Result<Box<dyn Workload>> {
    Ok(match name {
        "anon" => Box::new(anon::Small),
        "thp" => Box::new(anon::Huge),
        "thp-off" => Box::new(anon::HugeForbidden::default()),
        "fork" => Box::new(anon::Fork),
        "exit" => Box::new(anon::Exit),
        "shmem" => Box::new(shmem::Memfd),
        "file" => Box::new(file::File),
        "swap" => Box::new(swap::Swap::file()),
        "swap-zram" => Box::new(swap::Swap::zram()),
        "migrate" => Box::new(migrate::Migrate::default()),
        "collapse" => Box::new(collapse::Advised),
        "khugepaged" => Box::new(collapse::Khugepaged),
        "high" => Box::new(limits::High),
        "limit" => Box::new(limits::Limit),
        "oom-group" => Box::new(limits::OomGroup),
        "nested" => Box::new(nested::Nested::default()),
        "remote" => Box::new(remote::Remote),
        "io-uring" => Box::new(remote::Ring),
        "loop" => Box::new(loop_device::LoopDevice::default()),
        "socket" => Box::new(socket::Sockets),
        "hugetlb" => Box::new(hugetlb::Hugetlb::default()),
        "kernel" => Box::new(kernel::KernelMemory),
        "kvm" => Box::new(kvm::VirtualMachine),
        "live" => Box::new(live::Live),
        "live-overflow" => Box::new(live::Overflow),
        _ => bail!("there is no workload {name}"),
    })
}
