//! Every scenario of the lab on this machine's own kernel: the report equals the truth.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom_tests::{Run, Scenario, headroom};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest that a lab is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn play(name: &str, options: &[&str]) -> Result<Scenario> {
    let arguments = ["lab", name, "--json"].into_iter().chain(options.iter().copied());
    let run = Run::headroom(arguments)?;
    let scenario = Scenario::read(name, &run.stdout, &run.stderr)?;
    scenario.expect_truth()?;
    Ok(scenario)
}

#[test]
fn a_helper_that_holds_memory_is_to_blame_for_the_kill() -> Result<()> {
    let scenario = play("memhold", &[])?;
    let pod = scenario.pod()?;
    assert_eq!(pod["culprit"]["process"], "memhold", "{pod}");
    assert_eq!(pod["culprit"]["kind"], "anon", "{pod}");
    Ok(())
}

#[test]
fn a_daemon_that_leaks_is_to_blame() -> Result<()> {
    play("daemon-leak", &[]).map(drop)
}

#[test]
fn a_backup_shows_as_page_cache_and_heap_of_its_threads() -> Result<()> {
    play("backup-io", &[]).map(drop)
}

#[test]
fn kernel_memory_is_attributed() -> Result<()> {
    play("kernel-memory", &[]).map(drop)
}

#[test]
fn a_vcpu_that_is_charged_for_overhead_is_told_from_guest_ram() -> Result<()> {
    play("vcpu-overhead", &[]).map(drop)
}

#[test]
fn threads_of_milliseconds_are_all_counted() -> Result<()> {
    play("worker-storm", &[]).map(drop)
}

#[test]
fn a_guest_within_its_budget_is_not_blamed() -> Result<()> {
    let scenario = play("guest-only", &[])?;
    assert!(scenario.pod()?["culprit"].is_null(), "{:?}", scenario.pod());
    Ok(())
}

#[test]
fn guest_ram_in_a_memfd_is_told_from_overhead() -> Result<()> {
    play("memhold", &["--memory", "memfd"]).map(drop)
}

/// The guest is a real one, emulated by this machine's QEMU; what its QEMU allocates for itself, nobody knows beforehand.
#[test]
fn a_real_qemu_is_traced_on_this_machine() -> Result<()> {
    let scenarios: [&[&str]; 3] = [
        &["memhold", "--real"],
        &["backup-io", "--real", "--cache", "writeback"],
        &["backup-io", "--real", "--cache", "none"],
    ];
    let [killed, cached, direct] = thread::scope(|scope| {
        let plays = scenarios.map(|words| scope.spawn(move || play(words[0], &words[1..])));
        plays.map(|play| play.join().expect("it does not panic"))
    });
    let roles = |scenario: &Scenario| -> Result<Vec<(String, u64)>> {
        let roles = scenario.pod()?["by_role"].as_array().cloned().unwrap_or_default();
        let role = |role: &serde_json::Value| {
            let name = role["role"].as_str().context("a role has a name")?.to_owned();
            Ok((name, role["kinds"]["file"].as_u64().unwrap_or(0)))
        };
        roles.iter().map(role).collect()
    };
    let of_killed = roles(&killed?)?;
    ensure!(
        of_killed.iter().any(|(role, _)| role.starts_with("vcpu ")),
        "{of_killed:?}"
    );
    // Through the page cache the guest's writes are the workers'; past it there are none.
    let written = |roles: &[(String, u64)]| -> u64 { roles.iter().map(|(_, file)| *file).sum() };
    let (cached, direct) = (roles(&cached?)?, roles(&direct?)?);
    ensure!(
        cached
            .iter()
            .any(|(role, file)| role == "block-worker" && *file > 90 << 20),
        "{cached:?}"
    );
    ensure!(written(&direct) < 1 << 20, "{direct:?}");
    Ok(())
}

/// Cgroups, folders and processes of a lab.
fn left(lab: u32) -> Result<Vec<String>> {
    let name = format!("headroom-lab-{lab}");
    let mut found = Vec::new();
    let temporary = std::env::temp_dir();
    for parent in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"]
        .map(Into::into)
        .into_iter()
        .chain([temporary])
    {
        for entry in fs::read_dir(parent).into_iter().flatten() {
            let entry = entry?.file_name().to_string_lossy().into_owned();
            found.extend((entry == name || entry.starts_with(&format!("{name}-"))).then_some(entry));
        }
    }
    for entry in fs::read_dir("/proc")? {
        // Whoever ends meanwhile is not left.
        let groups = fs::read_to_string(entry?.path().join("cgroup")).unwrap_or_default();
        found.extend(
            groups
                .lines()
                .find(|line| line.contains(&format!("/{name}/")))
                .map(str::to_owned),
        );
    }
    Ok(found)
}

/// A lab that plays for half a minute, once its pod is there.
fn playing() -> Result<Child> {
    let lab = headroom()?
        .args(["lab", "daemon-leak", "--rate", "4MiB/s"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // A folder, a cgroup, and the pod's processes.
    wait_until(|| Ok(left(lab.id())?.len() > 5))?;
    Ok(lab)
}

fn wait_until(holds: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "it takes too long");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn an_interrupted_lab_leaves_nothing_behind() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = playing()?;
        let pid = lab.id();
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        let output = lab.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(1) && said.contains(&format!("stopped by {signal}")),
            "{said}"
        );
        let left = left(pid)?;
        ensure!(left.is_empty(), "{left:?}");
    }
    Ok(())
}

/// It could not clean up itself: its processes end with it, the next lab removes the rest.
#[test]
fn a_killed_lab_leaves_no_process_and_the_next_one_cleans_up() -> Result<()> {
    let mut lab = playing()?;
    let pid = lab.id();
    lab.kill()?;
    lab.wait()?;
    wait_until(|| Ok(left(pid)?.iter().all(|what| !what.contains('/'))))?;
    Run::headroom(["lab", "guest-only", "--no-trace", "--rate", "400MiB/s"])?;
    let left = left(pid)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
