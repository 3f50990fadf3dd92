//! What processes and threads are for: by their names, and by whose they are.

use super::process::Process;
use crate::role::{Role, names};

/// Role of a process as a whole.
#[must_use]
pub fn process_role(process: &Process) -> Role {
    if process.kernel {
        return kernel_role(process);
    }
    let name = process.name.as_str();
    if name == "qemu" {
        Role::MainLoop
    } else {
        names::helper(name).unwrap_or_else(|| Role::Other(name.to_owned()))
    }
}

/// Role of a thread of a process. Only QEMU's threads and workers that the kernel adds to it have roles of their own;
/// those of every other process do that process's work, whatever they are called.
#[must_use]
pub fn thread_role(process: &Process, tid: u32, comm: &str) -> Role {
    if process.kernel || !process.is_qemu() || tid == process.pid {
        return process_role(process);
    }
    qemu_thread_role(process, comm)
}

fn kernel_role(process: &Process) -> Role {
    names::worker(&process.comm).unwrap_or_else(|| Role::Kernel(process.name.clone()))
}

fn qemu_thread_role(process: &Process, comm: &str) -> Role {
    names::qemu_thread(comm)
        .or_else(|| is_unnamed_rcu(process, comm).then_some(Role::Rcu))
        .unwrap_or_else(|| Role::Other(comm.to_owned()))
}

/// The RCU thread starts before QEMU has read the option that turns thread names on, so it keeps the program's name.
/// Where that option is off, every thread does, and nothing can be said.
fn is_unnamed_rcu(process: &Process, comm: &str) -> bool {
    let named = process
        .args
        .iter()
        .any(|arg| arg.split(',').any(|option| option == "debug-threads=on"));
    named && (comm == process.comm || names::is_qemu(comm))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn qemu() -> Process {
        Process {
            pid: 100,
            comm: "qemu-system-x86".to_owned(),
            exe: Some("/usr/bin/qemu-system-x86_64".to_owned()),
            args: ["/usr/bin/qemu-system-x86_64", "-name", "guest=a_b,debug-threads=on"]
                .map(str::to_owned)
                .to_vec(),
            name: "qemu".to_owned(),
            ..Process::default()
        }
    }

    fn named(name: &str, kernel: bool) -> Process {
        Process {
            pid: 100,
            comm: name.to_owned(),
            name: name.split('/').next().unwrap().to_owned(),
            kernel,
            ..Process::default()
        }
    }

    #[test]
    fn qemu_s_threads_by_name() {
        let cases = [
            ("CPU 0/KVM", "vcpu 0"),
            ("CPU 127/KVM", "vcpu 127"),
            ("CPU 1/TCG", "vcpu 1"),
            ("ALL CPUs/TCG", "vcpu 0"),
            ("CPU x/KVM", "other CPU x/KVM"),
            ("CPU +1/KVM", "other CPU +1/KVM"),
            ("CPU 99999999999/KVM", "other CPU 99999999999/KVM"),
            ("IO iothread1", "iothread iothread1"),
            ("IO mon_iothread", "iothread mon_iothread"),
            ("worker", "block-worker"),
            ("worker/disk0", "block-worker"),
            ("workers", "other workers"),
            ("mig/src/main", "migration"),
            ("mig/src/recv_3", "migration"),
            ("mig/dst/fault", "migration"),
            ("live_migration", "migration"),
            ("return path", "migration"),
            ("bg_snapshot", "migration"),
            ("multifdsend_12", "migration"),
            ("multifdrecv_0", "migration"),
            ("postcopy/listen", "migration"),
            ("fault-default", "migration"),
            ("COLO incoming", "migration"),
            ("vnc_worker", "vnc"),
            ("call_rcu", "rcu"),
            ("qemu-system-x86", "rcu"),
            ("vhost-4711", "vhost"),
            ("vhost-", "other vhost-"),
            ("kvm-nx-lpage-re", "kvm"),
            ("kvm-pit/4711", "kvm"),
            ("iou-wrk-4711", "io_uring"),
            ("iou-sqp-4711", "io_uring"),
            ("touch_pages", "other touch_pages"),
            ("SPICE Worker", "other SPICE Worker"),
        ];
        for (comm, role) in cases {
            assert_eq!(thread_role(&qemu(), 101, comm).to_string(), role, "{comm}");
        }
    }

    #[test]
    fn qemu_s_main_thread_is_the_main_loop_whatever_its_name() {
        for comm in ["qemu-system-x86", "main", "CPU 0/KVM"] {
            assert_eq!(thread_role(&qemu(), 100, comm), Role::MainLoop);
        }
        assert_eq!(process_role(&qemu()), Role::MainLoop);
    }

    #[test]
    fn without_thread_names_no_thread_is_taken_for_rcu() {
        let mut quiet = qemu();
        quiet.args.truncate(1);
        assert_eq!(
            thread_role(&quiet, 101, "qemu-system-x86"),
            Role::Other("qemu-system-x86".to_owned())
        );
    }

    #[test]
    fn helpers_work_as_one() {
        for comm in ["rpc-virtqemud", "CPU 0/KVM", "vhost-1"] {
            let role = thread_role(&named("virtqemud", false), 101, comm);
            assert_eq!(role, Role::Helper("virtqemud".to_owned()));
        }
        let memhold = thread_role(&named("memhold", false), 101, "khugepaged");
        assert_eq!(memhold, Role::Other("memhold".to_owned()));
    }

    #[test]
    fn kernel_threads_by_what_they_are() {
        let role = |comm| process_role(&named(comm, true)).to_string();
        assert_eq!(role("vhost-4711"), "vhost");
        assert_eq!(role("kvm-nx-lpage-recovery-4711"), "kvm");
        assert_eq!(role("kvm-pit/4711"), "kvm");
        assert_eq!(role("khugepaged"), "kernel khugepaged");
        assert_eq!(role("kworker/u8:3-async_pf"), "kernel kworker");
    }

    proptest! {
        #[test]
        fn any_name_gets_one_role_that_keeps_it(comm in any::<String>(), tid in 101_u32..) {
            let role = thread_role(&qemu(), tid, &comm);
            prop_assert_eq!(&role, &thread_role(&qemu(), tid, &comm));
            match role {
                Role::Other(name) => prop_assert_eq!(name, comm),
                Role::IoThread(name) => prop_assert_eq!(format!("IO {name}"), comm),
                _ => {}
            }
        }

        #[test]
        fn a_hostile_process_keeps_its_name(name in any::<String>(), comm in any::<String>()) {
            let process = Process { name: format!("x{name}"), ..Process::default() };
            prop_assert_eq!(thread_role(&process, 1, &comm), Role::Other(format!("x{name}")));
        }
    }
}
