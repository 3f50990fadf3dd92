//! Who the threads are: process and thread events, each when first seen and again when it changes.

use std::collections::HashMap;

use tracer_common::COMM_LEN;

use crate::node::Node;
use crate::node::process::Process as NodeProcess;
use crate::node::roles::{process_role, thread_role};
use crate::recording::event::{Body, Process, Thread};

/// Start times from /proc come in clock ticks of 10 ms: a start time of the kernel within this is the same process.
const TICK_NS: u64 = 10_000_000;

/// Processes and threads by identity.
#[derive(Debug, Default)]
pub struct Names {
    processes: HashMap<u32, Known>,
    threads: HashMap<(u32, u64), Thread>,
    attached_ns: u64,
}

#[derive(Debug)]
struct Known {
    process: NodeProcess,
    pod: Option<u32>,
    /// Looked at when it was already gone: what is known comes from the thread that charged.
    guessed: bool,
}

impl Names {
    /// Names as of a tracer that attached at this time.
    #[must_use]
    pub fn new(attached_ns: u64) -> Self {
        Self {
            attached_ns,
            ..Self::default()
        }
    }

    /// Notes a thread that charged (or renamed itself): the events to emit, if anything about it is new.
    pub fn thread(&mut self, node: &Node, pods: &Pods<'_>, seen: &Seen) -> Vec<Body> {
        let comm = comm_text(&seen.comm);
        if let Some(known) = self.threads.get(&(seen.tid, seen.start_ns))
            && known.comm == comm
        {
            return Vec::new();
        }
        let mut events = Vec::new();
        self.process(node, pods, seen.tgid, &comm, seen.memcg, &mut events);
        let Some(known) = self.processes.get(&seen.tgid) else {
            return events;
        };
        let thread = Thread {
            tid: seen.tid,
            start_ns: seen.start_ns,
            pid: seen.tgid,
            pod: known.pod,
            role: thread_role(&known.process, seen.tid, &comm),
            comm,
            exited: false,
        };
        self.threads.insert((seen.tid, seen.start_ns), thread.clone());
        events.push(Body::Thread(thread));
        events
    }

    /// Notes a process of a pod, whether or not it charges.
    pub fn process(&mut self, node: &Node, pods: &Pods<'_>, pid: u32, comm: &str, memcg: u64, events: &mut Vec<Body>) {
        let start_ns = node.start_ns(pid);
        if let Some(known) = self.processes.get(&pid) {
            let same = start_ns.is_none_or(|start_ns| start_ns == known.process.start_ns);
            if same && !(known.guessed && start_ns.is_some()) {
                return;
            }
        }
        let found = if pid == 0 { Some(idle_task()) } else { node.process(pid) };
        let guessed = found.is_none();
        let process = found.unwrap_or_else(|| NodeProcess {
            pid,
            comm: comm.to_owned(),
            name: comm.to_owned(),
            ..Default::default()
        });
        let own_memcg = node
            .memcg_path(pid)
            .and_then(|path| node.memcg(&path))
            .map(|found| found.id);
        // A process that is already gone charged here, so it is taken to have been here.
        let own_memcg = own_memcg.unwrap_or(if guessed { memcg } else { 0 });
        let pod = pods.of_memcg(own_memcg);
        events.push(Body::Process(Process {
            pid,
            start_ns: process.start_ns,
            pod,
            memcg: own_memcg,
            comm: process.comm.clone(),
            name: process.name.clone(),
            role: process_role(&process),
            rss: process.rss.total(),
            rss_anon: Some(process.rss.anon.saturating_add(process.rss.shmem)),
            before_attach: process.start_ns < self.attached_ns && process.start_ns != 0,
            exited: false,
        }));
        self.processes.insert(pid, Known { process, pod, guessed });
    }

    /// A process started another program: what is known of it is out of date.
    pub fn forget_process(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.threads.retain(|_, thread| thread.pid != pid);
    }

    /// A thread is gone for good. Returns its last event.
    pub fn exited(&mut self, tid: u32, start_ns: u64, comm: &[u8; COMM_LEN]) -> Option<Body> {
        let mut thread = self.threads.remove(&(tid, start_ns))?;
        let comm = comm_text(comm);
        if comm != thread.comm
            && let Some(known) = self.processes.get(&thread.pid)
        {
            thread.role = thread_role(&known.process, tid, &comm);
            thread.comm = comm;
        }
        thread.exited = true;
        if thread.tid == thread.pid {
            self.processes.remove(&thread.pid);
        }
        Some(Body::Thread(thread))
    }

    /// The role of a thread as known, by thread id alone.
    #[must_use]
    pub fn role(&self, tid: u32, tgid: u32, comm: &str) -> Option<crate::role::Role> {
        let known = self.processes.get(&tgid)?;
        Some(thread_role(&known.process, tid, comm))
    }
}

/// The idle tasks, which /proc does not show. What interrupts free on an idle CPU is freed in their name.
fn idle_task() -> NodeProcess {
    NodeProcess {
        comm: "swapper".to_owned(),
        name: "swapper".to_owned(),
        kernel: true,
        ..NodeProcess::default()
    }
}

/// A thread as a record shows it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Start time of the thread.
    pub start_ns: u64,
    /// The memcg that it charged.
    pub memcg: u64,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}

/// Which pod a memcg belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Pods<'a>(pub &'a HashMap<u64, u32>);

impl Pods<'_> {
    /// Number of the pod of a memcg.
    #[must_use]
    pub fn of_memcg(self, memcg: u64) -> Option<u32> {
        self.0.get(&memcg).copied()
    }
}

/// A thread's name as text: up to the first NUL, odd bytes replaced.
#[must_use]
pub fn comm_text(comm: &[u8; COMM_LEN]) -> String {
    let len = comm.iter().position(|&byte| byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&comm[..len]).into_owned()
}

/// Whether a thread that started at this time still lives under its id.
#[must_use]
pub fn is_alive(node: &Node, tid: u32, start_ns: u64) -> bool {
    node.start_ns(tid)
        .is_some_and(|found| found.abs_diff(start_ns) <= TICK_NS)
}
