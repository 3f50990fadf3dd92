//! Tables by role, thread and file.

use super::cell::{Part, Size, bar, name};
use crate::report::{CulpritReport, PodReport, RoleReport, ThreadReport, words};
use crate::units::{Bytes, SignedBytes};

/// Threads and files shown at first.
const TOP: usize = 20;

/// Threads and files in the page; the rest is added up.
const MOST: usize = 200;

pub(super) struct RoleRow {
    pub role: String,
    pub threads: u64,
    pub growth: Size,
    pub live: Option<Size>,
    pub charged: Size,
    pub given_back: Size,
    pub kinds: String,
    pub bar: Vec<Part>,
    pub blamed: bool,
}

pub(super) struct ThreadRow {
    pub tid: String,
    pub tid_sort: i64,
    pub comm: String,
    pub process: String,
    pub role: String,
    pub growth: Size,
    pub live: Option<Size>,
    pub guest: Size,
    pub stalled: String,
    pub stalled_ns: u64,
    pub kinds: String,
    pub blamed: bool,
    /// Shown on demand.
    pub beyond: bool,
}

/// Threads that have no row.
pub(super) struct OtherThreads {
    pub count: u64,
    pub growth: String,
    pub live: Option<String>,
    pub guest: String,
}

pub(super) struct FileRow {
    pub added: Size,
    pub name: String,
}

pub(super) fn roles(pod: &PodReport) -> Vec<RoleRow> {
    let largest = pod.by_role.iter().map(|role| role.overhead_growth).max().unwrap_or(0);
    let row = |role: &RoleReport| RoleRow {
        role: name(role.role.to_string()),
        threads: role.threads,
        growth: Size::signed(role.overhead_growth),
        live: role.live.map(Size::of),
        charged: Size::signed(role.charged),
        given_back: Size::of(role.uncharged),
        kinds: words::kinds(&role.kinds),
        bar: bar(&role.kinds, largest),
        blamed: pod.culprit.as_ref().is_some_and(|culprit| culprit.role == role.role),
    };
    pod.by_role.iter().map(row).collect()
}

pub(super) fn threads(pod: &PodReport) -> (Vec<ThreadRow>, Option<OtherThreads>) {
    let rows = pod
        .by_thread
        .iter()
        .take(MOST)
        .enumerate()
        .map(|(index, thread)| ThreadRow {
            tid: thread.tid.map_or_else(|| "–".to_owned(), |tid| tid.to_string()),
            tid_sort: thread.tid.map_or(-1, i64::from),
            comm: name(&thread.comm),
            process: name(&thread.process),
            role: name(thread.role.to_string()),
            growth: Size::signed(thread.overhead_growth),
            live: thread.live.map(Size::of),
            guest: Size::of(thread.guest_charged),
            stalled: match thread.reclaim_ns {
                0 => "–".to_owned(),
                ns => words::nanoseconds(ns),
            },
            stalled_ns: thread.reclaim_ns,
            kinds: words::kinds(&thread.kinds),
            blamed: pod.culprit.as_ref().is_some_and(|culprit| is_blamed(thread, culprit)),
            beyond: index >= TOP,
        })
        .collect();
    let rest = pod.by_thread.get(MOST..).unwrap_or_default();
    let others = (!rest.is_empty()).then(|| OtherThreads {
        count: rest.iter().fold(0, |sum, thread| sum.saturating_add(thread.threads)),
        growth: SignedBytes(
            rest.iter()
                .fold(0, |sum, thread| sum.saturating_add(thread.overhead_growth)),
        )
        .to_string(),
        live: pod.live.as_ref().map(|_| {
            let live = rest.iter().filter_map(|thread| thread.live);
            Bytes(live.fold(0, u64::saturating_add)).to_string()
        }),
        guest: Bytes(
            rest.iter()
                .fold(0, |sum, thread| sum.saturating_add(thread.guest_charged)),
        )
        .to_string(),
    });
    (rows, others)
}

fn is_blamed(thread: &ThreadReport, culprit: &CulpritReport) -> bool {
    thread.process == culprit.process && (thread.role == culprit.role || culprit.process != "qemu")
}

pub(super) fn files(pod: &PodReport) -> Vec<FileRow> {
    pod.files
        .iter()
        .take(MOST)
        .map(|file| FileRow {
            added: Size::of(file.bytes),
            name: match &file.path {
                Some(path) => name(path),
                None => name(format!("inode {} on {}", file.inode, file.device)),
            },
        })
        .collect()
}
