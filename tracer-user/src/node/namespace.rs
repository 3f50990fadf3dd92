//! The cgroup namespace that this process is in. In a container that is not privileged, /proc tells where others are from
//! its own cgroup on (`/../../kubepods-….slice/…`), while the hierarchy may well be mounted whole.

use std::path::Path;

use super::bounded::{self, SMALL};
use super::cgroup::{Hierarchy, Memcg};

/// kernel: PROC_CGROUP_INIT_INO, include/linux/proc_ns.h: the number of the first cgroup namespace.
const FIRST: &str = "cgroup:[4026531835]";
/// Most cgroups that are looked at for the one we are in.
const MAX_CGROUPS: usize = 100_000;

/// Where the namespace begins in the hierarchy as it is mounted; `/` in the first namespace, and where only the
/// namespace's own part is mounted.
pub(super) fn root(root: &Path, hierarchy: &Hierarchy, own: Option<&str>) -> String {
    let whole = "/".to_owned();
    let namespace = std::fs::read_link(root.join("proc/self/ns/cgroup"));
    if namespace.is_ok_and(|namespace| namespace.as_os_str() == FIRST) {
        return whole;
    }
    let stat = bounded::text(&root.join("proc/self/stat"), SMALL);
    let pid = stat.and_then(|stat| stat.split(' ').next()?.parse().ok());
    let (Some(own), Some(pid), Some(top)) = (own, pid, hierarchy.memcg("/")) else {
        return whole;
    };
    let found = find(top, pid).map(|memcg| memcg.path);
    let begins = found.and_then(|path| Some(path.strip_suffix(own.trim_end_matches('/'))?.to_owned()));
    begins.filter(|begins| !begins.is_empty()).unwrap_or(whole)
}

/// The memcg below `top` that has this process.
fn find(top: Memcg, pid: u32) -> Option<Memcg> {
    let mut waiting = vec![top];
    let mut seen = 0;
    while let Some(memcg) = waiting.pop() {
        if memcg.processes().contains(&pid) {
            return Some(memcg);
        }
        seen += 1;
        if seen >= MAX_CGROUPS {
            return None;
        }
        waiting.extend(memcg.children(MAX_CGROUPS));
    }
    None
}

/// A path of /proc as one from the hierarchy's root; `None` when it climbs above that.
pub(super) fn absolute(begins: &str, path: &str) -> Option<String> {
    let parts = |path| str::split(path, '/').filter(|part: &&str| !part.is_empty());
    let mut whole: Vec<&str> = parts(begins).collect();
    for part in parts(path) {
        match part {
            ".." => drop(whole.pop()?),
            part => whole.push(part),
        }
    }
    Some(format!("/{}", whole.join("/")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::node::Node;
    use crate::node::test_tree::Tree;

    #[test]
    fn others_are_found_from_a_namespace_of_our_own() {
        let tree = Tree::v2();
        tree.group("/", 1, None, &[1]);
        tree.group("/kubepods/ours/scope", 2, None, &[77]);
        tree.group("/kubepods/vm/compute", 3, None, &[7]);
        std::fs::create_dir_all(tree.root().join("proc/self/ns")).unwrap();
        symlink("cgroup:[4026532999]", tree.root().join("proc/self/ns/cgroup")).unwrap();
        std::fs::write(tree.root().join("proc/self/stat"), "77 (headroom) S 1").unwrap();
        std::fs::write(tree.root().join("proc/self/cgroup"), "0::/\n").unwrap();
        tree.proc_file(7, "cgroup", "0::/../../vm/compute\n");
        tree.proc_file(8, "cgroup", "0::/../../../../../above\n");
        tree.proc_file(77, "cgroup", "0::/\n");
        let node = Node::new(tree.root()).unwrap();
        assert_eq!(node.memcg_path(7).as_deref(), Some("/kubepods/vm/compute"));
        assert_eq!(node.memcg_path(77).as_deref(), Some("/kubepods/ours/scope"));
        assert_eq!(node.memcg_path(8), None);
    }

    #[test]
    fn paths_are_joined_and_never_climb_out() {
        assert_eq!(absolute("/", "/a/b").as_deref(), Some("/a/b"));
        assert_eq!(absolute("/a/b", "/../c").as_deref(), Some("/a/c"));
        assert_eq!(absolute("/a/b", "/").as_deref(), Some("/a/b"));
        assert_eq!(absolute("/", "/").as_deref(), Some("/"));
        assert_eq!(absolute("/a", "/../../b"), None);
    }
}
