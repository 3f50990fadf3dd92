//! The processes of a virt-launcher pod: names and command lines as KubeVirt gives them.
//!
//! kubevirt: cmd/virt-launcher-monitor, pkg/virt-launcher/virtwrap (1.5); thread names: qemu util/thread-pool.c,
//! iothread.c, accel/kvm/kvm-accel-ops.c (10.1).

use super::actor::spec::{Backend, GuestRam, Spec, Thread};
use super::plan::{MIB, Member, Program};
use super::tree::Identity;
use crate::role::Role;

/// Namespace of the lab's VM.
pub const NAMESPACE: &str = "lab";
/// Its name.
pub const VM: &str = "vm1";
/// Virtual CPUs of the lab's VM.
pub const VCPUS: u32 = 2;

/// The role of a helper daemon.
#[must_use]
pub fn helper(name: &str) -> Role {
    Role::Helper(name.to_owned())
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn daemon(name: &str, argv: Vec<String>, threads: &[&str]) -> Member {
    Member {
        name: name.to_owned(),
        argv,
        program: Program::StandIn(Spec {
            guest_ram: None,
            threads: threads.iter().map(|comm| Thread::idle(comm, helper(name))).collect(),
        }),
    }
}

/// virt-launcher-monitor, the container's first process.
#[must_use]
pub fn monitor(identity: &Identity) -> Member {
    let argv = words(&format!(
        "/usr/bin/virt-launcher-monitor --qemu-timeout 302s --name {VM} --uid {} --namespace {NAMESPACE} \
         --kubevirt-share-dir /var/run/kubevirt --ephemeral-disk-dir /var/run/kubevirt-ephemeral-disks",
        identity.vmi_uid
    ));
    daemon("virt-launcher-monitor", argv, &["virt-launcher-m"])
}

/// virt-launcher.
#[must_use]
pub fn launcher(identity: &Identity) -> Member {
    let argv = words(&format!(
        "/usr/bin/virt-launcher --qemu-timeout 302s --name {VM} --uid {} --namespace {NAMESPACE} \
         --kubevirt-share-dir /var/run/kubevirt --ephemeral-disk-dir /var/run/kubevirt-ephemeral-disks",
        identity.vmi_uid
    ));
    daemon("virt-launcher", argv, &["virt-launcher", "virt-launcher"])
}

/// libvirt's QEMU daemon. Its second thread serves requests.
#[must_use]
pub fn virtqemud() -> Member {
    daemon(
        "virtqemud",
        words("/usr/sbin/virtqemud -f /var/run/libvirt/virtqemud.conf"),
        &["virtqemud", "rpc-virtqemud", "prio-rpc-virtqe"],
    )
}

/// libvirt's log daemon.
#[must_use]
pub fn virtlogd() -> Member {
    daemon(
        "virtlogd",
        words("/usr/sbin/virtlogd -f /etc/libvirt/virtlogd.conf"),
        &["virtlogd"],
    )
}

/// passt, the user-mode network.
#[must_use]
pub fn passt() -> Member {
    daemon(
        "passt",
        words("/usr/bin/passt.avx2 --vhost-user --socket /var/run/kubevirt/passt.sock"),
        &["passt.avx2"],
    )
}

/// A program that somebody started inside the container to hold memory.
#[must_use]
pub fn memhold(bytes: u64) -> Member {
    Member {
        name: "memhold".to_owned(),
        argv: vec!["memhold".to_owned(), (bytes / MIB).to_string()],
        program: Program::StandIn(Spec {
            guest_ram: None,
            // No daemon that a pod is known to have.
            threads: vec![Thread::idle("memhold", Role::Other("memhold".to_owned()))],
        }),
    }
}

/// The helpers that every pod has.
#[must_use]
pub fn helpers(identity: &Identity) -> Vec<Member> {
    vec![monitor(identity), launcher(identity), virtqemud(), virtlogd()]
}

/// A stand-in QEMU with the threads of a real one.
#[must_use]
pub fn qemu(ram: GuestRam) -> Member {
    let mut threads = vec![
        Thread::idle("qemu-system-x86", Role::MainLoop),
        Thread::idle("call_rcu", Role::Rcu),
        Thread::idle("IO iothread1", Role::IoThread("iothread1".to_owned())),
        Thread::idle("IO mon_iothread", Role::IoThread("mon_iothread".to_owned())),
        Thread::idle("worker", Role::BlockWorker),
    ];
    for vcpu in 0..VCPUS {
        threads.push(Thread::idle(&format!("CPU {vcpu}/KVM"), Role::Vcpu(vcpu)));
    }
    Member {
        name: "qemu".to_owned(),
        argv: qemu_argv(ram),
        program: Program::StandIn(Spec {
            guest_ram: Some(ram),
            threads,
        }),
    }
}

/// QEMU's command line as libvirt writes it, as far as it matters to who reads it.
fn qemu_argv(ram: GuestRam) -> Vec<String> {
    let object = match ram.backend {
        Backend::Ram => format!(
            r#"{{"qom-type":"memory-backend-ram","id":"pc.ram","size":{}}}"#,
            ram.bytes
        ),
        Backend::Memfd => format!(
            r#"{{"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"x-use-canonical-path-for-ramblock-id":false,"size":{}}}"#,
            ram.bytes
        ),
        Backend::Hugepages => format!(
            r#"{{"qom-type":"memory-backend-memfd","id":"pc.ram","hugetlb":true,"hugetlbsize":2097152,"prealloc":true,"size":{}}}"#,
            ram.bytes
        ),
    };
    let mut argv = words(&format!(
        "/usr/bin/qemu-system-x86_64 -name guest={NAMESPACE}_{VM},debug-threads=on -S \
         -machine pc-q35-9.1,usb=off,dump-guest-core=off,memory-backend=pc.ram,acpi=on -accel kvm -cpu host \
         -m size={}k -smp {VCPUS},sockets=1,dies=1,cores={VCPUS},threads=1",
        ram.bytes >> 10
    ));
    argv.extend(["-object".to_owned(), object]);
    argv.extend([
        "-object".to_owned(),
        r#"{"qom-type":"iothread","id":"iothread1"}"#.to_owned(),
    ]);
    argv
}

impl Member {
    /// The stand-in's thread of this name. For scenarios to give it work.
    ///
    /// # Panics
    /// When it is no stand-in or has no such thread: the scenario and the cast disagree.
    #[must_use]
    pub fn with(mut self, comm: &str, work: impl FnOnce(Thread) -> Thread) -> Self {
        let thread = match &mut self.program {
            Program::StandIn(spec) => spec.threads.iter_mut().find(|thread| thread.comm == comm),
            Program::Real(_) => None,
        };
        let thread = thread.unwrap_or_else(|| panic!("{} has no thread {comm}", self.name));
        *thread = work(thread.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_every_thread_name_whole() {
        let identity = Identity::random().expect("/proc is mounted");
        let ram = GuestRam {
            bytes: 64 * MIB,
            backend: Backend::Ram,
        };
        let mut members = helpers(&identity);
        members.extend([passt(), memhold(MIB), qemu(ram)]);
        for member in members {
            let Program::StandIn(spec) = member.program else {
                panic!("{} is no stand-in", member.name)
            };
            assert!(
                spec.threads.iter().all(|thread| thread.comm.len() <= 15),
                "{}",
                member.name
            );
        }
    }

    #[test]
    fn guest_ram_is_in_the_command_line_as_libvirt_writes_it() {
        let ram = GuestRam {
            bytes: 256 * MIB,
            backend: Backend::Memfd,
        };
        let line = qemu_argv(ram).join(" ");
        assert!(line.contains(r#""size":268435456}"#));
        assert!(line.contains("-m size=262144k "));
        assert!(line.contains("guest=lab_vm1,debug-threads=on"));
    }
}
