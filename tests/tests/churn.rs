//! Cgroups that come and go, and too many of them: a tracer that runs for months must not fill up, and one pod must not
//! end the tracing of all others.

use std::fs;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use headroom::recording::State;
use headroom_tests::recording::{charge_sums, events, footer, footer_sums};
use headroom_tests::{Memcg, Recorder, Worker, headroom};
use nix::fcntl::{FcntlArg, fcntl};

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// The kernel side has room for accounts of some 1,800 memcgs.
const TOO_MANY: usize = 2400;
/// Of those that come and go, how many are there at a time.
const AT_A_TIME: usize = 200;
/// Threads that need more accounts than a memcg that is refused leaves free.
const MANY_THREADS: usize = 48;
/// Longest that a recording of a few seconds may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the targets are left unlooked at.
const SEEN: Duration = Duration::from_millis(1300);

/// A pipe that holds all it can, and that nobody reads.
fn full_pipe() -> Result<(PipeReader, PipeWriter)> {
    const SIZE: usize = 4096;
    let (reader, mut writer) = std::io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(i32::try_from(SIZE)?))?;
    writer.write_all(&[b'x'; SIZE])?;
    Ok((reader, writer))
}

/// A worker grows in the group; what it holds then.
fn grow(group: &Memcg) -> Result<(Worker, u64)> {
    let mut worker = Worker::start(STORM, group, "grow 40")?;
    worker.go()?;
    let mut held = 0;
    for _ in 0..30 {
        held = worker.numbers()?.1;
    }
    Ok((worker, held))
}

/// The recording is whole, and has what was held as anonymous memory of the group.
fn expect_recorded(recorder: &Recorder, group: &Memcg, held: u64) -> Result<()> {
    let (events, _) = events(&recorder.file)?;
    let maps = footer_sums(footer(&events)?);
    let id = group.id()?;
    let anon = maps
        .iter()
        .filter(|((memcg, kind, _), _)| *memcg == id && *kind == "anon");
    let anon: u64 = anon.map(|(_, (charged, _))| charged).sum();
    ensure!(anon >= held, "{anon} B of {held} B");
    let (mut sums, mut maps) = (charge_sums(&events), maps);
    sums.retain(|_, sum| *sum != (0, 0));
    maps.retain(|_, sum| *sum != (0, 0));
    ensure!(sums == maps, "{sums:?} is not {maps:?}");
    let loss = footer(&events)?.loss;
    ensure!(loss.lost_bytes == 0, "{loss:?}");
    Ok(())
}

#[test]
fn cgroups_that_come_and_go_leave_nothing_behind() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("churn.jsonl.zst"), &[])?;
    for round in 0..TOO_MANY / AT_A_TIME {
        let children: Vec<Memcg> = (0..AT_A_TIME)
            .map(|number| group.child(&format!("{round}-{number}")))
            .collect::<Result<_>>()?;
        sleep(SEEN);
        // The first of them is used, so that accounts of threads go too.
        let (mut worker, _) = grow(&children[0])?;
        worker.end()?;
    }
    sleep(SEEN);
    let (_worker, held) = grow(&group)?;
    recorder.interrupt()?;
    ensure!(
        !recorder.said.iter().any(|line| line.contains("not traced")),
        "{:?}",
        recorder.said
    );
    expect_recorded(&recorder, &group, held)?;
    let (events, _) = events(&recorder.file)?;
    let loss = footer(&events)?.loss;
    ensure!(loss.accounts_full == 0, "{loss:?}");
    Ok(())
}

#[test]
fn too_many_cgroups_do_not_end_the_recording() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("many.jsonl.zst"), &[])?;
    let _children: Vec<Memcg> = (0..TOO_MANY)
        .map(|number| group.child(&number.to_string()))
        .collect::<Result<_>>()?;
    recorder.await_line("one of its cgroups is not traced")?;
    // More threads than there can be room for: most have their charges in the overflow account.
    let mut storm = Worker::start(STORM, &group, &format!("storm {MANY_THREADS} 1"))?;
    storm.go()?;
    storm.numbers()?;
    let (_worker, held) = grow(&group)?;
    recorder.interrupt()?;
    expect_recorded(&recorder, &group, held)?;
    ensure!(fs::metadata(&recorder.file)?.len() > 0);
    Ok(())
}

/// Whoever reads what it says may have stopped: that must hold up neither the recording nor its end.
#[test]
fn warnings_that_nobody_reads_do_not_hold_it_up() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("unread.jsonl.zst");
    let (_reader, writer) = full_pipe()?;
    let mut recorder = headroom()?
        .args(["record", &group.target(), "-v", "--duration", "5s", "-o"])
        .arg(&file)
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    // Hundreds of warnings.
    let _children: Vec<Memcg> = (0..TOO_MANY)
        .map(|number| group.child(&number.to_string()))
        .collect::<Result<_>>()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match recorder.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                recorder.kill()?;
                recorder.wait()?;
                anyhow::bail!("it waits for whoever reads its warnings");
            }
            None => sleep(Duration::from_millis(50)),
        }
    };
    ensure!(status.success(), "{status}");
    let (_, state) = events(&file)?;
    ensure!(state == State::Complete, "{state:?}");
    Ok(())
}
