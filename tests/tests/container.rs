//! headroom as `deploy/daemonset.yaml` runs it: in a root of its own with nothing but /proc and /sys, in a cgroup namespace
//! of its own, with the capabilities that it needs and no others, without /dev/kmsg.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::Body;
use headroom_tests::capability::available;
use headroom_tests::recording::events;
use headroom_tests::{Memcg, Recorder, headroom};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = "node-7";
/// Capabilities have numbers below this.
const NUMBERS: u32 = 64;

/// A root of files with headroom in it, and what a container runtime does before it starts that.
struct Container {
    root: TempDir,
    group: Memcg,
}

impl Container {
    fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        for folder in ["proc", "sys", "var"] {
            fs::create_dir(root.path().join(folder))?;
        }
        fs::copy(headroom()?.get_program(), root.path().join("headroom"))?;
        let group = Memcg::create()?;
        Ok(Self { root, group })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// `headroom` in there.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new("/headroom");
        command.stdin(Stdio::null()).env_clear().env("HEADROOM_NODE", NODE);
        self.group.join(&mut command)?;
        let (root, proc, sys) = (self.root.path().to_owned(), self.path("proc"), self.path("sys"));
        let kept = available()?
            .iter()
            .fold(0, |all, privilege| all | privilege.capability.bits());
        let enter = move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
            bind("/", Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
            bind("/proc", &proc, MsFlags::MS_BIND | MsFlags::MS_REC)?;
            bind("/sys", &sys, MsFlags::MS_BIND | MsFlags::MS_REC)?;
            chroot(root.as_path())?;
            chdir("/")?;
            for number in (0..NUMBERS).filter(|number| kept & (1 << number) == 0) {
                // SAFETY: prctl reads no memory for this option. That a number is unknown is fine.
                let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) };
            }
            // SAFETY: prctl reads no memory for this option.
            let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            Ok(Errno::result(result).map(drop)?)
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(enter);
        }
        Ok(command)
    }
}

fn bind(from: &str, to: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
}

/// Stand-ins for a VM pod that the kernel kills; waited for when dropped.
struct Lab(Child);

impl Lab {
    fn start() -> Result<Self> {
        let mut command = headroom()?;
        command.args(["lab", "memhold", "--no-trace"]);
        Ok(Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.wait();
    }
}

/// The incident of the lab's pod.
fn incident(folder: &Path, lab: &Lab) -> Result<PathBuf> {
    let cgroup = format!("/headroom-lab-{}/", lab.0.id());
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let written = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"incident-"));
            if written && fs::read_to_string(path.join("incident.json"))?.contains(&cgroup) {
                return Ok(path);
            }
        }
        sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no incident")
}

#[test]
fn a_kill_is_told_whole_from_a_container_that_is_not_privileged() -> Result<()> {
    let container = Container::new()?;
    let mut watcher = Recorder::launch(container.command()?, "watch", &[], "/var/incidents".into(), &[])?;
    // Where it sees itself is not where it is.
    let seen = fs::read_link(format!("/proc/{}/ns/cgroup", watcher.pid()))?;
    ensure!(seen != fs::read_link("/proc/self/ns/cgroup")?, "it is in our namespace");
    let lab = Lab::start()?;
    let incident = incident(&container.path("var/incidents"), &lab)?;
    drop(lab);
    watcher.interrupt()?;
    ensure!(
        !watcher.said.iter().any(|line| line.contains("kmsg")),
        "{:?}",
        watcher.said
    );

    let told: Value = serde_json::from_slice(&fs::read(incident.join("report.json"))?)?;
    let pod = &told["pods"][0];
    ensure!(pod["culprit"]["process"] == "memhold", "{pod}");
    ensure!(pod["guest_ram"].as_u64() == Some(448 << 20), "{pod}");
    ensure!(told["node"]["host"] == NODE, "{}", told["node"]);
    let log = fs::read_to_string(incident.join("kernel.log"))?;
    ensure!(
        log.contains("invoked oom-killer") && log.contains("Killed process"),
        "{log}"
    );

    let (events, _) = events(&incident.join("recording.jsonl.zst"))?;
    let report = events.iter().find_map(|event| match &event.body {
        Body::Oom(oom) => Some(oom.kernel_report.join("\n")),
        _ => None,
    });
    let report = report.context("no kill")?;
    ensure!(
        report.contains("invoked oom-killer") && report.contains("Killed process"),
        "{report}"
    );
    // Processes are found in their pods, though /proc tells their cgroups from the container's own on. A QEMU of another
    // test is in no pod: it may have given back a page that was charged here.
    let at_home = |name: &str| {
        events.iter().any(|event| match &event.body {
            Body::Process(process) => process.name == name && process.pod.is_some(),
            _ => false,
        })
    };
    ensure!(at_home("qemu") && at_home("memhold"), "not found in their pod");
    Ok(())
}
