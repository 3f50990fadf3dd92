//! A real QEMU in a memcg of its own that looks like a pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::guest_ram::How;
use super::{Node, Target, overview};

const LIMIT: u64 = 400 << 20;
const ENTER_AND_RUN: &str = "echo $$ > \"$0\" && exec \"$@\"";

/// Makes the cgroups of a pod; ends the QEMU and removes them when dropped.
struct LivePod {
    groups: Vec<PathBuf>,
    qemu: Option<Child>,
}

impl LivePod {
    /// `None` where there is no memory controller, no permission, or no QEMU.
    fn start(node: &Node) -> Option<Self> {
        let mut live = Self {
            groups: Vec::new(),
            qemu: None,
        };
        let mut folder = node.hierarchy().mount.clone();
        let pod = format!("pod{:032x}", std::process::id());
        let container = "c".repeat(64);
        for part in [
            &format!("headroom-test-{}", std::process::id()),
            "kubepods",
            &pod,
            &container,
        ] {
            folder.push(part);
            fs::create_dir(&folder).ok()?;
            live.groups.push(folder.clone());
        }
        let limit = node
            .memcg("/")
            .filter(|root| root.dir.join("memory.limit_in_bytes").exists());
        let limit_file = limit.map_or("memory.max", |_| "memory.limit_in_bytes");
        fs::write(live.groups[2].join(limit_file), LIMIT.to_string()).ok()?;
        let child = Command::new("sh")
            .args(["-c", ENTER_AND_RUN])
            .arg(folder.join("cgroup.procs"))
            .args([
                "qemu-system-x86_64",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-S",
            ])
            .args([
                "-accel",
                "tcg,tb-size=8",
                "-name",
                "guest=live_vm,debug-threads=on",
                "-smp",
                "2",
                "-m",
                "64M",
            ])
            .args(["-object", "memory-backend-ram,id=pc.ram,size=64M,prealloc=on"])
            .args([
                "-object",
                "iothread,id=iothread1",
                "-machine",
                "pc,memory-backend=pc.ram",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        live.qemu = Some(child.ok()?);
        Some(live)
    }
}

impl Drop for LivePod {
    fn drop(&mut self) {
        if let Some(qemu) = &mut self.qemu {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
        for group in self.groups.iter().rev() {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(group).is_err() && group.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn a_real_qemu_in_a_pod_s_memcg_is_seen_whole() {
    let Ok(node) = Node::new(Path::new("/")) else { return };
    let installed = Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let Some(mut live) = LivePod::start(&node).filter(|_| installed.is_ok()) else {
        return;
    };
    let target = Target::NamespacedVm("live".to_owned(), "vm".to_owned());
    let deadline = Instant::now() + Duration::from_secs(20);
    let seen = loop {
        let ended = live.qemu.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "no such pod: {ended:?}");
        let pods = node.resolve(std::slice::from_ref(&target)).unwrap_or_default();
        let ready = |seen: &overview::Overview| {
            let guest = seen.guest_ram.clone().unwrap_or_default();
            let threads = seen
                .processes
                .iter()
                .map(|process| process.threads.len())
                .sum::<usize>();
            guest.how == How::Backends && guest.resident == Some(64 << 20) && threads >= 5
        };
        if let Some(seen) = pods.first().map(|pod| overview::of(&node, pod)).filter(ready) {
            break seen;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((seen.limit, seen.budget), (Some(LIMIT), Some(336 << 20)));
    assert!(
        seen.usage > Some(64 << 20) && seen.overhead < Some(64 << 20),
        "{seen:?}"
    );
    let roles: Vec<String> = seen.processes[0]
        .threads
        .iter()
        .map(|thread| thread.role.to_string())
        .collect();
    for role in ["main-loop", "rcu", "vcpu 0", "vcpu 1", "iothread iothread1"] {
        assert!(roles.iter().any(|found| found == role), "{role} in {roles:?}");
    }
}
