use super::*;
use crate::node::test_tree::Tree;

const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const GIB: u64 = 1 << 30;

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn qemu(tree: &Tree, pid: u32, guest: &str) {
    let name = format!("guest={guest},debug-threads=on");
    let object = r#"{"qom-type":"memory-backend-ram","id":"pc.ram","size":1073741824}"#;
    tree.process(
        pid,
        b"qemu-system-x86",
        Some(QEMU),
        &[QEMU, "-name", &name, "-object", object, "-m", "size=1048576k"],
    );
    tree.proc_file(pid, "maps", "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n");
}

fn launcher(tree: &Tree, pid: u32) {
    let args = [
        "/usr/bin/virt-launcher-monitor",
        "--qemu-timeout",
        "300s",
        "--name",
        "web",
        "--uid",
        "x",
        "--namespace=prod",
    ];
    tree.process(pid, b"virt-launcher-m", Some("/usr/bin/virt-launcher-monitor"), &args);
}

fn pods(tree: &Tree) -> Vec<VmPod> {
    Node::new(tree.root()).unwrap().pods()
}

#[test]
fn containerd_with_systemd_on_v2() {
    let tree = Tree::v2();
    let pod = format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        UID.replace('-', "_")
    );
    let compute = format!("{pod}/cri-containerd-{}.scope", id('a'));
    let log = format!("{pod}/cri-containerd-{}.scope", id('b'));
    launcher(&tree, 10);
    qemu(&tree, 11, "prod_web");
    tree.process(12, b"virt-tail", Some("/usr/bin/virt-tail"), &["virt-tail"]);
    tree.group("/kubepods.slice", 9, Some(GIB), &[]);
    tree.group(&pod, 500, Some(3 * GIB), &[]);
    tree.group(&compute, 400, Some(2 * GIB), &[10, 11]);
    tree.group(&log, 100, Some(60_000_000), &[12]);
    tree.process(13, b"nginx", Some("/usr/sbin/nginx"), &["nginx"]);
    tree.group(
        &format!(
            "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{}.scope",
            "1".repeat(32),
            id('c')
        ),
        1,
        None,
        &[13],
    );

    let found = pods(&tree);
    assert_eq!(found.len(), 1, "a pod without a VM is left out");
    let vm = &found[0];
    assert_eq!(
        (vm.label().as_str(), vm.pod_uid.as_str(), vm.kind),
        ("prod/web", UID, Kind::Pod)
    );
    assert_eq!(
        (vm.limiting.path.as_str(), vm.limit, vm.qemu),
        (compute.as_str(), Some(2 * GIB), Some(11))
    );
    assert_eq!(vm.guest.as_ref().unwrap().size, GIB);
    assert_eq!(vm.processes.len(), 3);
    let compute_flags: Vec<bool> = vm.containers.iter().map(|container| container.compute).collect();
    assert_eq!(compute_flags, [true, false]);
    let event = vm.to_event(7);
    let counted: Vec<(&str, bool)> = event
        .memcgs
        .iter()
        .map(|memcg| (memcg.path.as_str(), memcg.counted))
        .collect();
    assert_eq!(
        counted,
        [(pod.as_str(), false), (compute.as_str(), true), (log.as_str(), false)]
    );
    assert_eq!(
        (event.pod, event.qemu_pid, event.guest_ram, event.memcg),
        (7, 11, GIB, vm.limiting.id)
    );
}

#[test]
fn an_old_pod_on_v1_is_limited_as_a_whole() {
    let tree = Tree::v1();
    let pod = format!("/kubepods/burstable/pod{UID}");
    let compute = format!("{pod}/{}", id('a'));
    qemu(&tree, 11, "default_vm_1");
    tree.process(12, b"libvirtd", Some("/usr/sbin/libvirtd"), &["libvirtd"]);
    tree.group(&pod, 500, Some(2 * GIB), &[]);
    tree.group(&compute, 400, Some(2 * GIB), &[11, 12]);
    tree.process(14, b"pause", Some("/pause"), &["/pause"]);
    tree.group(&format!("{pod}/{}", id('b')), 1, None, &[14]);
    let vm = &pods(&tree)[0];
    assert_eq!((vm.namespace.as_str(), vm.vm.as_str()), ("default", "vm_1"));
    assert_eq!((vm.limiting.path.as_str(), vm.limit), (pod.as_str(), Some(2 * GIB)));
    assert!(vm.to_event(0).memcgs.iter().all(|memcg| memcg.counted));
}

#[test]
fn crio_with_a_child_and_a_threaded_housekeeping_below_a_prefix() {
    let tree = Tree::v2();
    let pod = format!(
        "/docker/x/kubelet.slice/kubelet-kubepods-pod{}.slice",
        UID.replace('-', "_")
    );
    let scope = format!("{pod}/crio-{}.scope", id('a'));
    qemu(&tree, 11, "ns_vm");
    tree.group(&pod, 5, None, &[]);
    tree.group(&scope, 5, Some(GIB), &[]);
    tree.group(&format!("{scope}/container"), 5, None, &[11]);
    // No memory controller in a threaded cgroup.
    tree.memcg(&format!("{scope}/container/housekeeping"));
    let vm = &pods(&tree)[0];
    assert_eq!((vm.limiting.path.as_str(), vm.memcgs.len()), (scope.as_str(), 3));
    assert_eq!((vm.containers.len(), vm.containers[0].compute), (1, true));
}

#[test]
fn a_libvirt_machine() {
    let tree = Tree::v2();
    let machine = "/machine.slice/machine-qemu\\x2d1\\x2dmy_vm.scope";
    qemu(&tree, 11, "my_vm");
    tree.group(machine, 5, None, &[]);
    tree.group(&format!("{machine}/libvirt"), 5, None, &[11]);
    tree.memcg(&format!("{machine}/libvirt/vcpu0"));
    let vm = &pods(&tree)[0];
    assert_eq!((vm.label().as_str(), vm.kind, vm.limit), ("my_vm", Kind::Machine, None));
    assert_eq!(vm.limiting.path, machine);
}

#[test]
fn a_pod_inside_a_pod_is_its_own() {
    let tree = Tree::v2();
    let outer = format!("/kubepods/pod{}", "f".repeat(32));
    let inner = format!("{outer}/{}/kubepods/pod{UID}", id('a'));
    qemu(&tree, 11, "ns_vm");
    tree.group(&outer, 5, Some(GIB), &[]);
    tree.group(&format!("{inner}/{}", id('b')), 5, None, &[11]);
    let found = pods(&tree);
    assert_eq!((found.len(), found[0].pod_uid.as_str(), found[0].limit), (1, UID, None));
}

#[test]
fn hostile_and_half_started_pods() {
    let tree = Tree::v2();
    let pod = format!("/kubepods/pod{UID}");
    // Only asks QEMU what it can do, and a process that merely calls itself QEMU.
    tree.process(
        11,
        b"qemu-system-x86",
        Some(QEMU),
        &[QEMU, "-machine", "none,accel=kvm:tcg"],
    );
    tree.process(12, b"qemu-system-x86", Some("/tmp/x"), &["x"]);
    tree.group(&pod, 5, Some(GIB), &[11, 12, 4711]);
    assert_eq!(pods(&tree), []);
    launcher(&tree, 10);
    tree.group(&pod, 5, Some(GIB), &[10, 11, 12]);
    let vm = &pods(&tree)[0];
    assert_eq!(
        (vm.label().as_str(), vm.qemu, vm.guest.as_ref()),
        ("prod/web", None, None)
    );
    // An unreadable command line.
    tree.process(10, b"x", Some("/bin/x"), &["x"]);
    tree.process(
        13,
        b"\x1b[2J",
        Some(QEMU),
        &["\u{1b}[2J", "-name", "guest=\u{1b}_\n", "-object", "{{{"],
    );
    tree.group(&pod, 5, Some(GIB), &[10, 13]);
    let vm = &pods(&tree)[0];
    assert_eq!(
        (vm.namespace.as_str(), vm.vm.as_str(), vm.qemu),
        ("", "\u{1b}_\n", Some(13))
    );
}

#[test]
fn a_pod_keeps_its_name_until_its_cgroup_goes() {
    let tree = Tree::v2();
    let pod = format!("/kubepods/pod{UID}");
    qemu(&tree, 11, "ns_vm");
    tree.group(&pod, 5, Some(GIB), &[11]);
    let node = Node::new(tree.root()).unwrap();
    let vm = node.pods().remove(0);
    tree.group(&pod, 5, Some(2 * GIB), &[]);
    let later = node.refresh(&vm).unwrap();
    assert_eq!(
        (later.label().as_str(), later.qemu, later.limit),
        ("ns/vm", None, Some(2 * GIB))
    );
    std::fs::remove_dir_all(&vm.top.dir).unwrap();
    assert_eq!(node.refresh(&vm), None);
}

#[test]
fn a_bare_cgroup_counts_against_a_limit_above_it() {
    let tree = Tree::v1();
    tree.group("/lab", 9, Some(GIB), &[]);
    tree.group("/lab/one", 5, None, &[]);
    let node = Node::new(tree.root()).unwrap();
    let pod = node.bare_cgroup(&node.memcg("/lab/one").unwrap()).unwrap();
    assert_eq!(
        (pod.vm.as_str(), pod.limiting.path.as_str(), pod.limit),
        ("one", "/lab", Some(GIB))
    );
    assert!(pod.to_event(1).memcgs[0].counted);
}
