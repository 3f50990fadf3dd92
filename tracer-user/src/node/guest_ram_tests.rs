use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::node::test_tree::Tree;

const MIB: u64 = 1 << 20;

/// A mapping as smaps shows it.
fn smaps(start: u64, length: u64, rest: &str, rss_kib: u64, flags: &str) -> String {
    format!(
        "{start:x}-{:x} {rest}\nSize: {} kB\nRss: {rss_kib} kB\nShared_Hugetlb: 0 kB\nPrivate_Hugetlb: 0 kB\n\
         VmFlags: {flags}\n",
        start + length,
        length / 1024
    )
}

/// A QEMU with these options after `qemu` and this smaps (and the maps it implies).
fn qemu(options: &[&str], smaps: &str) -> (Tree, Node, Process) {
    let tree = Tree::v2();
    let args: Vec<&str> = ["/usr/bin/qemu-system-x86_64"].iter().chain(options).copied().collect();
    tree.process(100, b"qemu-system-x86", Some("/usr/bin/qemu-system-x86_64"), &args);
    let maps: String = smaps
        .lines()
        .filter(|line| !line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| format!("{line}\n"))
        .collect();
    tree.proc_file(100, "maps", maps);
    tree.proc_file(100, "smaps", smaps);
    let node = Node::new(tree.root()).unwrap();
    let process = node.process(100).unwrap();
    (tree, node, process)
}

const ANON: &str = "rw-p 00000000 00:00 0 ";
const GUEST_FLAGS: &str = "rd wr mr mw me dc ac dd hg mg";

fn ram(size: u64) -> String {
    format!(r#"{{"qom-type":"memory-backend-ram","id":"pc.ram","size":{size}}}"#)
}

#[test]
fn private_memory_is_found_by_its_size() {
    let text = [
        smaps(
            0x5600_0000_0000,
            300 * MIB,
            &format!("{ANON}                         [heap]"),
            9,
            "rd wr",
        ),
        smaps(0x7f00_0000_0000, 256 * MIB, ANON, 100 * 1024, GUEST_FLAGS),
        smaps(0x7f10_0000_0000, 16 * MIB, ANON, 1024, GUEST_FLAGS),
    ]
    .concat();
    let (_tree, node, process) = qemu(&["-m", "256", "-object", &ram(256 * MIB)], &text);
    let guest = node.guest_ram(&process).unwrap();
    assert_eq!((guest.size, guest.how), (256 * MIB, How::Backends));
    assert_eq!(guest.ranges.len(), 1);
    assert!(guest.contains(0x7f00_0000_0000) && !guest.contains(0x7f00_1000_0000) && guest.files.is_empty());
    assert_eq!(node.guest_resident(100, &guest).unwrap().pages, 100 * MIB);
}

#[test]
fn pieces_of_a_split_mapping_add_up() {
    let base = 0x7f00_0000_0000;
    let text = [
        smaps(base, 100 * MIB, ANON, 1024, GUEST_FLAGS),
        smaps(base + 100 * MIB, 56 * MIB, ANON, 2048, "rd wr dc nh"),
        smaps(base + 156 * MIB, 100 * MIB, ANON, 4096, GUEST_FLAGS),
    ]
    .concat();
    let (_tree, node, process) = qemu(&["-object", &ram(256 * MIB)], &text);
    let guest = node.guest_ram(&process).unwrap();
    assert_eq!(
        guest.ranges,
        [GuestRange {
            start: base,
            end: base + 256 * MIB
        }]
    );
    assert_eq!(node.guest_resident(100, &guest).unwrap().pages, 7 * MIB);
}

#[test]
fn of_mappings_of_one_size_the_one_with_qemu_s_flags_is_taken() {
    let text = [
        smaps(0x7e00_0000_0000, 64 * MIB, ANON, 9, "rd wr mr mw me ac nr"),
        smaps(0x7f00_0000_0000, 64 * MIB, ANON, 9, GUEST_FLAGS),
    ]
    .concat();
    let (_tree, node, process) = qemu(&["-object", &ram(64 * MIB)], &text);
    assert_eq!(node.guest_ram(&process).unwrap().ranges[0].start, 0x7f00_0000_0000);
}

#[test]
fn numa_nodes_of_one_size_take_a_mapping_each() {
    let text = [
        smaps(0x7e00_0000_0000, 64 * MIB, ANON, 9, GUEST_FLAGS),
        smaps(0x7f00_0000_0000, 64 * MIB, ANON, 9, GUEST_FLAGS),
    ]
    .concat();
    let node0 = "memory-backend-ram,id=ram-node0,size=64M";
    let node1 = "memory-backend-ram,id=ram-node1,size=64M";
    let (_tree, node, process) = qemu(&["-object", node0, "-object", node1], &text);
    let guest = node.guest_ram(&process).unwrap();
    assert_eq!(
        (guest.ranges.len(), guest.size, guest.how),
        (2, 128 * MIB, How::Backends)
    );
}

#[test]
fn a_memfd_is_found_with_its_inode_and_huge_pages_are_told_apart() {
    let rest = "rw-s 00000000 01:10 4711                      /memfd:memory-backend-memfd (deleted)";
    let text = smaps(0x7f00_0000_0000, 64 * MIB, rest, 0, "rd wr sh dc ht")
        .replace("Shared_Hugetlb: 0 kB", "Shared_Hugetlb: 2048 kB");
    let object = r#"{"qom-type":"memory-backend-memfd","id":"pc.ram","hugetlb":true,"size":66060288}"#;
    let (_tree, node, process) = qemu(&["-object", object], &text);
    let guest = node.guest_ram(&process).unwrap();
    let key = FileKey {
        inode: 4711,
        device: 1 << 20 | 16,
        padding: 0,
    };
    assert_eq!((guest.files.as_slice(), guest.size), ([key].as_slice(), 63 * MIB));
    assert_eq!((guest.hugetlb, guest.charged_size()), (63 * MIB, 0));
    let resident = node.guest_resident(100, &guest).unwrap();
    assert_eq!((resident.pages, resident.hugetlb), (0, 2 * MIB));
}

#[test]
fn without_a_backend_the_boot_size_is_looked_for() {
    let text = smaps(0x7f00_0000_0000, 512 * MIB, ANON, 9, GUEST_FLAGS);
    let (_tree, node, process) = qemu(&["-m", "512"], &text);
    let guest = node.guest_ram(&process).unwrap();
    assert_eq!(
        (guest.size, guest.how, guest.ranges.len()),
        (512 * MIB, How::BootSize, 1)
    );
}

#[test]
fn what_does_not_fit_is_not_guessed() {
    let text = smaps(0x7f00_0000_0000, 511 * MIB, ANON, 9, GUEST_FLAGS);
    let (_tree, node, process) = qemu(&["-m", "512"], &text);
    let guest = node.guest_ram(&process).unwrap();
    assert_eq!(
        (guest.size, guest.how, guest.ranges.len()),
        (512 * MIB, How::NotFound, 0)
    );
    assert_eq!(node.guest_resident(100, &guest), None);
    let (_tree, node, process) = qemu(&["\u{fffd}{,,", "-object", "{"], "nonsense\nRss: x\n-\n");
    assert_eq!(node.guest_ram(&process), Some(GuestRam::default()));
}

/// A real QEMU that is ended with the test.
struct RealQemu(Child);

impl RealQemu {
    /// `None` where QEMU is not installed.
    fn start(backend: &str) -> Option<Self> {
        let object = format!("{backend},id=pc.ram,size=64M");
        let machine = "pc,dump-guest-core=off,memory-backend=pc.ram";
        Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-accel",
                "tcg,tb-size=8",
                "-S",
            ])
            .args([
                "-name",
                "guest=ns_vm1,debug-threads=on",
                "-machine",
                machine,
                "-object",
                &object,
                "-m",
                "64M",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
            .map(Self)
    }
}

impl Drop for RealQemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn find_in_real_qemu(backend: &str) -> Option<(Node, u32, GuestRam)> {
    let node = Node::new(Path::new("/")).ok()?;
    let mut qemu = RealQemu::start(backend)?;
    let pid = qemu.0.id();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ended = qemu.0.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "no guest RAM found: {ended:?}"
        );
        let process = node.process(pid).unwrap();
        let found = node.guest_ram(&process).filter(|guest| guest.how == How::Backends);
        if let Some(guest) = found {
            let resident = node.guest_resident(pid, &guest).unwrap();
            assert!(process.is_qemu() && resident.pages <= guest.size);
            return Some((node, pid, guest));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_real_qemu_s_private_memory_is_found() {
    if let Some((_, _, guest)) = find_in_real_qemu("memory-backend-ram") {
        assert_eq!((guest.size, guest.ranges.len(), guest.files.len()), (64 * MIB, 1, 0));
    }
}

#[test]
fn a_real_qemu_s_memfd_is_found() {
    if let Some((_, _, guest)) = find_in_real_qemu("memory-backend-memfd") {
        assert_eq!((guest.size, guest.ranges.len(), guest.files.len()), (64 * MIB, 1, 1));
    }
}
