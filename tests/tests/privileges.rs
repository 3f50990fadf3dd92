//! What headroom is allowed: it works with the capabilities that it says it needs and no others, gives up what it needs
//! no more once attached, and says by name what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom::node::privileges::{PRIVILEGES, Privilege};
use headroom_tests::capability::{self, Sets, available, only, unavailable};
use headroom_tests::program::behind;
use headroom_tests::recording::{charge_sums, events, footer, footer_sums, report};
use headroom_tests::{Memcg, Recorder, Run, Worker, headroom};
use serde_json::Value;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const PATIENCE: Duration = Duration::from_secs(60);

/// The bits of these that are left after attaching.
fn kept<'a>(privileges: impl IntoIterator<Item = &'a Privilege>) -> u64 {
    let kept = privileges.into_iter().filter(|privilege| !privilege.only_to_attach);
    kept.map(|privilege| privilege.capability.bits())
        .fold(0, |all, bit| all | bit)
}

/// Every thread of the tracer has the sets that `wanted` says.
fn expect_sets(recorder: &Recorder, wanted: &[(&str, u64)]) -> Result<()> {
    let threads = capability::of_threads(recorder.pid())?;
    ensure!(!threads.is_empty());
    for sets in threads {
        for (name, bits) in wanted {
            ensure!(
                sets[*name] == *bits,
                "{name} is {:x}, not {bits:x}: {sets:x?}",
                sets[*name]
            );
        }
    }
    Ok(())
}

/// A worker grows in the group while it is recorded; the recording is whole and has the growth.
fn grows(group: &Memcg, mut recorder: Recorder) -> Result<()> {
    let mut worker = Worker::start(STORM, group, "grow 40")?;
    worker.go()?;
    let mut held = 0;
    for _ in 0..30 {
        held = worker.numbers()?.1;
    }
    recorder.interrupt()?;
    let (events, _) = events(&recorder.file)?;
    let id = group.id()?;
    let anon = footer_sums(footer(&events)?)
        .iter()
        .filter(|((memcg, kind, region), _)| *memcg == id && *kind == "anon" && *region != "unplaced")
        .map(|(_, (charged, _))| charged)
        .sum::<u64>();
    ensure!(anon >= held, "{anon} B of {held} B");
    let mut sums = charge_sums(&events);
    sums.retain(|_, sum| *sum != (0, 0));
    let mut maps = footer_sums(footer(&events)?);
    maps.retain(|_, sum| *sum != (0, 0));
    ensure!(sums == maps, "{sums:?} is not {maps:?}");
    ensure!(report(&recorder.file)?["pods"][0]["overhead"]["growth"].as_u64() > Some(held / 2));
    Ok(())
}

#[test]
fn root_keeps_only_what_it_still_needs() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let recorder = Recorder::start(&group.target(), folder.path().join("root.jsonl.zst"), &[])?;
    let kept = kept(available()?);
    expect_sets(
        &recorder,
        &[("Prm", kept), ("Eff", kept), ("Inh", 0), ("Amb", 0), ("Bnd", 0)],
    )?;
    grows(&group, recorder)
}

#[test]
fn privileges_are_kept_on_demand() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kept.jsonl.zst");
    let mut recorder = Recorder::start(&group.target(), file, &["--keep-privileges"])?;
    let own = capability::own()?;
    expect_sets(
        &recorder,
        &[("Prm", own["Prm"]), ("Eff", own["Eff"]), ("Bnd", own["Bnd"])],
    )?;
    recorder.interrupt()
}

/// A backup script must be able to do what it can do without headroom, and is no better protected.
#[test]
fn the_command_that_is_recorded_has_every_privilege() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("command.jsonl.zst").display().to_string();
    let script = "cat /proc/self/oom_score_adj /proc/self/status";
    let run = Run::headroom([
        "record",
        &group.target(),
        "-o",
        &file,
        "--command",
        "--",
        "sh",
        "-c",
        script,
    ])?;
    ensure!(run.status == Some(0), "{run:?}");
    let (score, status) = run.stdout.split_once('\n').context("two files")?;
    let (sets, own) = (capability::parse(status)?, capability::own()?);
    ensure!((sets["Eff"], sets["Bnd"]) == (own["Eff"], own["Bnd"]), "{sets:x?}");
    ensure!(
        score == fs::read_to_string("/proc/self/oom_score_adj")?.trim(),
        "{score}"
    );
    Ok(())
}

#[test]
fn what_it_needs_is_enough_to_record() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let wrapper = only(available()?);
    let file = folder.path().join("few.jsonl.zst");
    let recorder = Recorder::behind(&wrapper, "record", &[&group.target()], file, &[])?;
    let kept = kept(available()?);
    expect_sets(&recorder, &[("Prm", kept), ("Eff", kept), ("Inh", 0), ("Amb", 0)])?;
    let warned: Vec<&String> = recorder.said.iter().filter(|line| line.contains("missing")).collect();
    ensure!(warned.len() == unavailable()?.len(), "{warned:?}");
    grows(&group, recorder)
}

/// Stand-ins for a VM pod, killed when dropped.
struct Lab(Child);

impl Lab {
    fn start() -> Result<Self> {
        let mut command = headroom()?;
        command.args(["lab", "memhold", "--no-trace"]);
        Ok(Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// How its cgroups begin.
    fn cgroup(&self) -> String {
        format!("/headroom-lab-{}/", self.0.id())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.wait();
    }
}

/// The pod of the lab as `pods` sees it behind `wrapper`, once its QEMU runs.
fn seen(wrapper: &[String], lab: &Lab) -> Result<(Value, String)> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let run = Run::of(behind(wrapper)?.args(["pods", "--json"]))?;
        ensure!(run.status == Some(0), "{run:?}");
        let found: Value = serde_json::from_str(&run.stdout)?;
        let pod = found["pods"].as_array().and_then(|pods| {
            pods.iter()
                .find(|pod| pod.to_string().contains(&lab.cgroup()) && pod.to_string().contains("\"qemu\""))
        });
        if let Some(pod) = pod {
            return Ok((pod.clone(), run.stderr));
        }
        sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no pod of the lab")
}

/// The incident of the lab's pod.
fn incident(folder: &Path, lab: &Lab) -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // One that is being written has another name.
            let written = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"incident-"));
            if !written {
                continue;
            }
            let mark = fs::read_to_string(path.join("incident.json")).unwrap_or_default();
            if mark.contains(&lab.cgroup()) {
                return Ok(path);
            }
        }
        sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no incident")
}

/// A whole kill, watched with the capabilities that are needed alone: guest RAM is told apart and the kernel's log is
/// read, which takes all of them. Meanwhile it is looked at with one fewer.
#[test]
fn what_it_needs_is_enough_to_watch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wrapper = only(available()?);
    let mut watcher = Recorder::behind(&wrapper, "watch", &[], folder.path(), &[])?;
    let kept = kept(available()?);
    expect_sets(&watcher, &[("Prm", kept), ("Eff", kept)])?;
    let lab = Lab::start()?;
    // CAP_PERFMON, which is given up, lets mappings be seen as well on newer kernels (seen on 6.18).
    let mut fewer = available()?;
    fewer.retain(|privilege| !privilege.only_to_attach && privilege.name != "CAP_SYS_PTRACE");
    let (blind, said) = seen(&only(fewer), &lab)?;
    ensure!(
        said.contains("guest RAM cannot be told from overhead: CAP_SYS_PTRACE is missing"),
        "{said}"
    );
    let (pod, said) = seen(&wrapper, &lab)?;
    ensure!(said.is_empty(), "{said}");
    ensure!(pod["guest_ram"]["size"].as_u64() == Some(448 << 20), "{pod}");
    ensure!(
        pod["guest_ram"]["resident"].is_u64() && !blind["guest_ram"]["resident"].is_u64(),
        "{blind}"
    );

    let incident = incident(folder.path(), &lab)?;
    drop(lab);
    watcher.interrupt()?;
    let told: Value = serde_json::from_slice(&fs::read(incident.join("report.json"))?)?;
    let pod = &told["pods"][0];
    ensure!(pod["culprit"]["process"] == "memhold", "{pod}");
    ensure!(pod["guest_ram"].as_u64() == Some(448 << 20), "{pod}");
    let log = fs::read_to_string(incident.join("kernel.log"))?;
    ensure!(log.contains("Killed process"), "{log}");
    Ok(())
}

/// What `doctor --json` says of capabilities: names of those that are missing.
fn missing(found: &Value) -> Vec<&str> {
    let all = found["capabilities"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    all.iter()
        .filter(|one| one["held"] == "missing")
        .filter_map(|one| one["name"].as_str())
        .collect()
}

#[test]
fn doctor_names_exactly_what_is_missing() -> Result<()> {
    let all = available()?;
    let absent = unavailable()?;
    for without in std::iter::once(None).chain(all.iter().map(Some)) {
        let left = all.iter().filter(|one| Some(*one) != without).copied();
        let run = Run::of(behind(&only(left))?.args(["doctor", "--json"]))?;
        let found: Value = serde_json::from_str(&run.stdout).with_context(|| format!("{run:?}"))?;
        let mut expected = absent.clone();
        expected.extend(without.map(|privilege| privilege.name));
        expected.sort_unstable();
        let mut named = missing(&found);
        named.sort_unstable();
        ensure!(named == expected, "{named:?} is not {expected:?}");
        let required = without.is_some_and(|privilege| privilege.lost.is_none());
        let status = if required { 3 } else { 0 };
        ensure!(run.status == Some(status), "without {without:?}: {run:?}");
        ensure!(found["ok"] == !required, "{found}");
    }
    Ok(())
}

#[test]
fn one_capability_fewer_is_a_clear_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("none.jsonl.zst").display().to_string();
    for without in PRIVILEGES.iter().filter(|privilege| privilege.lost.is_none()) {
        let left: Vec<&Privilege> = available()?
            .into_iter()
            .filter(|one| one.name != without.name)
            .collect();
        for command in [
            &["doctor"] as &[&str],
            &["record", "-o", &file],
            &["watch", "-o", &file],
        ] {
            let run = Run::of(behind(&only(left.iter().copied()))?.args(command))?;
            run.expect_one_line(3, &[without.name, "is missing", "root"])?;
            let others = PRIVILEGES.iter().filter(|one| one.name != without.name);
            for other in others {
                ensure!(!run.stderr.contains(other.name), "{run:?}");
            }
        }
        ensure!(!Path::new(&file).exists(), "nothing is left behind");
    }
    Ok(())
}

/// Without what can be done without, a recording is made, and what it lacks is said once.
#[test]
fn what_is_lost_without_a_capability_is_said() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let required = available()?.into_iter().filter(|privilege| privilege.lost.is_none());
    let wrapper = only(required);
    let file = folder.path().join("bare.jsonl.zst");
    let recorder = Recorder::behind(&wrapper, "record", &[&group.target()], file, &[])?;
    let bpf: u64 = kept(PRIVILEGES.iter().filter(|privilege| privilege.name == "CAP_BPF"));
    expect_sets(&recorder, &[("Prm", bpf), ("Eff", bpf)])?;
    for privilege in PRIVILEGES.iter().filter(|privilege| privilege.lost.is_some()) {
        let named = recorder
            .said
            .iter()
            .filter(|line| line.contains(privilege.name))
            .count();
        ensure!(
            named == 1,
            "{} is named {named} times: {:?}",
            privilege.name,
            recorder.said
        );
    }
    grows(&group, recorder)
}

/// The sets are of a thread: none may be forgotten.
#[test]
fn every_thread_gives_up_its_privileges() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &[])?;
    let threads: Vec<Sets> = capability::of_threads(watcher.pid())?;
    ensure!(threads.len() >= 2, "incidents are written by a thread of their own");
    let kept = kept(available()?);
    expect_sets(
        &watcher,
        &[("Prm", kept), ("Eff", kept), ("Inh", 0), ("Amb", 0), ("Bnd", 0)],
    )?;
    watcher.interrupt()
}
