use super::*;
use crate::node::test_tree::Tree;

#[test]
fn hybrid_takes_the_v1_memory_mount() {
    let tree = Tree::hybrid();
    let hierarchy = Hierarchy::find(tree.root()).unwrap();
    assert_eq!(hierarchy.version, CgroupVersion::V1);
    assert!(hierarchy.mount.ends_with("sys/fs/cgroup/memory"));
}

#[test]
fn unified_needs_the_memory_controller() {
    let tree = Tree::v2();
    assert_eq!(Hierarchy::find(tree.root()).unwrap().version, CgroupVersion::V2);
    std::fs::write(tree.root().join("sys/fs/cgroup/cgroup.controllers"), "cpu pids\n").unwrap();
    let error = Hierarchy::find(tree.root()).unwrap_err();
    assert!(matches!(error, NodeError::NoMemoryController(_)), "{error}");
}

#[test]
fn a_limit_of_max_or_past_the_counter_is_none() {
    let tree = Tree::v1();
    tree.group("/a", 1, None, &[7, 8]);
    tree.group("/b", 1, Some(4096), &[]);
    let node = Node::new(tree.root()).unwrap();
    assert_eq!(node.memcg("/a").unwrap().processes(), [7, 8]);
    assert_eq!(node.memcg("/a").unwrap().limit(), None);
    assert_eq!(node.memcg("/b").unwrap().limit(), Some(4096));
}

#[test]
fn the_lowest_limit_kills_and_of_equals_the_outermost() {
    let tree = Tree::v2();
    tree.memcg("/top").file("memory.max", "10\n");
    tree.memcg("/top/pod").file("memory.max", "100\n");
    tree.memcg("/top/pod/compute").file("memory.max", "100\n");
    tree.memcg("/top/pod/compute/inner").file("memory.max", "max\n");
    let node = Node::new(tree.root()).unwrap();
    let inner = node.memcg("/top/pod/compute/inner").unwrap();
    let limiting = |top| inner.limiting(top).map(|(memcg, limit)| (memcg.path, limit));
    assert_eq!(limiting("/top/pod"), Some(("/top/pod".to_owned(), 100)));
    assert_eq!(limiting("/top/pod/compute"), Some(("/top/pod/compute".to_owned(), 100)));
    assert_eq!(limiting("/top/pod/compute/inner"), None);
    assert_eq!(limiting("/"), Some(("/top".to_owned(), 10)));
}

#[test]
fn paths_that_climb_are_refused() {
    let tree = Tree::v2();
    tree.memcg("/pod");
    let node = Node::new(tree.root()).unwrap();
    assert!(node.memcg("/pod/../..").is_none());
    assert!(node.memcg("/none").is_none());
    assert_eq!(node.memcg("pod/").unwrap().path, "/pod");
    assert_eq!(node.memcg("/").unwrap().path, "/");
}

#[test]
fn a_path_contains_itself_and_what_is_below_not_what_sounds_alike() {
    assert!(contains("/a", "/a") && contains("/a", "/a/b") && contains("/", "/a"));
    assert!(!contains("/a", "/ab") && !contains("/a/b", "/a"));
}

#[test]
fn a_process_s_memcg_is_read_from_the_right_hierarchy() {
    let tree = Tree::hybrid();
    tree.proc_file(
        7,
        "cgroup",
        "4:memory:/pod/compute\n1:cpu,cpuacct:/other\n0::/unified\n",
    );
    tree.proc_file(8, "cgroup", "4:memory:/../../else\n");
    let node = Node::new(tree.root()).unwrap();
    assert_eq!(node.memcg_path(7).as_deref(), Some("/pod/compute"));
    assert_eq!(node.memcg_path(8), None);
    assert_eq!(node.memcg_path(9), None);
}

#[test]
fn the_memcg_this_test_runs_in_can_be_read() {
    let Ok(node) = Node::new(Path::new("/")) else {
        return; // A build machine without the controller.
    };
    let root = node.memcg("/").unwrap();
    assert_eq!(root.limiting("/"), None);
    assert!(root.id != 0 && root.exists());
}
