//! Which pods are watched, and what the kernel side is told of them.

use std::collections::{HashMap, HashSet};

use tracer_common::Watched;

use crate::node::pods::VmPod;
use crate::node::target::Target;
use crate::node::{Memcg, Node};
use crate::probe::{ProbeError, Tracer, boot_ns};
use crate::recording::event::{Pod, Sample};

/// What to watch.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every VM pod, also those that start later.
    All,
    /// These.
    Pods(Vec<VmPod>),
    /// Whatever pods these stand for, also those that start later.
    Targets(Vec<Target>),
}

/// What a memcg's files showed right after a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillFiles {
    /// Time of the kill, CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// Number of the pod.
    pub pod: u32,
    /// Path of the memcg, below the memory controller's root.
    pub cgroup: String,
    /// Contents by file name.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// A pod whose QEMU or guest RAM was not found in so many looks is no longer looked at ten times a second: it may be
/// none of a VM. Each new QEMU gets as many.
const LOOKS: u32 = 100;

/// A watched pod.
struct WatchedPod {
    pod: VmPod,
    event: Pod,
    /// How often it was looked at since it, or its QEMU, was new.
    looks: u32,
}

impl WatchedPod {
    const fn waits(&self) -> bool {
        !self.event.gone && self.event.guest_ram == 0 && self.looks < LOOKS
    }
}

/// The watched pods.
pub struct Targets {
    scope: Scope,
    pods: Vec<WatchedPod>,
    by_memcg: HashMap<u64, u32>,
    told_memcgs: HashMap<u64, Watched>,
    told_files: HashSet<tracer_common::FileKey>,
    /// Watched no more since somebody last asked.
    left: Vec<u64>,
}

impl Targets {
    /// Nothing is watched before the first [`Targets::refresh`].
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            pods: Vec::new(),
            by_memcg: HashMap::new(),
            told_memcgs: HashMap::new(),
            told_files: HashSet::new(),
            left: Vec::new(),
        }
    }

    /// Numbers of the pods by cgroup id.
    #[must_use]
    pub const fn by_memcg(&self) -> &HashMap<u64, u32> {
        &self.by_memcg
    }

    /// Whether some pod still waits for its QEMU or its guest RAM.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        self.pods.iter().any(WatchedPod::waits)
    }

    /// Whether there is nothing left to watch: every given target is gone.
    #[must_use]
    pub fn all_gone(&self) -> bool {
        matches!(self.scope, Scope::Pods(_)) && !self.pods.is_empty() && self.pods.iter().all(|pod| pod.event.gone)
    }

    /// Looks at the node again and tells the kernel side what changed. Returns the pods to announce.
    ///
    /// # Errors
    /// When the kernel side's maps are full.
    pub fn refresh(&mut self, node: &Node, tracer: &mut Tracer) -> Result<Vec<Pod>, ProbeError> {
        let mut changed = Vec::new();
        for index in 0..self.pods.len() {
            let watched = &self.pods[index];
            if watched.event.gone {
                continue;
            }
            match node.refresh(&watched.pod) {
                Some(pod) => self.update(index, pod, tracer, &mut changed)?,
                None => {
                    self.forget(index, tracer)?;
                    changed.push(self.pods[index].event.clone());
                }
            }
        }
        for pod in self.new_pods(node) {
            let index = self.pods.len();
            self.pods.push(WatchedPod {
                pod: pod.clone(),
                event: Pod::default(),
                looks: 0,
            });
            self.update(index, pod, tracer, &mut changed)?;
        }
        Ok(changed)
    }

    fn new_pods(&self, node: &Node) -> Vec<VmPod> {
        let found = match &self.scope {
            Scope::Pods(pods) if self.pods.is_empty() => return pods.clone(),
            Scope::Pods(_) => return Vec::new(),
            Scope::All => node.pods(),
            Scope::Targets(targets) => node.resolve_present(targets),
        };
        let known: HashSet<u64> = self.live().map(|watched| watched.pod.top.id).collect();
        found.into_iter().filter(|pod| !known.contains(&pod.top.id)).collect()
    }

    fn update(
        &mut self,
        index: usize,
        pod: VmPod,
        tracer: &mut Tracer,
        changed: &mut Vec<Pod>,
    ) -> Result<(), ProbeError> {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let mut event = pod.to_event(number);
        let before = &self.pods[index].event;
        if event.guest_ram == 0 && before.guest_ram != 0 && event.qemu_pid == 0 {
            // QEMU is gone, what it was is not forgotten.
            event.guest_ram = before.guest_ram;
            event.shape = before.shape;
        }
        // Guest RAM first: from its first watched charge on, a page is told apart.
        if let (Some(qemu), Some(guest)) = (pod.qemu, &pod.guest) {
            let ranges: Vec<(u64, u64)> = guest.ranges.iter().map(|range| (range.start, range.end)).collect();
            if !ranges.is_empty() {
                let told = tracer.set_guest_ranges(qemu, &ranges);
                let left_out = unless_full(told, &pod, "its guest RAM counts as overhead")?.unwrap_or(0);
                if left_out > 0 {
                    log::warn!(
                        "guest RAM of {} has {left_out} ranges too many: those count as overhead",
                        pod.label()
                    );
                }
            }
            for file in &guest.files {
                if self.told_files.insert(*file) {
                    unless_full(tracer.add_guest_file(*file), &pod, "its guest RAM counts as overhead")?;
                }
            }
        }
        for memcg in &pod.memcgs {
            let value = Watched {
                qemu_tgid: pod.qemu.unwrap_or(0),
                pod: number,
            };
            if self.told_memcgs.insert(memcg.id, value) != Some(value) {
                unless_full(tracer.watch(memcg.id, value), &pod, "one of its cgroups is not traced")?;
            }
            self.by_memcg.insert(memcg.id, number);
        }
        if event != self.pods[index].event {
            changed.push(event.clone());
        }
        let before = &self.pods[index];
        let looks = if event.qemu_pid == before.event.qemu_pid {
            before.looks.saturating_add(1)
        } else {
            0
        };
        let before = std::mem::replace(&mut self.pods[index], WatchedPod { pod, event, looks });
        self.leave(&before.pod, Some(index), tracer)
    }

    fn forget(&mut self, index: usize, tracer: &mut Tracer) -> Result<(), ProbeError> {
        self.pods[index].event.gone = true;
        let before = self.pods[index].pod.clone();
        self.leave(&before, None, tracer)
    }

    /// Takes back what the kernel side was told of a pod and what does not hold of it as it is `now`: its maps have room
    /// for what is there, not for all that ever was.
    fn leave(&mut self, before: &VmPod, now: Option<usize>, tracer: &mut Tracer) -> Result<(), ProbeError> {
        let now = now.map(|index| &self.pods[index].pod);
        let stays = |id: u64| now.is_some_and(|pod| pod.memcgs.iter().any(|memcg| memcg.id == id));
        for memcg in before.memcgs.iter().filter(|memcg| !stays(memcg.id)) {
            self.told_memcgs.remove(&memcg.id);
            tracer.unwatch(memcg.id)?;
            self.left.push(memcg.id);
        }
        if let Some(qemu) = before.qemu.filter(|qemu| now.and_then(|pod| pod.qemu) != Some(*qemu)) {
            tracer.forget_guest_ranges(qemu);
        }
        let files = before.guest.iter().flat_map(|guest| &guest.files);
        let in_use = |file| {
            let live = self.pods.iter().filter(|watched| !watched.event.gone);
            live.filter_map(|watched| watched.pod.guest.as_ref())
                .any(|guest| guest.files.contains(file))
        };
        let unused: Vec<_> = files.filter(|file| !in_use(*file)).copied().collect();
        for file in unused {
            tracer.forget_guest_file(&file);
            self.told_files.remove(&file);
        }
        Ok(())
    }

    /// Whether a memcg is watched.
    #[must_use]
    pub fn watches(&self, memcg: u64) -> bool {
        self.told_memcgs.contains_key(&memcg)
    }

    /// The memcgs that are watched no more since this was last called: their accounts change no more.
    pub fn take_left(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.left)
    }

    /// The processes of the watched pods: pid, name of the main thread, cgroup id.
    pub fn members(&self) -> impl Iterator<Item = (u32, &str, u64)> {
        self.live().flat_map(|watched| {
            let members = &watched.pod.processes;
            members
                .iter()
                .map(|member| (member.process.pid, member.process.comm.as_str(), member.memcg))
        })
    }

    /// Reads the files of the memcg whose limit was hit, or, where that is above the pod, of the pod's limiting one.
    #[must_use]
    pub fn kill_files(&self, t: u64, oom_memcg: u64, victim_memcg: u64) -> Option<KillFiles> {
        let number = self.by_memcg.get(&oom_memcg).or(self.by_memcg.get(&victim_memcg))?;
        let watched = self.pods.get(usize::try_from(*number).ok()?)?;
        let hit = watched.pod.memcgs.iter().find(|memcg| memcg.id == oom_memcg);
        let memcg = hit.unwrap_or(&watched.pod.limiting);
        Some(KillFiles {
            t,
            pod: *number,
            cgroup: memcg.path.clone(),
            files: memcg.state_files(),
        })
    }

    fn live(&self) -> impl Iterator<Item = &WatchedPod> {
        self.pods.iter().filter(|watched| !watched.event.gone)
    }

    /// The kernel's own figures for every watched pod's limiting memcg, and for the memcgs below that hold processes, each
    /// with when it was read: looking through the mappings of a node's many QEMUs takes time.
    #[must_use]
    pub fn samples(&self, node: &Node) -> Vec<(u64, Sample)> {
        self.live().flat_map(|watched| pod_samples(node, watched)).collect()
    }
}

/// That a map is full is no reason to end: the rest is traced all the same. It takes hundreds of VMs, or a pod that makes
/// cgroups without end.
fn unless_full<T>(result: Result<T, ProbeError>, pod: &VmPod, lost: &str) -> Result<Option<T>, ProbeError> {
    match result {
        Ok(told) => Ok(Some(told)),
        Err(error) if error.is_full() => {
            log::warn!("{}: {lost}: {error}", pod.label());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn pod_samples(node: &Node, watched: &WatchedPod) -> Vec<(u64, Sample)> {
    let pod = &watched.pod;
    let guest_resident = match (pod.qemu, &pod.guest) {
        (Some(qemu), Some(guest)) => node.guest_resident(qemu, guest).map(|resident| resident.pages),
        _ => None,
    };
    let others = pod
        .memcgs
        .iter()
        .filter(|memcg| memcg.id != pod.limiting.id && memcg.limit().is_some());
    // Not before the mappings were looked through: usage is what forecasts are made of.
    let now = boot_ns();
    std::iter::once(&pod.limiting)
        .chain(others)
        .filter_map(|memcg: &Memcg| {
            let mut sample = memcg.sample()?;
            sample.pod = watched.event.pod;
            if memcg.id == pod.limiting.id {
                sample.guest_resident = guest_resident;
            }
            Some((now, sample))
        })
        .collect()
}
