//! What is run on every kernel: workloads whose bytes must be conserved, cycles of attaching, and the lab.

use std::time::Duration;

use super::{Cgroup, Vm};
use crate::build::Binaries;

/// All workloads of the program `workload` (crate headroom-tests), in the order in which they are run.
pub const WORKLOADS: [&str; 25] = [
    "anon",
    "thp",
    "thp-off",
    "shmem",
    "file",
    "fork",
    "exit",
    "swap",
    "swap-zram",
    "migrate",
    "collapse",
    "khugepaged",
    "high",
    "limit",
    "oom-group",
    "nested",
    "remote",
    "io-uring",
    "loop",
    "socket",
    "hugetlb",
    "kernel",
    "kvm",
    "live",
    "live-overflow",
];

/// How often is attached and detached: under load each time takes seconds in an emulated machine.
const CYCLE_COUNT: &str = "100";

/// Attaching and detaching, the killed recorder.
pub const CYCLES: &str = "cycles";

/// Scenarios of `headroom lab` that stand-ins play.
pub const STAND_INS: [&[&str]; 7] = [
    &["memhold"],
    &["daemon-leak"],
    &["backup-io"],
    &["kernel-memory"],
    &["vcpu-overhead"],
    &["worker-storm"],
    &["guest-only"],
];

/// Those with a real QEMU on the VM's own KVM, and guest RAM in transparent huge pages, which is the default, in
/// memfds, and in huge pages.
pub const REAL: [&[&str]; 5] = [
    &["memhold", "--real"],
    &["memhold", "--real", "--memory", "memfd"],
    &["memhold", "--real", "--memory", "hugepages"],
    &["backup-io", "--real", "--cache", "writeback"],
    &["backup-io", "--real", "--cache", "none"],
];

/// A kernel, a version of memory cgroups, and what counts the charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The kernel line.
    pub kernel: String,
    /// v1 or v2.
    pub cgroup: Cgroup,
    /// As `headroom record --backend` takes it.
    pub backend: String,
}

impl Cell {
    /// A cell.
    #[must_use]
    pub fn new(kernel: &str, cgroup: Cgroup, backend: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            cgroup,
            backend: backend.to_owned(),
        }
    }

    /// A VM for `what` on this cell, which has its own folder below `target/vm`.
    fn vm(&self, what: &str) -> Vm {
        let name = format!("{what}-{}-{}-{}", self.kernel, self.cgroup, self.backend);
        Vm::new(&name.to_lowercase()).kernel(&self.kernel).cgroup(self.cgroup)
    }

    /// A VM that plays these workloads, or [`CYCLES`].
    #[must_use]
    pub fn workloads(&self, what: &str, binaries: &Binaries, names: &[&str]) -> Vm {
        let vm = self
            .vm(what)
            .memory_mib(2048)
            // Pages can migrate.
            .numa_nodes(2)
            .disk(true)
            .module("mm/zsmalloc")
            .module("lib/lz4/lz4_compress")
            .module("lib/lz4/lz4hc_compress")
            .module("crypto/lzo")
            .module("crypto/lzo-rle")
            .module("drivers/block/zram/zram")
            .module("drivers/block/loop")
            .kvm()
            .file(binaries.workload(), "/bin/workload")
            .env("HEADROOM_BINARIES", "/bin")
            .timeout(Duration::from_secs(if names.contains(&CYCLES) { 5400 } else { 2400 }));
        names.iter().fold(vm, |vm, name| {
            let words: &[&str] = if *name == CYCLES {
                &["cycles", CYCLE_COUNT]
            } else {
                &["check", name]
            };
            let words = words.iter().copied().chain([self.backend.as_str()]);
            vm.command(std::iter::once("/bin/workload").chain(words))
        })
    }

    /// A VM that plays these scenarios of the lab.
    #[must_use]
    pub fn lab(&self, what: &str, scenarios: &[&[&str]]) -> Vm {
        let real = scenarios.iter().any(|words| words.contains(&"--real"));
        let huge = scenarios.iter().any(|words| words.contains(&"hugepages"));
        let vm = self.vm(what).real(real).timeout(Duration::from_secs(1200));
        // Guest RAM of 448 MiB, and what is left is as much as without.
        let vm = if huge { vm.hugepages(240).memory_mib(2560) } else { vm };
        scenarios.iter().fold(vm, |vm, words| {
            let options = ["--json", "--backend", self.backend.as_str()];
            vm.command(["/bin/headroom", "lab"].iter().chain(*words).chain(&options).copied())
        })
    }
}
