//! Other tracers beside the same work: bpftrace, and a program in C with libbpf's own loader.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `xtask` puts them in the machine.
const BPFTRACE: &str = "/usr/bin/bpftrace";
const BPFTOOL: &str = "/usr/sbin/bpftool";
const OBJECT: &str = "/peers/charges.bpf.o";
/// Where the C program is pinned.
const PINS: &str = "/sys/fs/bpf/peer";
const MAPS: &str = "/sys/fs/bpf/peer-maps";
/// Compiling a script takes ten milliards of instructions and more.
const STARTS: Duration = Duration::from_secs(600);

/// Charges and what is given back, by thread, of threads in a memory cgroup: one line for each way to be charged. Functions
/// that a kernel lacks are left out.
const LINES: [(&str, &str); 9] = [
    (
        "__mem_cgroup_charge",
        "fexit:vmlinux:__mem_cgroup_charge /cgroup == $1 && retval == 0/ { @charged[tidSTACK] = sum(4096); }",
    ),
    (
        "uncharge_folio",
        "fentry:vmlinux:uncharge_folio /cgroup == $1/ { @freed[tid] = sum(4096); }",
    ),
    (
        "__memcg_kmem_charge_page",
        "fexit:vmlinux:__memcg_kmem_charge_page /cgroup == $1 && retval == 0/ { @kernel[tidSTACK] = sum(4096 << (uint64)args.order); }",
    ),
    (
        "__memcg_kmem_uncharge_page",
        "fentry:vmlinux:__memcg_kmem_uncharge_page /cgroup == $1/ { @kernel_freed[tid] = sum(4096 << (uint64)args.order); }",
    ),
    (
        "obj_cgroup_charge",
        "fexit:vmlinux:obj_cgroup_charge /cgroup == $1 && retval == 0/ { @objects[tidSTACK] = sum(args.size); }",
    ),
    (
        "refill_obj_stock",
        "fentry:vmlinux:refill_obj_stock /cgroup == $1 && args.allow_uncharge/ { @objects_freed[tid] = sum(args.nr_bytes); }",
    ),
    (
        "__account_obj_stock",
        "fentry:vmlinux:__account_obj_stock /cgroup == $1/ { @stock[tidSTACK] = sum(args.nr); }",
    ),
    (
        "mem_cgroup_charge_skmem",
        "fexit:vmlinux:mem_cgroup_charge_skmem /cgroup == $1/ { @sockets[tidSTACK] = sum(4096 * (uint64)args.nr_pages); }",
    ),
    (
        "mem_cgroup_sk_charge",
        "fexit:vmlinux:mem_cgroup_sk_charge /cgroup == $1/ { @sockets[tidSTACK] = sum(4096 * (uint64)args.nr_pages); }",
    ),
];

/// A peer that counts until it is dropped.
pub enum Peer {
    /// bpftrace with its script.
    Bpftrace(Child),
    /// The program in C, pinned.
    C,
}

impl Peer {
    /// bpftrace, counting for threads of one memory cgroup; with the stacks of charges, if so.
    pub fn bpftrace(memcg: u64, stacks: bool, has: impl Fn(&str) -> bool) -> Result<Self> {
        let stack = if stacks { ", kstack, ustack" } else { "" };
        let lines = LINES.iter().filter(|(function, _)| has(function));
        let script: Vec<String> = lines.map(|(_, line)| line.replace("STACK", stack)).collect();
        let child = Command::new(BPFTRACE)
            .args(["-q", "-e", &script.join("\n"), &memcg.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start bpftrace")?;
        let mut peer = Self::Bpftrace(child);
        peer.wait_until_attached(script.len())?;
        Ok(peer)
    }

    fn wait_until_attached(&mut self, links: usize) -> Result<()> {
        let Self::Bpftrace(child) = self else {
            return Ok(());
        };
        let begun = Instant::now();
        let folder = format!("/proc/{}/fd", child.id());
        loop {
            ensure!(child.try_wait()?.is_none(), "bpftrace ended");
            ensure!(begun.elapsed() < STARTS, "bpftrace does not attach");
            let open = fs::read_dir(&folder)?.flatten();
            // kernel: kernel/bpf/syscall.c bpf_link_new_fd() (5.8 to 7.3)
            let attached = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            if attached.filter(|path| path.ends_with("anon_inode:bpf_link")).count() >= links {
                return Ok(());
            }
            sleep(Duration::from_millis(500));
        }
    }

    /// The program in C; memory of this process between these addresses is guest RAM.
    pub fn c(memcg: u64) -> Result<Self> {
        bpftool(&["prog", "loadall", OBJECT, PINS, "pinmaps", MAPS, "autoattach"])?;
        let peer = Self::C;
        let watched = format!("{MAPS}/watched");
        let guest = [u64::from(std::process::id()), 0, 0];
        let mut words = vec!["map", "update", "pinned", &watched, "key"];
        let key: Vec<String> = memcg.to_ne_bytes().map(|byte| byte.to_string()).into();
        let value: Vec<String> = guest
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .map(|byte| byte.to_string())
            .collect();
        words.extend(key.iter().map(String::as_str));
        words.push("value");
        words.extend(value.iter().map(String::as_str));
        bpftool(&words)?;
        Ok(peer)
    }

    /// Ends it, and makes sure that it counted, if it should have.
    pub fn finish(&mut self, counted: bool) -> Result<()> {
        let found = match self {
            Self::Bpftrace(child) => {
                kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
                let mut output = String::new();
                let mut stdout = child.stdout.take().context("its output is piped")?;
                std::io::Read::read_to_string(&mut stdout, &mut output)?;
                child.wait()?;
                output.contains("@charged[")
            }
            Self::C => {
                let totals = bpftool(&["map", "dump", "pinned", &format!("{MAPS}/totals")])?;
                totals.contains("charged")
            }
        };
        ensure!(found == counted, "a peer counted: {found}, it should have: {counted}");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        match self {
            Self::Bpftrace(child) => {
                // It has ended already unless something went wrong.
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::C => {
                for folder in [PINS, MAPS] {
                    let _ = fs::remove_dir_all(folder);
                }
            }
        }
    }
}

/// Whether the machine has a peer.
pub fn is_here(name: &str) -> bool {
    let file = if name == "c" { OBJECT } else { BPFTRACE };
    Path::new(file).exists()
}

fn bpftool(arguments: &[&str]) -> Result<String> {
    let output = Command::new(BPFTOOL).args(arguments).stdin(Stdio::null()).output();
    let output = output.context("cannot run bpftool")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "bpftool {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
