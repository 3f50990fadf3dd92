//! A pod's tree as systemd-cgls shows it: slices, scopes, processes, and here their threads too.

use std::collections::{BTreeMap, HashMap};

use tracer_common::OVERFLOW_TID;

use super::feed::Feed;
use super::history::History;
use super::items::{Item, Key, What};
use super::snapshot::class;
use crate::ledger::{PodLedger, Resolved, ThreadGrowth, ThreadKey};
use crate::recording::event::{Process, Thread};

/// Processes under construction, by process id.
type Processes = HashMap<u32, Item>;

/// The tree of a pod: usually one root, and what was charged from outside beside it.
#[must_use]
pub fn tree(feed: &Feed, pod: &PodLedger, resolved: &Resolved<'_>) -> Vec<Item> {
    let history = feed.history(pod.pod.pod);
    let (mut processes, rest) = with_threads(feed, resolved, history);
    let number = pod.pod.pod;
    for process in feed.ledger().processes() {
        if process.pod == Some(number) && !process.exited {
            processes
                .entry(process.pid)
                .or_insert_with(|| process_item(process.pid, Some(process)));
        }
    }
    let mut cgroups: BTreeMap<&str, Item> = BTreeMap::new();
    let mut paths: HashMap<u64, &str> = HashMap::new();
    for memcg in &pod.pod.memcgs {
        paths.insert(memcg.id, &memcg.path);
        let mut item = Item::new(Key::Cgroup(memcg.path.clone()), What::Cgroup, last(&memcg.path));
        if let Some(sample) = feed.sample(memcg.id) {
            item.usage = Some(sample.usage);
            item.limit = sample.limit;
        }
        cgroups.insert(&memcg.path, item);
    }
    for memcg in &pod.pod.memcgs {
        for above in std::iter::successors(parent(&memcg.path), |path| parent(path)) {
            if !above.is_empty() {
                cgroups
                    .entry(above)
                    .or_insert_with(|| Item::new(Key::Cgroup(above.to_owned()), What::Above, last(above)));
            }
        }
    }
    let mut outside = Item::new(Key::Outside, What::Group, "outside the pod");
    for (pid, mut item) in processes {
        join_single_thread(pid, &mut item);
        let process = feed
            .ledger()
            .process_of(pid)
            .filter(|process| process.pod == Some(number));
        let cgroup = process
            .and_then(|process| paths.get(&process.memcg))
            .and_then(|path| cgroups.get_mut(path));
        cgroup.unwrap_or(&mut outside).adopt(item);
    }
    let mut roots = nested(cgroups);
    roots.extend([outside, rest].into_iter().filter(|group| !group.children.is_empty()));
    roots
}

/// Every thread below its process, and the threads of which no process is known.
fn with_threads(feed: &Feed, resolved: &Resolved<'_>, history: Option<&History>) -> (Processes, Item) {
    let mut processes = Processes::new();
    let mut rest = Item::new(Key::Rest, What::Group, "threads not told apart");
    let mut ended: HashMap<u32, Item> = HashMap::new();
    for growth in &resolved.threads {
        let item = thread_item(feed, growth, history);
        let thread = growth.key.and_then(|key| feed.ledger().thread_of(key));
        let Some(thread) = thread else {
            rest.adopt(item);
            continue;
        };
        let group = if thread.exited && thread.tid != thread.pid {
            ended
                .entry(thread.pid)
                .or_insert_with(|| Item::new(Key::Ended(thread.pid), What::Group, "ended threads"))
        } else {
            processes
                .entry(thread.pid)
                .or_insert_with(|| process_item(thread.pid, feed.ledger().process_of(thread.pid)))
        };
        if matches!(group.key, Key::Ended(_)) {
            // Workers live for milliseconds: a row each would hide everything else.
            group.take(&item);
        } else {
            group.adopt(item);
        }
    }
    for (pid, item) in ended {
        processes
            .entry(pid)
            .or_insert_with(|| process_item(pid, feed.ledger().process_of(pid)))
            .adopt(item);
    }
    (processes, rest)
}

/// The item of a thread, or of a group of ended ones, with the name that people know it by.
#[must_use]
pub fn thread_item(feed: &Feed, growth: &ThreadGrowth<'_>, history: Option<&History>) -> Item {
    let name = match growth.key {
        Some(key) => thread_name(key, feed.ledger().thread_of(key)),
        None => format!("ended: {}", growth.entity.role),
    };
    Item::of(growth, name, history)
}

fn thread_name(key: ThreadKey, thread: Option<&Thread>) -> String {
    match thread {
        Some(thread) => format!("{} {}", thread.tid, thread.comm),
        None if key.tid == OVERFLOW_TID => "too many threads".to_owned(),
        None => format!("{} without a name", key.tid),
    }
}

fn process_item(pid: u32, process: Option<&Process>) -> Item {
    let name = process.map_or_else(
        || format!("{pid}"),
        |process| {
            let ended = if process.exited { " (ended)" } else { "" };
            format!("{pid} {}{ended}", process.name)
        },
    );
    let mut item = Item::new(Key::Process(pid), What::Process, name);
    // What QEMU is for is told thread by thread.
    let process = process.filter(|process| process.name != "qemu");
    item.role = process.map(|process| class(&process.role));
    item
}

/// A process whose only thread is its main thread is one row.
fn join_single_thread(pid: u32, item: &mut Item) {
    if let [thread] = item.children.as_slice()
        && matches!(thread.key, Key::Thread(key) if key.tid == pid)
    {
        item.role = item.role.take().or_else(|| thread.role.clone());
        item.children.clear();
    }
}

/// Cgroups, each in the nearest one above it.
fn nested(mut cgroups: BTreeMap<&str, Item>) -> Vec<Item> {
    let mut roots = Vec::new();
    // What is below sorts behind what it is in.
    while let Some((path, item)) = cgroups.pop_last() {
        let above = std::iter::successors(parent(path), |path| parent(path));
        match above.into_iter().find(|above| cgroups.contains_key(above)) {
            Some(above) => {
                if let Some(above) = cgroups.get_mut(above) {
                    above.adopt(item);
                }
            }
            None => roots.push(item),
        }
    }
    roots
}

/// The path of the cgroup above; `None` for the root.
fn parent(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit_once('/').map(|(above, _)| above)
}

fn last(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}
