//! The VM harness itself: what it promises to the end-to-end tests, and that it takes nothing for success that is not.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use xtask::vm::{Cgroup, Status, Vm};

fn shell(name: &str, script: &str) -> Vm {
    let tools = ["/bin/cat", "/bin/mkdir", "/bin/sleep"];
    let vm = tools.into_iter().fold(Vm::new(name).program("/bin/sh"), Vm::program);
    vm.command(["/bin/sh", "-c", script])
}

#[test]
fn commands_run_one_by_one_on_a_node_like_system() -> Result<()> {
    let look = "set -e
        cat /sys/fs/cgroup/cgroup.subtree_control /proc/mounts
        echo kept > /results/kept; mkdir /results/below; echo 2 > /results/below/two
        sleep 1000 & echo to stderr >&2";
    let run = shell("harness", look)
        .command(["/bin/headroom", "--version"])
        .command(["/bin/sh", "-c", "exit 7"])
        .command(["/bin/sh", "-c", "kill -9 $$"])
        .command(["/bin/no-such-program"])
        .boot()?;
    assert!(run.release.starts_with("6.12."), "{}", run.release);
    let [look, version, exits, killed, missing] = run.commands.as_slice() else {
        panic!("five commands, not {:?}", run.commands);
    };
    assert_eq!(look.status, Status::Exited(0), "{}", look.stderr());
    assert_eq!(look.stderr(), "to stderr\n");
    for expected in [
        "memory\n",
        " /sys/kernel/tracing tracefs ",
        " /sys/fs/bpf bpf ",
        " /sys/fs/cgroup cgroup2 ",
    ] {
        assert!(look.stdout().contains(expected), "no {expected:?} in {}", look.stdout());
    }
    assert!(version.stdout().starts_with("headroom "), "{version:?}");
    assert_eq!(exits.status, Status::Exited(7));
    assert_eq!(killed.status, Status::Signalled(9));
    assert!(matches!(missing.status, Status::NotStarted(_)), "{missing:?}");
    assert_eq!(fs::read_to_string(run.file("kept"))?, "kept\n");
    assert_eq!(fs::read_to_string(run.file("below/two"))?, "2\n");
    assert!(fs::read_to_string(run.file("kernel.log"))?.contains("Linux version 6.12."));
    let error = run.expect_success().unwrap_err().to_string();
    assert!(error.contains("exit 7"), "{error}");
    Ok(())
}

#[test]
fn a_kernel_panic_is_a_failure_that_shows_the_panic() {
    // What was written a moment before a panic may be lost; what was written a while before is not.
    let error = shell("panic", "echo before; sleep 3; echo c > /proc/sysrq-trigger")
        .boot()
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("went off before its verdict"), "{error}");
    assert!(error.contains("before\n") && error.contains("Kernel panic"), "{error}");
}

#[test]
fn a_command_that_hangs_meets_the_deadline() {
    let begun = Instant::now();
    let hanging = shell("deadline", "echo said; exec sleep 1000").timeout(Duration::from_secs(15));
    let error = format!("{:#}", hanging.boot().unwrap_err());
    assert!(
        error.contains("no verdict within 15 s") && error.contains("said"),
        "{error}"
    );
    assert!(begun.elapsed() > Duration::from_secs(15));
}

#[test]
fn a_real_qemu_runs_on_the_vms_own_kvm() -> Result<()> {
    let script = "qemu-system-x86_64 -name guest=vm,debug-threads=on -nodefaults -no-user-config -display none \
            -accel kvm -machine pc -cpu qemu64 -m 64M -smp 2 -object iothread,id=iothread1 & qemu=$!
        for second in 1 2 3 4 5 6 7 8 9 10; do
            sleep 1
            threads=$(cat /proc/$qemu/task/*/comm)
            case $threads in *'CPU 1/KVM'*) break;; esac
        done
        echo \"$threads\"; cat /proc/mounts";
    let run = shell("real", script).real(true).boot()?;
    run.expect_success()?;
    let seen = run.commands[0].stdout();
    for expected in [
        "CPU 0/KVM\n",
        "CPU 1/KVM\n",
        "IO iothread1\n",
        "/dev/vdb /var/tmp ext4 ",
    ] {
        assert!(
            seen.contains(expected),
            "no {expected:?} in {seen}{}",
            run.commands[0].stderr()
        );
    }
    Ok(())
}

#[test]
fn an_older_kernel_has_cgroup_v1_the_real_qemu_and_the_environment() -> Result<()> {
    let script = "set -e
        mkdir /sys/fs/cgroup/memory/pod; echo $$ > /sys/fs/cgroup/memory/pod/cgroup.procs
        cat /sys/fs/cgroup/memory/pod/memory.usage_in_bytes /proc/mounts; echo $VARIABLE; test -c /dev/kvm";
    let vm = shell("v1", script).kernel("6.1").cgroup(Cgroup::V1).real(true);
    let run = vm.env("VARIABLE", "of the test").boot()?;
    run.expect_success()?;
    assert!(run.release.starts_with("6.1."), "{}", run.release);
    let seen = run.commands[0].stdout();
    assert!(
        seen.contains("\nof the test\n") && seen.contains(" /var/tmp ext4 "),
        "{seen}"
    );
    Ok(())
}

#[test]
fn a_kernel_without_the_v1_controller_is_refused() {
    let error = Vm::new("no-v1").cgroup(Cgroup::V1).boot().unwrap_err().to_string();
    assert!(error.contains("no v1 memory controller"), "{error}");
}
