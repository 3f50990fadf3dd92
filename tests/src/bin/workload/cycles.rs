//! Attaching and detaching again and again under load: nothing may be left behind, and no byte be lost of a thread that
//! lives across. And a recorder that is killed leaves nothing attached.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headroom::probe::{BackendChoice, Options, Tracer};
use headroom_tests::capability::own;
use headroom_tests::conserve::{Check, Document, Phase};
use headroom_tests::{Memcg, Recorder, Worker};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use procfs::process::{MMapPath, MemoryMap, MemoryMaps, Process, VmFlags};
use tracer_common::{Kind, OVERFLOW_TID, Region, Watched};

use crate::bpf::Objects;
use crate::memory::{MIB, Pages};
use crate::stage::signed;

/// What the thread that lives across touches while it is traced.
const PULSE: usize = MIB;
/// The load goes on at this pace, in bursts: attaching must get its turn, also where one thread emulates all CPUs.
const BETWEEN: Duration = Duration::from_millis(5);
/// CAP_SYS_RESOURCE, as a set of capabilities. kernel: include/uapi/linux/capability.h
const SYS_RESOURCE: u64 = 1 << 24;
/// The kernel takes its time to free what nobody holds any more.
const FREED: Duration = Duration::from_secs(30);
/// What has not changed for so long is at rest.
const REST: Duration = Duration::from_secs(2);

/// Keeps the kernel from moving this process's pages from one NUMA node to another behind its back: what is moved is charged
/// anew, to the thread that comes across it.
///
/// kernel: vma_policy_mof(), which task_numa_work() asks, is false with a policy of the task's own (5.10 to 7.3)
fn stay_on_node() -> Result<()> {
    // SAFETY: no memory is handed over.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_LOCAL, 0, 0) };
    Errno::result(result).context("cannot set a memory policy")?;
    Ok(())
}

/// What the processes of this test do.
pub fn act(name: &str) -> Result<()> {
    stay_on_node()?;
    let pages = Pages::small(8 * MIB)?;
    crate::stage::begin()?;
    match name {
        "pulse" => loop {
            pages.give_back(0..PULSE)?;
            crate::stage::standstill("given back", &[])?;
            pages.touch(0..PULSE);
            crate::stage::standstill("touched", &[])?;
        },
        _ => loop {
            pages.touch(0..PULSE);
            pages.give_back(0..PULSE)?;
            sleep(BETWEEN);
        },
    }
}

/// The objects that there are once none goes away any more: the kernel may still be freeing those of who ran before.
fn at_rest() -> Result<Objects> {
    let deadline = Instant::now() + FREED;
    let mut objects = Objects::count()?;
    let mut since = Instant::now();
    while since.elapsed() < REST {
        ensure!(Instant::now() < deadline, "objects come and go: {objects:?}");
        sleep(Duration::from_millis(100));
        let now = Objects::count()?;
        if now != objects {
            (objects, since) = (now, Instant::now());
        }
    }
    Ok(objects)
}

/// Waits until there are no more objects than these, and returns those that there are.
fn back_to(objects: Objects) -> Result<Objects> {
    let deadline = Instant::now() + FREED;
    loop {
        let now = Objects::count()?;
        if now == objects || Instant::now() > deadline {
            return Ok(now);
        }
        sleep(Duration::from_millis(100));
    }
}

fn descriptors() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64)
}

fn choice(backend: &str) -> Result<BackendChoice> {
    clap::ValueEnum::from_str(backend, false).map_err(|error: String| anyhow::anyhow!(error))
}

/// Attaches and detaches this many times.
pub fn check(count: usize, backend: &str) -> Result<Document> {
    let options = Options {
        backend: choice(backend)?,
        ..Options::default()
    };
    let group = Memcg::create()?;
    let objects = at_rest()?;
    let start = |name: &str| -> Result<Worker> {
        let mut worker = Worker::of(Command::new(env::current_exe()?).args(["act", name]), &group)?;
        worker.go()?;
        Ok(worker)
    };
    let mut pulse = start("pulse")?;
    expect(&mut pulse, "given back")?;
    let _load = [start("load")?, start("load")?];
    let id = group.id()?;
    // What is made once and kept is no leak.
    drop(Tracer::attach(Path::new("/"), options)?);
    let open = descriptors()?;
    // Booting an emulated machine has its own.
    let complaints = kernel_complaints()?;
    let mut document = document("cycles", &group, backend)?;
    let mut off = Vec::new();
    for round in 1..=count {
        let mut tracer = Tracer::attach(Path::new("/"), options)?;
        document.backend = tracer.backend().as_str().to_owned();
        tracer.watch(id, Watched { qemu_tgid: 0, pod: 0 })?;
        let before = private(pulse.pid())?;
        pulse.go()?;
        expect(&mut pulse, "touched")?;
        tracer.detach();
        let grown = private(pulse.pid())? - before;
        ensure!(grown >= signed(PULSE as u64), "it touched only {grown} bytes");
        let charged = charged_to(&tracer, pulse.pid());
        if charged != grown {
            off.push(format!("{charged} for {grown} in round {round}"));
        }
        ensure!(lost(&tracer) == 0, "bytes found no account");
        drop(tracer);
        pulse.go()?;
        expect(&mut pulse, "given back")?;
    }
    let left = back_to(objects)?;
    for (what, before, after) in [
        ("programs", objects.programs, left.programs),
        ("maps", objects.maps, left.maps),
        ("links", objects.links, left.links),
        ("descriptors", open, descriptors()?),
    ] {
        let name = format!("{what} after {count} times");
        document
            .checks
            .push(Check::bytes(name, signed(before), signed(after), 0));
    }
    document.checks.push(Check {
        name: format!("bytes of the thread that lives across, {count} times"),
        expected: "what smaps shows more".to_owned(),
        got: if off.is_empty() {
            "what smaps shows more".to_owned()
        } else {
            off.join(", ")
        },
        ok: off.is_empty(),
    });
    document.checks.push(silent_since(complaints.len())?);
    kill_recorder(&group, backend, objects, &mut document)?;
    document.ok = document.checks.iter().all(|check| check.ok);
    Ok(document)
}

/// A recorder that is killed leaves nothing attached.
pub fn killed(backend: &str) -> Result<Document> {
    let group = Memcg::create()?;
    let mut document = document("killed", &group, backend)?;
    kill_recorder(&group, backend, at_rest()?, &mut document)?;
    document.ok = document.checks.iter().all(|check| check.ok);
    Ok(document)
}

fn document(workload: &str, group: &Memcg, backend: &str) -> Result<Document> {
    Ok(Document {
        workload: workload.to_owned(),
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        cgroup: if group.is_v2() { "v2" } else { "v1" }.to_owned(),
        backend: backend.to_owned(),
        phases: vec![Phase::default()],
        ..Document::default()
    })
}

/// Warnings and worse in the kernel's log.
fn kernel_complaints() -> Result<Vec<String>> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("cannot open the kernel's log")?;
    // Each read gives one record, and fails where there is none left.
    let mut record = [0; 8192];
    let mut complaints = Vec::new();
    loop {
        let length = match log.read(&mut record) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Overwritten while reading; the next read goes on with what there is.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) => return Err(error).context("cannot read the kernel's log"),
        };
        let text = String::from_utf8_lossy(&record[..length]).into_owned();
        let told = ["WARNING: ", "BUG: ", "Oops", "Call Trace:", "INFO: rcu"];
        complaints.extend(told.iter().any(|words| text.contains(words)).then_some(text));
    }
    Ok(complaints)
}

/// The kernel has complained of nothing more than before.
fn silent_since(before: usize) -> Result<Check> {
    let complaints = kernel_complaints()?;
    let new = complaints.get(before..).unwrap_or_default();
    Ok(Check {
        name: "new complaints in the kernel's log".to_owned(),
        expected: "none".to_owned(),
        got: new
            .first()
            .map_or_else(|| "none".to_owned(), |first| format!("{}: {first}", new.len())),
        ok: new.is_empty(),
    })
}

fn kill_recorder(group: &Memcg, backend: &str, objects: Objects, document: &mut Document) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("killed.jsonl.zst");
    let mut recorder = Recorder::start(&group.target(), file, &["--backend", backend])?;
    let attached = Objects::count()?;
    ensure!(
        attached.programs > objects.programs,
        "nothing was attached: {attached:?}"
    );
    document.checks.push(protected(recorder.pid())?);
    recorder.signal(Signal::SIGKILL)?;
    ensure!(recorder.wait()?.code().is_none(), "it was to be killed");
    let left = back_to(objects)?;
    document.checks.push(Check {
        name: "left by a recorder that was killed".to_owned(),
        expected: format!("{objects:?}"),
        got: format!("{left:?}"),
        ok: left == objects,
    });
    Ok(())
}

/// A recorder is the last to be chosen by the OOM killer, where this user may have that, and its memory is locked.
fn protected(pid: u32) -> Result<Check> {
    let folder = Path::new("/proc").join(pid.to_string());
    let score = fs::read_to_string(folder.join("oom_score_adj"))?.trim().to_owned();
    let (locked, not) = locked(&Process::new(pid.cast_signed())?.smaps()?);
    let effective = own()?.get("Eff").copied().unwrap_or(0);
    let spared = if effective & SYS_RESOURCE != 0 {
        "-999".to_owned()
    } else {
        fs::read_to_string("/proc/self/oom_score_adj")?.trim().to_owned()
    };
    Ok(Check {
        name: "protection of a recorder".to_owned(),
        expected: format!("{spared}, all that is resident locked"),
        got: format!("{score}, {locked} bytes locked, not {not:?}"),
        ok: score == spared && locked > 0 && not.is_empty(),
    })
}

/// Of what smaps shows: bytes that are resident in locked mappings, and the other mappings that have any. What the kernel
/// maps of its own, as the ring buffer's pages, cannot be reclaimed and is not locked either.
fn locked(smaps: &MemoryMaps) -> (u64, Vec<String>) {
    let (mut bytes, mut not) = (0, Vec::new());
    for mapping in smaps {
        let resident = shown(mapping, "Rss");
        if mapping.extension.vm_flags.contains(VmFlags::LO) {
            bytes += resident;
        } else if resident > 0 && !is_of_the_kernel(&mapping.pathname) {
            not.push(format!("{:?}", mapping.pathname));
        }
    }
    (bytes, not)
}

fn is_of_the_kernel(path: &MMapPath) -> bool {
    match path {
        MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => true,
        MMapPath::Path(path) => path.as_os_str().as_encoded_bytes().starts_with(b"anon_inode:"),
        MMapPath::Other(name) => name.starts_with("vvar"),
        _ => false,
    }
}

/// A figure that smaps shows of a mapping, bytes.
fn shown(mapping: &MemoryMap, figure: &str) -> u64 {
    mapping.extension.map.get(figure).copied().unwrap_or(0)
}

/// Private memory of a process, as smaps shows it, bytes.
fn private(pid: u32) -> Result<i64> {
    let smaps = Process::new(pid.cast_signed())?.smaps()?;
    Ok(signed(smaps.iter().map(|mapping| shown(mapping, "Anonymous")).sum()))
}

fn expect(worker: &mut Worker, phase: &str) -> Result<()> {
    let line = worker.line()?;
    if line != phase {
        bail!("'{line}' instead of '{phase}'");
    }
    Ok(())
}

/// Anonymous memory that a thread was charged, its placement not counted twice.
fn charged_to(tracer: &Tracer, tid: u32) -> i64 {
    let accounts = tracer.accounts().into_iter().map(|(_, account)| account);
    let placed = accounts.filter(|account| {
        let key = account.key;
        key.tid == tid && key.kind == Kind::Anon as u8 && key.region != Region::Unplaced as u8
    });
    placed.map(|account| signed(account.charged)).sum()
}

/// Bytes that went to nobody's account.
fn lost(tracer: &Tracer) -> u64 {
    let accounts = tracer.accounts().into_iter().map(|(_, account)| account);
    let overflow = accounts.filter(|account| account.key.tid == OVERFLOW_TID);
    overflow.map(|account| account.charged).sum()
}
