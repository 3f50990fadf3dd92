//! Made-up processes and threads of the first pod, and what they are charged, for tests.

use tracer_common::{Kind, Region};

use super::event::{Charge, Process, Thread};
use crate::role::Role;

/// A process that was there before the tracer was, of which no more is known than its name.
pub fn process(pid: u32, memcg: u64, name: &str, role: Role) -> Process {
    Process {
        pid,
        start_ns: 1,
        pod: Some(1),
        memcg,
        comm: name.to_owned(),
        name: name.to_owned(),
        role,
        rss: 0,
        rss_anon: None,
        before_attach: true,
        exited: false,
    }
}

/// A thread that lives.
pub fn thread(tid: u32, pid: u32, comm: &str, role: Role) -> Thread {
    Thread {
        tid,
        start_ns: 1,
        pid,
        pod: Some(1),
        comm: comm.to_owned(),
        role,
        exited: false,
    }
}

/// What a thread was charged, of which nothing was given back.
pub fn charge(memcg: u64, tid: u32, kind: Kind, region: Region, charged: u64) -> Charge {
    Charge {
        memcg,
        tid,
        start_ns: 1,
        kind,
        region,
        charged,
        uncharged: 0,
    }
}
