//! `headroom watch --listen`: scraped by a real Prometheus, read by a strict parser, and asked by bad clients.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headroom_tests::{Memcg, Recorder, Run, Worker, headroom, http, readers};
use serde_json::Value;
use xtask::{paths, setup};

const STORM: &str = env!("CARGO_BIN_EXE_storm");
const LIMIT: u64 = 96 << 20;
const MIB: f64 = 1_048_576.0;
/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watches, and says where it listens.
fn watch(targets: &[&str], folder: &Path, options: &[&str]) -> Result<(Recorder, SocketAddr)> {
    let options = [&["--listen", "0"], options].concat();
    let watcher = Recorder::watch(targets, folder, &options)?;
    let said = watcher.said.iter().find_map(|line| {
        let address = line.strip_prefix("headroom: metrics at http://")?;
        address.strip_suffix("/metrics")
    });
    let address: SocketAddr = said
        .with_context(|| format!("no address in {:?}", watcher.said))?
        .parse()?;
    ensure!(
        address.ip().is_loopback(),
        "a port alone is of this node alone, not {address}"
    );
    Ok((watcher, address))
}

/// A Prometheus that scrapes every second; ended when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(target: SocketAddr, folder: &Path) -> Result<Self> {
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "scrape_configs:\n- job_name: headroom\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
                 static_configs:\n  - targets: ['{target}']\n"
            ),
        )?;
        // It cannot say which port it was given, so it is given one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(setup::prometheus()?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("prometheus.log"))?)
            .spawn()
            .context("cannot start prometheus")?;
        Ok(Self { child, address })
    }

    /// What it answers to a query of its API.
    fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.address, &format!("/api/v1/{path}"))?;
        let document: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        ensure!(document["status"] == "success", "{document}");
        Ok(document["data"].clone())
    }

    /// The only value of an instant query, once it has one that is `wanted`.
    fn await_value(&self, query: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            last = self.ask(&format!("query?query={encoded}")).ok();
            let values = last.as_ref().and_then(|data| data["result"].as_array());
            if let Some([result]) = values.map(Vec::as_slice) {
                let value: f64 = result["value"][1].as_str().context("a value")?.parse()?;
                if wanted(value) {
                    return Ok(value);
                }
            }
            sleep(Duration::from_millis(200));
        }
        anyhow::bail!("{query}: {last:?}")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a series in an exposition.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line?.parse().ok()
}

#[test]
fn a_prometheus_scrapes_a_leaking_vm_and_sees_who_leaks() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut watcher, address) = watch(&[], &folder.path().join("incidents"), &["--alert-eta", "5m"])?;
    let prometheus = Prometheus::start(address, folder.path())?;
    // Other pods of this node may be called the same, but none is watched that is of this limit.
    let mut lab = headroom()?
        .args([
            "lab",
            "daemon-leak",
            "--no-trace",
            "--rate",
            "5MiB/s",
            "--limit",
            "483MiB",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let of = |metric: &str, labels: &str| {
        format!(
            "{metric}{{{labels}}} and on(namespace, vm) (headroom_limit_bytes == {})",
            483 << 20
        )
    };
    prometheus.await_value(
        &of("headroom_overhead_bytes", r#"role="helper virtqemud",kind="anon""#),
        |bytes| bytes > 60.0 * MIB,
    )?;
    let eta = prometheus.await_value(&of("headroom_eta_seconds", ""), |_| true)?;
    ensure!(eta > 0.0 && eta < 60.0, "{eta} s left");
    prometheus.await_value(&of("headroom_alert", r#"alert="eta""#), |raised| raised > 0.5)?;
    let resident = prometheus.await_value(&of("headroom_guest_resident_bytes", ""), |_| true)?;
    ensure!((resident - 320.0 * MIB).abs() < 8.0 * MIB, "{resident}");
    ensure!(lab.wait()?.success(), "the lab failed");
    prometheus.await_value("headroom_oom_kills_total", |kills| kills > 0.5)?;
    let targets = prometheus.ask("targets")?;
    let target = &targets["activeTargets"][0];
    ensure!(target["health"] == "up" && target["lastError"] == "", "{target}");
    let metadata = prometheus.ask("metadata?metric=headroom_reclaim_stall_seconds")?;
    ensure!(
        metadata["headroom_reclaim_stall_seconds"][0]["type"] == "histogram",
        "{metadata}"
    );
    watcher.interrupt()
}

#[test]
fn figures_are_the_kernels_and_a_strict_parser_reads_them() -> Result<()> {
    let group = Memcg::create()?;
    group.set_limit(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let (mut watcher, address) = watch(&[&group.target()], &folder.path().join("incidents"), &[])?;
    let mut worker = Worker::start(STORM, &group, "storm 4 2")?;
    worker.go()?;
    worker.numbers()?;
    // The last sample is a second old at most; then nothing moves.
    sleep(Duration::from_millis(2500));
    let answer = http::get(address, "/metrics")?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(
        answer
            .head
            .to_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    let text = &answer.body;
    let pod = format!(
        r#"{{namespace="",vm="{}"}}"#,
        group.target().trim_start_matches("cgroup:/")
    );
    let of = |family: &str| {
        let series = format!("headroom_{family}_bytes{pod}");
        value(text, &series).with_context(|| format!("no {series} in\n{text}"))
    };
    let usage = group.usage()? as f64;
    ensure!(
        (of("usage")? - usage).abs() < 0.5 * MIB,
        "{}, not {usage}",
        of("usage")?
    );
    ensure!((of("limit")? - LIMIT as f64).abs() < 1.0);
    ensure!((of("headroom")? + of("usage")? - LIMIT as f64).abs() < 1.0);
    // What every role holds, with what was there before, is what is used.
    let overhead: f64 = text
        .lines()
        .filter(|line| line.starts_with("headroom_overhead_bytes{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    ensure!(
        (overhead + of("unexplained")? - of("usage")?).abs() < 4096.0,
        "{overhead} in\n{text}"
    );
    ensure!(
        value(text, "headroom_records_total").is_some_and(|records| records > 100.0),
        "{text}"
    );
    ensure!(value(text, "headroom_lost_bytes_total") == Some(0.0), "{text}");

    let file = folder.path().join("scrape");
    fs::write(&file, text)?;
    let families = readers::read("openmetrics.py", &file)?;
    ensure!(families.len() > 15, "{families:?}");
    let names: BTreeSet<&str> = families.iter().filter_map(|family| family["name"].as_str()).collect();
    expect_documented(&names)?;
    watcher.interrupt()
}

/// docs/metrics.md has every metric, and no other.
fn expect_documented(names: &BTreeSet<&str>) -> Result<()> {
    let text = fs::read_to_string(paths::workspace().join("docs/metrics.md"))?;
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let told: BTreeSet<String> = cells.map(str::to_owned).collect();
    // Counters are told by the name they are asked for.
    let bare: BTreeSet<&str> = told
        .iter()
        .map(|name| {
            name.strip_suffix("_total")
                .or(name.strip_suffix("_info"))
                .unwrap_or(name)
        })
        .collect();
    let missing: Vec<_> = names.difference(&bare).collect();
    let gone: Vec<_> = bare.difference(names).collect();
    ensure!(
        missing.is_empty() && gone.is_empty(),
        "not told: {missing:?}; not there: {gone:?}"
    );
    Ok(())
}

#[test]
fn bad_clients_are_let_go_and_keep_nobody_out() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let (mut watcher, address) = watch(&[&group.target()], folder.path(), &[])?;
    let healthy = || -> Result<()> {
        let answer = http::get(address, "/healthz")?;
        ensure!(answer.status == 200 && answer.body == "ok\n", "{answer:?}");
        let files = value(&http::get(address, "/metrics")?.body, "process_open_fds");
        let files = files.context("no process_open_fds")?;
        ensure!(files < 160.0, "{files} open files");
        Ok(())
    };
    healthy()?;
    // Many that say nothing, and many that ask and do not listen.
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = http::connect(address)?;
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        }
        silent.push(stream);
    }
    healthy()?;
    drop(silent);

    // A head that never ends, byte by byte.
    let begun = Instant::now();
    let mut slow = http::connect(address)?;
    slow.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    while slow.write_all(b"a").is_ok() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "it is still listened to");
        sleep(Duration::from_millis(100));
    }
    // A head that is too large, and a body that nobody asked for.
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let mut stream = http::connect(address)?;
    let sent = stream.write_all(large.as_bytes());
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).unwrap_or(0);
    let refused = String::from_utf8_lossy(&answer[..read]).contains(" 431 ");
    ensure!(sent.is_err() || read == 0 || refused, "{:?}", &answer[..read]);
    for (request, status) in [
        ("POST /metrics HTTP/1.0\r\nContent-Length: 1000000000\r\n\r\n", 405),
        ("DELETE /healthz HTTP/1.0\r\n\r\n", 405),
        ("GET /../../etc/passwd HTTP/1.0\r\n\r\n", 404),
        ("GET /metrics/ HTTP/1.0\r\n\r\n", 404),
        ("\u{1}\u{2}\u{3}\r\n\r\n", 400),
    ] {
        let answer = http::send(address, request)?;
        ensure!(answer.status == status, "{request:?}: {answer:?}");
    }
    let head = http::send(address, "HEAD /metrics HTTP/1.0\r\n\r\n")?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    healthy()?;
    watcher.interrupt()
}

#[test]
fn an_address_that_cannot_be_had_is_told() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let run = |address: &str| {
        Run::of(
            headroom()?
                .args(["watch", &group.target(), "--listen", address, "-o"])
                .arg(folder.path()),
        )
    };
    let address = taken.local_addr()?.to_string();
    run(&address)?.expect_one_line(1, &["cannot listen at", &address])?;
    for wrong in ["localhost", "99999", "127.0.0.1"] {
        let run = run(wrong)?;
        ensure!(
            run.status == Some(2) && run.stderr.contains("192.0.2.1:9769"),
            "{run:?}"
        );
    }
    Ok(())
}
