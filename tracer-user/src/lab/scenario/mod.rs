//! The scenarios.

mod backup_io;
mod daemon_leak;
mod guest_only;
mod kernel_memory;
mod memhold;
mod vcpu_overhead;
mod worker_storm;

use std::path::PathBuf;

use super::actor::spec::{Backend, GuestRam, Step};
use super::cast;
use super::plan::{Culprit, MIB, Member, Plan};
use super::real::{Qemu, Task};
use super::tree::{Identity, Version};
use crate::role::Role;
use crate::units::Bytes;

/// How fast guests fill their RAM, bytes per second, where the scenario is not about that.
const GUEST_RATE: u64 = 128 * MIB;

/// A case to reproduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// A helper holds memory while the guest fills its RAM: a vCPU invokes the kill, QEMU dies, the helper is to blame
    Memhold,
    /// virtqemud leaks slowly until QEMU is killed
    DaemonLeak,
    /// Block workers and an iothread push page cache and heap, as during a backup; no kill
    BackupIo,
    /// A helper grows by page tables, sockets and pipes only; no kill
    KernelMemory,
    /// A vCPU thread itself is charged for overhead until QEMU is killed
    VcpuOverhead,
    /// Hundreds of worker threads that live for milliseconds leave memory behind; no kill
    WorkerStorm,
    /// The guest fills its RAM within the budget: nobody is to blame, no kill
    GuestOnly,
}

impl Scenario {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What a scenario is made with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Limit of the container; the scenario's own when absent.
    pub limit: Option<u64>,
    /// Size of guest RAM; the scenario's own when absent.
    pub guest: Option<u64>,
    /// Growth of whoever is to blame, bytes per second; the scenario's own when absent.
    pub rate: Option<u64>,
    /// What backs guest RAM.
    pub backend: Backend,
    /// Names of the pod.
    pub identity: Identity,
    /// Hierarchy of the memory controller: decides what the kernel charges.
    pub version: Version,
    /// Whether huge pages of hugetlbfs are charged to memcgs.
    pub hugetlb_charged: bool,
    /// A folder for files that the pod writes.
    pub folder: PathBuf,
    /// A real QEMU to play QEMU.
    pub qemu: Option<Qemu>,
}

/// What was asked for does not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The processes do not start within the limit, or the guest is too small to be the largest of them.
    #[error("{what} of {} is too small for this scenario: it takes at least {}", Bytes(*asked), Bytes(*least))]
    TooSmall {
        /// Limit or guest.
        what: &'static str,
        /// What was asked for.
        asked: u64,
        /// The least that works.
        least: u64,
    },
    /// A real QEMU cannot be told to do this.
    #[error("only memhold, backup-io and guest-only run with a real QEMU: leave --real out")]
    StandInsOnly,
}

/// Settles the sizes of a scenario.
///
/// # Errors
/// When the limit leaves no room for it, or it takes stand-ins.
pub fn plan(scenario: Scenario, setting: &Setting) -> Result<Plan, PlanError> {
    let real = matches!(scenario, Scenario::Memhold | Scenario::BackupIo | Scenario::GuestOnly);
    if setting.qemu.is_some() && !real {
        return Err(PlanError::StandInsOnly);
    }
    let plan = match scenario {
        Scenario::Memhold => memhold::plan(setting),
        Scenario::DaemonLeak => daemon_leak::plan(setting),
        Scenario::BackupIo => backup_io::plan(setting),
        Scenario::KernelMemory => kernel_memory::plan(setting),
        Scenario::VcpuOverhead => vcpu_overhead::plan(setting),
        Scenario::WorkerStorm => worker_storm::plan(setting),
        Scenario::GuestOnly => guest_only::plan(setting),
    }?;
    let own = setting.limit.is_none() && setting.guest.is_none();
    Ok(Plan {
        expect: plan.expect.filter(|_| own),
        ..plan
    })
}

/// What the stand-ins take before they have done anything, and more.
const LEAST_LIMIT: u64 = 64 * MIB;

/// Sizes that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    guest: u64,
    limit: u64,
}

impl Setting {
    /// Neither changes with the other: another limit is a larger or smaller reserve for the same load, and a smaller
    /// guest leaves more of the same limit.
    fn sizes(&self, guest: u64, budget: u64, least_guest: u64) -> Result<Sizes, PlanError> {
        let enough = |what, asked, least| {
            if asked < least {
                return Err(PlanError::TooSmall { what, asked, least });
            }
            Ok(asked)
        };
        // Where guest RAM is not charged, the limit is for the overhead alone.
        let own = if self.guest_charged() { guest + budget } else { budget };
        let limit = enough("a limit", self.limit.unwrap_or(own), LEAST_LIMIT)?;
        let guest = enough("a guest", self.guest.unwrap_or(guest), least_guest)?;
        // Guest RAM comes in huge pages.
        let guest = guest / (2 * MIB) * (2 * MIB);
        Ok(Sizes { guest, limit })
    }

    /// Whether guest RAM is charged to the container.
    #[must_use]
    pub fn guest_charged(&self) -> bool {
        self.backend != Backend::Hugepages || self.hugetlb_charged
    }

    fn rate(&self, default: u64) -> u64 {
        self.rate.unwrap_or(default)
    }

    fn ram(&self, bytes: u64) -> GuestRam {
        GuestRam {
            bytes,
            backend: self.backend,
        }
    }

    /// QEMU filling guest RAM in phase 1: a real one, or a stand-in.
    fn filling(&self, guest: u64, rate: u64) -> Member {
        let fill = Task::Touch { until: guest, rate };
        self.real(guest, &[fill])
            .unwrap_or_else(|| self.filling_qemu(guest, 1, rate))
    }

    /// A real QEMU doing one task per phase, when there is one.
    fn real(&self, guest: u64, tasks: &[Task]) -> Option<Member> {
        let qemu = self.qemu.as_ref()?;
        Some(qemu.member(self.ram(guest), tasks, &self.folder))
    }

    /// A stand-in QEMU whose vCPUs fill guest RAM in this phase, each its part.
    fn filling_qemu(&self, guest: u64, phase: u32, rate: u64) -> Member {
        let each = guest / u64::from(cast::VCPUS);
        (0..cast::VCPUS).fold(cast::qemu(self.ram(guest)), |qemu, vcpu| {
            qemu.with(&format!("CPU {vcpu}/KVM"), |thread| {
                thread.then(
                    phase,
                    Step::Guest {
                        offset: u64::from(vcpu) * each,
                        bytes: each,
                        rate: rate / u64::from(cast::VCPUS),
                    },
                )
            })
        })
    }

    /// The helpers of every pod, then the others.
    fn cast(&self, others: impl IntoIterator<Item = Member>) -> Vec<Member> {
        let mut cast = cast::helpers(&self.identity);
        for other in others {
            // One with work takes the place of its idle self.
            match cast.iter_mut().find(|member| member.name == other.name) {
                Some(member) => *member = other,
                None => cast.push(other),
            }
        }
        cast
    }
}

fn culprit(process: &str, role: Role) -> Option<Culprit> {
    Some(Culprit {
        process: process.to_owned(),
        role,
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::lab::plan::Program;

    fn setting(limit: Option<u64>, guest: Option<u64>) -> Setting {
        Setting {
            limit,
            guest,
            rate: None,
            backend: Backend::Ram,
            identity: Identity::random().expect("/proc is mounted"),
            version: Version::V1,
            hugetlb_charged: false,
            folder: "/nowhere".into(),
            qemu: None,
        }
    }

    fn steps(plan: &Plan) -> impl Iterator<Item = &Step> {
        plan.cast.iter().flat_map(|member| {
            let Program::StandIn(spec) = &member.program else {
                panic!("{} is no stand-in", member.name)
            };
            spec.threads
                .iter()
                .flat_map(|thread| thread.work.iter().map(|work| &work.step))
        })
    }

    fn asked(step: &Step) -> u64 {
        match step {
            Step::Storm {
                threads, bytes_each, ..
            } => threads * bytes_each,
            Step::Guest { bytes, .. }
            | Step::Heap { bytes, .. }
            | Step::Leak { bytes, .. }
            | Step::File { bytes, .. }
            | Step::PageTables { bytes, .. }
            | Step::UnixSockets { bytes }
            | Step::TcpSockets { bytes, .. }
            | Step::Pipes { bytes } => *bytes,
        }
    }

    #[test]
    fn those_that_kill_ask_for_more_than_the_limit_and_the_others_for_less() {
        for scenario in Scenario::value_variants() {
            let plan = plan(*scenario, &setting(None, None)).expect("its own limit suits it");
            let total: u64 = steps(&plan).map(asked).sum();
            let kill = plan.expect.as_ref().is_some_and(|expect| expect.kill.is_some());
            assert_eq!(total > plan.limit, kill, "{}", scenario.name());
            assert!(plan.limit <= 700 * MIB);
            let guest: u64 = steps(&plan)
                .filter(|step| matches!(step, Step::Guest { .. }))
                .map(asked)
                .sum();
            assert_eq!(guest, plan.guest_ram, "{}", scenario.name());
        }
    }

    #[test]
    fn the_kernel_finds_no_larger_victim_than_qemu() {
        for scenario in Scenario::value_variants() {
            let plan = plan(*scenario, &setting(None, None)).expect("its own limit suits it");
            let heap: u64 = steps(&plan)
                .filter(|step| matches!(step, Step::Heap { .. }))
                .map(asked)
                .sum();
            assert!(heap + 64 * MIB < plan.guest_ram, "{}", scenario.name());
        }
    }

    #[test]
    fn what_is_too_small_is_refused_with_the_least_that_works() {
        for scenario in Scenario::value_variants() {
            let least = |setting: &Setting| match plan(*scenario, setting) {
                Err(PlanError::TooSmall { least, .. }) => least,
                other => panic!("{} has no room: {other:?}", scenario.name()),
            };
            let limit = least(&setting(Some(MIB), None));
            let guest = least(&setting(None, Some(MIB)));
            let plan = plan(*scenario, &setting(Some(limit), Some(guest))).expect("the least works");
            assert!(plan.guest_ram > 0);
            assert_eq!(plan.limit, limit);
        }
    }

    #[test]
    fn beside_a_guest_in_huge_pages_the_helper_is_the_largest() {
        let huge = |hugetlb_charged| Setting {
            backend: Backend::Hugepages,
            hugetlb_charged,
            ..setting(None, None)
        };
        let victim = |setting: &Setting| {
            let plan = plan(Scenario::Memhold, setting).expect("its own limit suits it");
            (plan.limit / MIB, plan.expect.and_then(|expect| expect.kill))
        };
        assert_eq!(victim(&huge(false)), (240, Some("memhold")));
        assert_eq!(victim(&huge(true)), (688, Some("qemu")));
    }

    #[test]
    fn another_limit_leaves_the_load_as_it_is() {
        for scenario in Scenario::value_variants() {
            let own = plan(*scenario, &setting(None, None)).expect("its own limit suits it");
            let other = plan(*scenario, &setting(Some(own.limit * 2), None)).expect("more is enough");
            let asked = |plan: &Plan| steps(plan).map(asked).sum::<u64>();
            assert_eq!(asked(&own), asked(&other), "{}", scenario.name());
            // Nobody can say beforehand what comes of it.
            assert!(own.expect.is_some() && other.expect.is_none());
        }
    }
}
