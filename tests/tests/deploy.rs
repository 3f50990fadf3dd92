//! What is deployed with headroom: manifests that Kubernetes' own schemas take, with exactly the privileges that headroom
//! needs, and rules and a dashboard that a real Prometheus evaluates over the metrics that headroom really has.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser as _;
use headroom::cli::Cli;
use headroom::node::privileges::PRIVILEGES;
use headroom_tests::{Memcg, Recorder, http};
use serde::Deserialize as _;
use serde_json::Value;
use xtask::process::capture;
use xtask::{paths, setup};

/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The oldest line that knows every field of the manifests, and the newest that the schemas are of.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

fn deployed(name: &str) -> PathBuf {
    paths::workspace().join("deploy").join(name)
}

/// The documents of a YAML file.
fn documents(name: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(deployed(name))?;
    serde_norway::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).with_context(|| name.to_owned()))
        .collect()
}

#[test]
fn kubernetes_takes_the_manifests() -> Result<()> {
    let program = setup::kubernetes()?.with_file_name("kubernetes-validate");
    for manifest in ["daemonset.yaml", "job.yaml"] {
        for version in VERSIONS {
            let path = deployed(manifest).display().to_string();
            let said = capture(Command::new(&program).args(["--strict", "-k", version, &path]));
            said.with_context(|| format!("{manifest} on {version}"))?;
        }
    }
    // A check that takes everything would be none.
    let folder = tempfile::tempdir()?;
    let wrong = folder.path().join("wrong.yaml");
    let text = fs::read_to_string(deployed("daemonset.yaml"))?;
    fs::write(&wrong, text.replace("hostPID:", "hostPid:"))?;
    let refused = Command::new(&program).arg("--strict").arg(&wrong).output()?;
    ensure!(!refused.status.success());
    Ok(())
}

/// The pod templates of the manifests.
fn templates() -> Result<Vec<Value>> {
    let all = [documents("daemonset.yaml")?, documents("job.yaml")?].concat();
    let specs: Vec<Value> = all
        .iter()
        .map(|one| one["spec"]["template"]["spec"].clone())
        .filter(Value::is_object)
        .collect();
    ensure!(specs.len() == 2, "{all:?}");
    Ok(specs)
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn what_is_deployed_has_the_privileges_that_are_needed_and_no_more() -> Result<()> {
    let needed: BTreeSet<&str> = PRIVILEGES.iter().map(|privilege| privilege.name).collect();
    for spec in templates()? {
        let container = &spec["containers"][0];
        let context = &container["securityContext"];
        let added: BTreeSet<String> = strings(&context["capabilities"]["add"])
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        ensure!(
            added.iter().map(String::as_str).collect::<BTreeSet<_>>() == needed,
            "{added:?}"
        );
        ensure!(strings(&context["capabilities"]["drop"]) == ["ALL"]);
        ensure!(
            context["privileged"] == false && context["allowPrivilegeEscalation"] == false,
            "{context}"
        );
        ensure!(
            spec["hostPID"] == true && spec["automountServiceAccountToken"] == false,
            "{spec}"
        );
    }
    let unit = fs::read_to_string(deployed("headroom.service"))?;
    let bounding = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let bounding: BTreeSet<&str> = bounding.context("no bounding set")?.split(' ').collect();
    ensure!(bounding == needed, "{bounding:?}");
    Ok(())
}

#[test]
fn the_pod_monitor_finds_the_pods_of_the_daemon_set_and_their_port() -> Result<()> {
    let monitor = documents("podmonitor.yaml")?.pop().context("nothing in it")?;
    let manifests = documents("daemonset.yaml")?;
    let set = manifests.iter().find(|one| one["kind"] == "DaemonSet");
    let set = set.context("no DaemonSet")?;
    ensure!(monitor["kind"] == "PodMonitor" && monitor["metadata"]["namespace"] == set["metadata"]["namespace"]);
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object();
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    for (label, value) in wanted.context("no selector")? {
        ensure!(labels[label] == *value, "{label}: {labels}");
    }
    let port = &set["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"];
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    ensure!(
        endpoint["port"] == *port && endpoint["honorLabels"] == true,
        "{endpoint}"
    );
    Ok(())
}

#[test]
fn headroom_takes_the_command_lines() -> Result<()> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for spec in templates()? {
        let arguments = strings(&spec["containers"][0]["args"]).into_iter();
        lines.push(arguments.map(|word| word.replace("$(POD_IP)", "192.0.2.1")).collect());
    }
    let unit = fs::read_to_string(deployed("headroom.service"))?;
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/headroom "));
    lines.push(start.context("no ExecStart")?.split(' ').map(str::to_owned).collect());
    for line in lines {
        Cli::try_parse_from(std::iter::once("headroom".to_owned()).chain(line))?;
    }
    Ok(())
}

/// The alerts of the rules: name and expression.
fn alerts() -> Result<Vec<(String, String)>> {
    let rule = documents("prometheus-rules.yaml")?.pop().context("no rules")?;
    ensure!(rule["kind"] == "PrometheusRule", "{rule}");
    let rules = rule["spec"]["groups"][0]["rules"].as_array().context("no rules")?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    rules
        .iter()
        .map(|rule| Ok((text(&rule["alert"])?, text(&rule["expr"])?)))
        .collect()
}

/// The queries of the dashboard, with what Grafana would put in for its variables.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_slice(&fs::read(deployed("grafana-dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut queries: Vec<String> = targets
        .filter_map(|target| target["expr"].as_str().map(str::to_owned))
        .collect();
    let notes = dashboard["annotations"]["list"].as_array().into_iter().flatten();
    queries.extend(notes.filter_map(|note| note["expr"].as_str().map(str::to_owned)));
    let variables = [
        ("$namespace", ".*"),
        ("$vm", ".*"),
        ("$__rate_interval", "1m"),
        ("$__range", "1h"),
    ];
    for query in &mut queries {
        for (name, value) in variables {
            *query = query.replace(name, value);
        }
        ensure!(!query.contains('$'), "{query}");
    }
    ensure!(queries.len() >= 12, "{queries:?}");
    Ok(queries)
}

/// Names of headroom's own metrics in an expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let word = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    let words = expression
        .split(word)
        .filter(|word| word.starts_with("headroom_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_are_there() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut watcher = Recorder::watch(&[&group.target()], folder.path(), &["--listen", "0"])?;
    let said = watcher
        .said
        .iter()
        .find_map(|line| line.strip_prefix("headroom: metrics at http://"));
    let address: SocketAddr = said.context("no address")?.trim_end_matches("/metrics").parse()?;
    let text = http::get(address, "/metrics")?.body;
    ensure!(http::get(address, "/healthz")?.body.contains("ok"));
    watcher.interrupt()?;
    let there: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let mut asked: BTreeSet<String> = queries()?.iter().flat_map(|query| metrics_in(query)).collect();
    asked.extend(alerts()?.iter().flat_map(|(_, expression)| metrics_in(expression)));
    ensure!(asked.len() >= 8, "{asked:?}");
    for name in asked {
        let family = ["_total", "_sum", "_count", "_bucket"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(&name);
        ensure!(
            there.contains(family) || there.contains(name.as_str()),
            "no {name} in {there:?}"
        );
    }
    Ok(())
}

/// A node's metrics as a test wants them, until it is dropped.
struct Exporter {
    address: SocketAddr,
    says: Arc<Mutex<Option<String>>>,
}

impl Exporter {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let says: Arc<Mutex<Option<String>>> = Arc::default();
        let theirs = Arc::clone(&says);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let body = theirs.lock().ok().and_then(|text| text.clone());
                // Prometheus' requests are short.
                let _ = stream.read(&mut [0; 4096]);
                if let Some(body) = body {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
                    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
                }
            }
        });
        Ok(Self { address, says })
    }

    fn say(&self, text: Option<String>) -> Result<()> {
        *self.says.lock().map_err(|_| anyhow!("a thread panicked"))? = text;
        Ok(())
    }
}

/// What a node with a quiet pod says, or one in need, `scrape` seconds after that began.
fn node(in_need: bool, scrape: u64) -> String {
    let pod = r#"{namespace="ns",vm="vm1"}"#;
    let (headroom, bytes, kills) = if in_need { (16 << 20, 4096, 1) } else { (1 << 30, 0, 0) };
    let mut text = format!(
        "headroom_headroom_bytes{pod} {headroom}\nheadroom_reclaimable_file_bytes{pod} 1048576\n\
         headroom_reclaim_stall_seconds_sum{pod} {}\nheadroom_oom_kills_total {kills}\n\
         headroom_lost_bytes_total {bytes}\n",
        if in_need { 10 * scrape } else { 0 }
    );
    if in_need {
        text += &format!("headroom_eta_seconds{pod} 90\n");
    }
    text
}

/// A Prometheus with the rules; ended when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(target: SocketAddr, folder: &Path) -> Result<Self> {
        let rule = documents("prometheus-rules.yaml")?.pop().context("no rules")?;
        fs::write(folder.join("rules.yml"), rule["spec"].to_string())?;
        let config = folder.join("prometheus.yml");
        let scrape = format!(
            "global:\n  evaluation_interval: 1s\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: headroom/headroom\n  \
             honor_labels: true\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  - targets: ['{target}']\n"
        );
        fs::write(&config, scrape)?;
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

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.address, &format!("/api/v1/{path}"))?;
        let document: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        ensure!(document["status"] == "success", "{path}: {document}");
        Ok(document["data"].clone())
    }

    /// How many series an expression has now.
    fn series(&self, expression: &str) -> Result<usize> {
        let data = self.ask(&format!("query?query={}", percent(expression)))?;
        Ok(data["result"].as_array().context("no result")?.len())
    }

    /// Names of the alerts that stand or are about to.
    fn raised(&self) -> Result<BTreeSet<String>> {
        let data = self.ask("alerts")?;
        let alerts = data["alerts"].as_array().context("no alerts")?.iter();
        Ok(alerts
            .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
            .collect())
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match done() {
                Ok(true) => return Ok(()),
                Ok(false) => ensure!(Instant::now() < deadline, "{what}: {:?}", self.raised()),
                // It takes a while until it answers.
                Err(error) => ensure!(Instant::now() < deadline, "{what}: {error:#}"),
            }
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a query of a URL takes it.
fn percent(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let mut coded = String::new();
    for byte in text.bytes() {
        if plain(&byte) {
            coded.push(char::from(byte));
        } else {
            coded += &format!("%{byte:02X}");
        }
    }
    coded
}

#[test]
fn each_alert_is_raised_by_a_node_in_need_and_by_no_other() -> Result<()> {
    let exporter = Exporter::start()?;
    exporter.say(Some(node(false, 0)))?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::start(exporter.address, folder.path())?;
    prometheus.wait("a scrape", || Ok(prometheus.series("headroom_headroom_bytes")? == 1))?;
    let groups = prometheus.ask("rules?type=alert")?;
    let known = groups["groups"][0]["rules"].as_array().context("no rules")?.len();
    let all: BTreeSet<String> = alerts()?.into_iter().map(|(name, _)| name).collect();
    ensure!(known == all.len() && known == 6, "{groups}");
    for query in queries()? {
        prometheus.series(&query)?;
    }
    prometheus.wait("scrapes", || {
        Ok(prometheus.series("count_over_time(headroom_headroom_bytes[1m]) >= 5")? == 1)
    })?;
    ensure!(prometheus.raised()?.is_empty(), "{:?}", prometheus.raised()?);

    let begun = Instant::now();
    let mut down = all.clone();
    ensure!(down.remove("HeadroomDown"));
    prometheus.wait("alerts", || {
        exporter.say(Some(node(true, begun.elapsed().as_secs())))?;
        Ok(prometheus.raised()? == down)
    })?;
    exporter.say(None)?;
    prometheus.wait("the alert that it is down", || {
        Ok(prometheus.raised()?.contains("HeadroomDown"))
    })
}
