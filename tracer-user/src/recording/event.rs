//! The events that the ledger adds up and a recording keeps, one JSON line each: `{"t": ns, "type": "...", ...}`.
//!
//! Sizes are bytes, times nanoseconds of CLOCK_BOOTTIME. Fields may be added within a major format version; readers
//! skip types and fields that they do not know.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::{Kind, Region};

use super::schema;
use crate::role::Role;

/// Name and major version of the recording format, in every header.
pub const FORMAT: &str = "headroom.recording/1";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// What.
    #[serde(flatten)]
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is documented on its type")]
pub enum Body {
    Header(Header),
    Baseline(Baseline),
    Pod(Pod),
    Process(Process),
    Thread(Thread),
    Charge(Charge),
    Live(Live),
    Sample(Sample),
    Reclaim(Reclaim),
    Forecast(Forecast),
    Alert(Alert),
    Oom(Oom),
    Mark(Mark),
    Frame(Frame),
    Stack(Stack),
    StackCharge(StackCharge),
    Loss(Loss),
    Footer(Footer),
    /// A type of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// First event of every recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name and major version of the format: `headroom.recording/1`.
    pub format: String,
    /// Version of headroom.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// `v1` or `v2`: the hierarchy of the memory controller.
    pub cgroup: String,
    /// UTC of boot: nanoseconds since the Unix epoch to add to `t`.
    pub boot_unix_ns: u64,
    /// Which backend each probe got, and why not one before it (`, not by BACKEND: REASON`); or why it has none.
    pub backends: BTreeMap<String, String>,
    /// Bytes that an account gathers before it emits.
    pub granularity: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// CPUs, for the tolerance: each may hold a batch of 64 pages per memcg.
    pub cpus: u32,
    /// Forecasts were made while recording: a reader need not make them again.
    #[serde(default)]
    pub forecasts: bool,
    /// Whether pages were followed, so that `live` lines say what accounts hold; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Following>,
}

/// Whether each page of overhead was followed to the end of its charge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Following {
    /// It was.
    pub on: bool,
    /// Pages, or larger units that were charged at once, that there was room for at a time.
    pub room: u64,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What had been counted before this recording begins, where it begins later than the tracer: a flight recorder keeps
/// the last minutes of a long run. Growth is counted from the first sample in any case; this ties the sums to the footer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// When the tracer attached, CLOCK_BOOTTIME nanoseconds.
    pub attached: u64,
    /// Sums over all charge events that are no longer kept.
    #[serde(deserialize_with = "names::known_totals")]
    pub totals: Vec<Total>,
    /// What had been lost.
    pub loss: Loss,
}

/// A VM pod (or libvirt machine) is watched, or something about it changed. The last one counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Number of the pod within the recording.
    pub pod: u32,
    /// Kubernetes namespace; empty for a libvirt machine or a bare cgroup.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Pod uid; empty where there is none.
    pub pod_uid: String,
    /// cgroup id of the memcg with the lowest limit on the path from QEMU's container to the root.
    pub memcg: u64,
    /// Its path below the memory controller's root.
    pub cgroup: String,
    /// Its limit; absent when there is none.
    pub limit: Option<u64>,
    /// Size of guest RAM that is charged to the pod; 0 while no QEMU was found.
    pub guest_ram: u64,
    /// Size of guest RAM in huge pages of hugetlbfs, which no memcg is charged for: not part of `guest_ram`.
    #[serde(default)]
    pub guest_hugetlb: u64,
    /// Process id of the QEMU; 0 while none was found.
    pub qemu_pid: u32,
    /// What QEMU's command line says of the VM; absent while no QEMU was found, and in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<VmShape>,
    /// Every memcg of the pod that is watched.
    pub memcgs: Vec<Memcg>,
    /// The pod's cgroup is gone.
    #[serde(default)]
    pub gone: bool,
}

impl Pod {
    /// Its name as people know it. Comes from the pod: escape it before it is printed.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.namespace.as_str(), self.vm.as_str()) {
            ("", "") => self.cgroup.clone(),
            ("", vm) => vm.to_owned(),
            (namespace, vm) => format!("{namespace}/{vm}"),
        }
    }
}

/// What of a VM KubeVirt's budget depends on, as far as QEMU's command line says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct VmShape {
    /// vCPUs at boot; 0 where it does not say.
    pub vcpus: u32,
    /// iothreads.
    pub iothreads: u32,
    /// Devices of the host that are passed through (VFIO).
    pub host_devices: u32,
    /// It has a graphics device.
    pub graphics: bool,
    /// It has a TPM.
    pub tpm: bool,
}

/// A watched memcg of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memcg {
    /// cgroup id.
    pub id: u64,
    /// Path below the memory controller's root.
    pub path: String,
    /// Lies at or below the pod's limiting memcg, so what is charged to it counts against that limit.
    pub counted: bool,
}

/// A process was seen, or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time, nanoseconds since boot (as exact as its source: /proc gives 10 ms steps).
    pub start_ns: u64,
    /// Number of its pod; absent for processes outside (kernel threads, others' workers).
    pub pod: Option<u32>,
    /// cgroup id of its memcg.
    pub memcg: u64,
    /// Name of its main thread.
    pub comm: String,
    /// What it is: a short name from its executable and command line (`qemu`, `virtqemud`, `kworker`).
    pub name: String,
    /// Role of the process as a whole: `helper NAME`, `main-loop` for QEMU, `kernel NAME`, `other NAME`.
    pub role: Role,
    /// Resident anonymous, file and shared memory when first seen, bytes.
    pub rss: u64,
    /// The anonymous and shared part of it: mapped files are mostly charged to others. Absent in older recordings.
    #[serde(default)]
    pub rss_anon: Option<u64>,
    /// It started before the tracer attached.
    pub before_attach: bool,
    /// It is gone.
    #[serde(default)]
    pub exited: bool,
}

/// A thread was seen, or changed its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// `start_boottime`, nanoseconds: with the thread id the identity of a thread.
    pub start_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Number of its pod; absent for threads outside.
    pub pod: Option<u32>,
    /// Its name.
    pub comm: String,
    /// Its role.
    pub role: Role,
    /// It is gone.
    #[serde(default)]
    pub exited: bool,
}

/// What was charged and given back by one thread in one memcg since the last charge event of the same account
/// (memcg, thread, kind, region).
///
/// A page that is placed is `uncharged` from `unplaced` and `charged` to its region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    /// cgroup id.
    pub memcg: u64,
    /// Thread id; 4294967295 for the memcg's overflow account.
    pub tid: u32,
    /// Start time of the thread; 0 for the overflow account.
    pub start_ns: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// What it backs.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Bytes.
    pub charged: u64,
    /// Bytes.
    pub uncharged: u64,
}

/// A charge event's line by itself: read without the detour that a tagged type takes.
#[derive(Deserialize)]
pub(super) struct ChargeLine {
    t: u64,
    memcg: u64,
    tid: u32,
    start_ns: u64,
    #[serde(with = "names::kind")]
    kind: Kind,
    #[serde(with = "names::region")]
    region: Region,
    charged: u64,
    uncharged: u64,
}

impl From<ChargeLine> for Event {
    fn from(line: ChargeLine) -> Self {
        Self {
            t: line.t,
            body: Body::Charge(Charge {
                memcg: line.memcg,
                tid: line.tid,
                start_ns: line.start_ns,
                kind: line.kind,
                region: line.region,
                charged: line.charged,
                uncharged: line.uncharged,
            }),
        }
    }
}

/// What an account holds: bytes of overhead that were charged to it since the tracer attached and are charged still,
/// whoever may give them back, and though its thread may be gone. Told when it changes; 0 until it is told.
///
/// Kinds that come in pages are followed: anon, file, shmem, hugetlb, pagetable, secondary_pagetable, kernel_stack and kmem.
/// vmalloc areas stay kmem here. slab, percpu and sock are not followed, and guest RAM is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// cgroup id.
    pub memcg: u64,
    /// Thread id; 4294967295 for what accounts hold that are too many to be told apart.
    pub tid: u32,
    /// Start time of the thread; 0 for the overflow account.
    pub start_ns: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// Bytes held now.
    pub bytes: u64,
    /// Bytes charged to the account that there was no room to follow, since the tracer attached: held or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_followed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The kernel's own figures for a memcg: what the accounts are reconciled against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// cgroup id.
    pub memcg: u64,
    /// Number of the pod.
    pub pod: u32,
    /// `memory.current` / `memory.usage_in_bytes`.
    pub usage: u64,
    /// `memory.max` / `memory.limit_in_bytes`; absent when there is none.
    pub limit: Option<u64>,
    /// `memory.peak` / `memory.max_usage_in_bytes`, where the kernel has it.
    pub peak: Option<u64>,
    /// memory.stat (hierarchical) by kind. `file` is without shmem; `kmem` is kernel memory that memory.stat does
    /// not show under a kind of its own.
    #[serde(with = "names::kind_map")]
    #[schemars(with = "BTreeMap<schema::KindName, u64>")]
    pub stat: BTreeMap<Kind, u64>,
    /// Clean or dirty page cache that reclaim could take: inactive_file + active_file.
    pub reclaimable_file: u64,
    /// Resident guest RAM (smaps of QEMU's guest RAM mappings); absent without QEMU or permission.
    pub guest_resident: Option<u64>,
    /// Total stall time of some tasks for memory (PSI), microseconds, where there is PSI.
    pub pressure_some_us: Option<u64>,
    /// memory.events / failcnt: how often the limit was hit.
    pub limit_hits: u64,
    /// OOM kills counted by the memcg.
    pub oom_kills: u64,
}

/// A thread spent time reclaiming before its charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reclaim {
    /// cgroup id of the thread's memcg.
    pub memcg: u64,
    /// Thread id.
    pub tid: u32,
    /// Start time of the thread.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Pages reclaimed.
    pub pages: u64,
    /// Order of the allocation.
    pub order: u32,
}

/// When a pod is expected to meet its limit, as things looked at this time. Told when it changes materially.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Number of the pod.
    pub pod: u32,
    /// When usage that the kernel cannot take back is expected to meet the limit; absent when what was forecast before
    /// holds no longer.
    pub kill_at: Option<u64>,
    /// With [`kill_at`](Self::kill_at): it will hardly happen before this.
    pub low: Option<u64>,
    /// It will hardly happen after this; absent where growth may as well end before.
    pub high: Option<u64>,
    /// Who drives it, where that is known.
    pub driver: Option<Driver>,
    /// What it rests on.
    pub basis: Basis,
}

/// Who blame is given to ahead of a kill: a role within QEMU, or any other process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Driver {
    /// Its role.
    pub role: Role,
    /// Short name of its process.
    pub process: String,
}

/// The figures that a forecast rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Basis {
    /// Limit less usage, with the page cache that reclaim could take counted as free.
    pub available: i64,
    /// How fast overhead grows, less reclaimable page cache, bytes per second.
    pub overhead_rate: i64,
    /// How fast guest RAM fills, bytes per second.
    pub guest_rate: i64,
    /// Guest RAM that is not resident yet.
    pub guest_left: u64,
    /// The growth was seen for this long, nanoseconds.
    pub seen_ns: u64,
}

/// A threshold was passed, or is no longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Number of the pod.
    pub pod: u32,
    /// Which threshold.
    pub alert: AlertKind,
    /// It was raised; `false` when it ends.
    pub raised: bool,
    /// The threshold: nanoseconds for `eta`, bytes for `headroom`, bytes per second for `rate`.
    pub threshold: u64,
    /// What was measured against it, in the same unit; absent where an alert ended because there is nothing to measure.
    pub value: Option<u64>,
    /// Who drives it, where that is known.
    pub driver: Option<Driver>,
    /// When the limit is expected to be met, where that is forecast.
    pub kill_at: Option<u64>,
    /// The figures at hand.
    pub basis: Basis,
}

/// What an alert watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Time until the limit is met.
    Eta,
    /// What is left below the limit, reclaimable page cache counted as free.
    Headroom,
    /// Growth of overhead per second.
    Rate,
}

impl AlertKind {
    /// Its name, as in a recording.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eta => "eta",
            Self::Headroom => "headroom",
            Self::Rate => "rate",
        }
    }
}

/// Somebody said what happens: `headroom mark`. A sample stands right before and right behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mark {
    /// What happens, as it was said.
    pub text: String,
    /// Number of the pod that it happens to; absent where it concerns them all.
    pub pod: Option<u32>,
}

/// The kernel killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oom {
    /// Number of the victim's pod.
    pub pod: Option<u32>,
    /// cgroup id of the memcg whose limit was hit.
    pub oom_memcg: u64,
    /// cgroup id of the victim's memcg.
    pub memcg: u64,
    /// Usage of `oom_memcg` at the kill.
    pub usage: u64,
    /// Its limit.
    pub limit: u64,
    /// `gfp_mask` of the allocation that failed, where the backend sees it.
    pub gfp: Option<u32>,
    /// Its order, where the backend sees it.
    pub order: Option<u32>,
    /// `memcg`, `cpuset`, `none`, ..., where the backend sees it.
    pub constraint: Option<String>,
    /// The thread whose allocation failed.
    pub invoker: OomTask,
    /// The process that was killed.
    pub victim: OomTask,
    /// The kernel's own report, when /dev/kmsg was readable.
    #[serde(default)]
    pub kernel_report: Vec<String>,
}

/// A thread or process in an OOM event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OomTask {
    /// Thread id (of the main thread for a victim).
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Role, where known.
    pub role: Option<Role>,
}

/// A function, or a place in code without a name, told once before the first stack that it is in (`record --stacks`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Number of the frame within the recording.
    pub frame: u32,
    /// Name of the function; absent where there is none.
    pub symbol: Option<String>,
    /// Program or library, as its process sees it; `kernel` for the kernel's.
    pub module: String,
    /// Build id of that file, in hexadecimal.
    pub build_id: Option<String>,
    /// Offset in the file of a place without a name.
    pub offset: Option<u64>,
}

/// A stack, told once before the first charge that refers to it (`record --stacks`). Number 0 has no frames: it stands for
/// stacks that are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// Number of the stack within the recording.
    pub stack: u32,
    /// Numbers of its frames in the process, innermost first; none in kernel threads.
    pub user: Vec<u32>,
    /// Numbers of its frames in the kernel, innermost first.
    pub kernel: Vec<u32>,
}

/// Overhead that was charged from a stack (`record --stacks`). Each account is sampled once in as many
/// bytes as the header's `granularity` says; what it gives back does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StackCharge {
    /// cgroup id.
    pub memcg: u64,
    /// Thread id; 4294967295 for the memcg's overflow account.
    pub tid: u32,
    /// Start time of the thread; 0 for the overflow account.
    pub start_ns: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// What it backs: `overhead`.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Number of the stack.
    pub stack: u32,
    /// Bytes that the samples stand for. Over an account they add up to what it was charged, within one granularity.
    pub charged: u64,
    /// Samples.
    pub samples: u64,
}

/// What could not be kept, since the tracer attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Times the ring buffer was full: bytes were late, not lost.
    pub ring_full: u64,
    /// Times the account map was full: bytes went into a memcg's overflow account.
    pub accounts_full: u64,
    /// Bytes that found no account.
    pub lost_bytes: u64,
    /// Reclaim, OOM, exit or rename records dropped.
    pub events_dropped: u64,
    /// Pages of page cache whose file is not known.
    pub files_full: u64,
    /// Times that a program did not run because it was running already on that CPU (an interrupt in the middle of it),
    /// or that a kprobe's call ended unseen: what would have been counted is in no account.
    #[serde(default)]
    pub missed_runs: u64,
    /// Stacks that found no room in their ring buffer: their bytes went to the next stack of the account.
    #[serde(default)]
    pub stacks_dropped: u64,
    /// Sampled stacks that are not known: too many different ones, or no names in time.
    #[serde(default)]
    pub stacks_unknown: u64,
    /// Bytes of pages that there was no room to follow: nobody knows how long they are held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_followed: u64,
    /// Longest that a byte waited in the kernel because the ring buffer was full, nanoseconds.
    pub max_delay_ns: u64,
}

impl Loss {
    /// What was lost since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(before.ring_full),
            accounts_full: self.accounts_full.saturating_sub(before.accounts_full),
            lost_bytes: self.lost_bytes.saturating_sub(before.lost_bytes),
            events_dropped: self.events_dropped.saturating_sub(before.events_dropped),
            files_full: self.files_full.saturating_sub(before.files_full),
            missed_runs: self.missed_runs.saturating_sub(before.missed_runs),
            stacks_dropped: self.stacks_dropped.saturating_sub(before.stacks_dropped),
            stacks_unknown: self.stacks_unknown.saturating_sub(before.stacks_unknown),
            not_followed: self.not_followed.saturating_sub(before.not_followed),
            max_delay_ns: if self.max_delay_ns > before.max_delay_ns {
                self.max_delay_ns
            } else {
                0
            },
        }
    }
}

/// Last event of a complete recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Footer {
    /// Sums over all threads per (memcg, kind, region) since the tracer attached, read from the kernel's maps at the
    /// end: the reader's own sums, those of the baseline included, must equal them.
    #[serde(deserialize_with = "names::known_totals")]
    pub totals: Vec<Total>,
    /// What was lost.
    pub loss: Loss,
    /// Files that took the most page cache since the tracer attached, by pod.
    #[serde(default)]
    pub files: Vec<FileCache>,
    /// Why recording ended (`interrupted`, `duration over`, `oom`, `command ended`, `target gone`, `incident`, ...).
    pub ended: String,
}

/// Sum of all accounts of a memcg, kind and region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// cgroup id.
    pub memcg: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// What it backs.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Bytes.
    pub charged: u64,
    /// Bytes.
    pub uncharged: u64,
}

/// Page cache that a file brought into a memcg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileCache {
    /// cgroup id.
    pub memcg: u64,
    /// `major:minor` of its file system.
    pub device: String,
    /// Inode number.
    pub inode: u64,
    /// Path as a process of the pod sees it, where one has it open.
    pub path: Option<String>,
    /// Bytes of page cache added.
    pub bytes: u64,
}

/// Kinds and regions by their names.
mod names {
    use std::borrow::Cow;

    /// A name, not copied where it need not be.
    #[derive(serde::Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    macro_rules! by_name {
        ($module:ident, $type:ty) => {
            pub mod $module {
                use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

                pub fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(value.as_str())
                }

                pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                    let super::Name(name) = super::Name::deserialize(deserializer)?;
                    <$type>::from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown name '{name}'")))
                }
            }
        };
    }
    by_name!(kind, tracer_common::Kind);
    by_name!(region, tracer_common::Region);

    /// Totals of kinds and regions of a later version are left out: nothing is lost by it but a check.
    pub fn known_totals<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<super::Total>, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Known {
            Total(super::Total),
            Other(serde::de::IgnoredAny),
        }
        let totals = <Vec<Known> as serde::Deserialize>::deserialize(deserializer)?;
        let known = totals.into_iter().filter_map(|total| match total {
            Known::Total(total) => Some(total),
            Known::Other(_) => None,
        });
        Ok(known.collect())
    }

    pub mod kind_map {
        use std::collections::BTreeMap;

        use serde::{Deserialize, Deserializer, Serializer};
        use tracer_common::Kind;

        pub fn serialize<S: Serializer>(map: &BTreeMap<Kind, u64>, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(map.iter().map(|(kind, bytes)| (kind.as_str(), bytes)))
        }

        /// Kinds of a later version are skipped.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Kind, u64>, D::Error> {
            let map = BTreeMap::<String, u64>::deserialize(deserializer)?;
            Ok(map
                .into_iter()
                .filter_map(|(name, bytes)| Some((Kind::from_name(&name)?, bytes)))
                .collect())
        }
    }
}
