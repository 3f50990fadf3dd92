//! `cargo xtask accuracy`: the README's table of what the lab shows, from real runs.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;
use serde_json::Value;
use xtask::build::binaries;
use xtask::paths;
use xtask::vm::{DEFAULT_KERNEL, Vm};

/// Run every scenario on this host and in a VM, and write the README's accuracy table. Needs root.
#[derive(Debug, Args)]
pub struct Accuracy {
    /// The kernel line of the emulated machine.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
}

const BEGIN: &str = "<!-- accuracy: written by `cargo xtask accuracy` -->\n";
const END: &str = "<!-- accuracy: end -->\n";

/// Arguments of `headroom lab`: the scenarios with stand-ins.
const STAND_INS: [&[&str]; 7] = [
    &["memhold"],
    &["daemon-leak"],
    &["backup-io"],
    &["kernel-memory"],
    &["vcpu-overhead"],
    &["worker-storm"],
    &["guest-only"],
];
/// Those with a real QEMU.
const REAL: [&[&str]; 4] = [
    &["memhold", "--real"],
    &["backup-io", "--real", "--cache", "writeback"],
    &["backup-io", "--real", "--cache", "none"],
    &["guest-only", "--real"],
];

impl Accuracy {
    pub fn run(self) -> Result<()> {
        if !geteuid().is_root() {
            bail!("the lab makes cgroups and loads BPF programs: run as root");
        }
        let mut table = String::from(
            "| scenario | where | culprit | attributed (truth) | guest RAM (truth) | guest RAM taken for overhead \
             | unexplained | checks |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for words in STAND_INS.iter().chain(&REAL) {
            row(&mut table, words, &on_host(words)?)?;
        }
        for (real, scenarios) in [(false, &STAND_INS[..]), (true, &REAL[..])] {
            for (words, result) in scenarios.iter().zip(self.in_vm(real, scenarios)?) {
                row(&mut table, words, &result)?;
            }
        }
        write_readme(&table)
    }

    fn in_vm(&self, real: bool, scenarios: &[&[&str]]) -> Result<Vec<Value>> {
        let vm = Vm::new("accuracy")
            .kernel(&self.kernel)
            .real(real)
            .timeout(Duration::from_secs(600));
        let vm = scenarios.iter().fold(vm, |vm, words| {
            eprintln!("accuracy: lab {} in a VM", words.join(" "));
            let command = ["/bin/headroom", "lab"].iter().chain(words.iter()).chain(&["--json"]);
            vm.command(command.map(|word| (*word).to_owned()))
        });
        let run = vm.boot()?;
        run.commands
            .iter()
            .map(|command| parse(command.stdout().as_bytes()))
            .collect()
    }
}

fn on_host(words: &[&str]) -> Result<Value> {
    eprintln!("accuracy: lab {}", words.join(" "));
    let output = Command::new(binaries()?.headroom())
        .arg("lab")
        .args(words)
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run headroom")?;
    parse(&output.stdout)
}

fn parse(output: &[u8]) -> Result<Value> {
    serde_json::from_slice(output).context("`headroom lab --json` printed something else")
}

/// A scenario's row.
fn row(table: &mut String, words: &[&str], result: &Value) -> Result<()> {
    let checks = result["checks"].as_array().context("no checks")?;
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or("").to_owned();
    let got = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.map_or_else(|| "–".to_owned(), |check| text(check, "got"))
    };
    let attributed: Vec<String> = checks
        .iter()
        .filter(|check| text(check, "name").contains(": ") || text(check, "name") == "kernel memory of all roles")
        .map(|check| {
            format!(
                "{} {} ({})",
                text(check, "name"),
                text(check, "got"),
                text(check, "expected")
            )
        })
        .collect();
    let guest = checks
        .iter()
        .find(|check| text(check, "name").starts_with("guest RAM charged"));
    let guest = guest.map_or_else(
        || "–".to_owned(),
        |check| format!("{} ({})", text(check, "got"), text(check, "expected")),
    );
    let node = &result["report"]["node"];
    let held = checks.iter().filter(|check| check["ok"] == true).count();
    ensure!(!checks.is_empty(), "{}: no checks", words.join(" "));
    writeln!(
        table,
        "| `{}` | {} {} | {} | {} | {guest} | {} | {} | {held} of {} |",
        words.join(" "),
        node["kernel"].as_str().unwrap_or("?"),
        backend(result),
        got("culprit"),
        attributed.join("; "),
        got("guest RAM taken for overhead"),
        got("unexplained"),
        checks.len(),
    )?;
    Ok(())
}

/// What counted the charges.
fn backend(result: &Value) -> &'static str {
    if result["report"]["backends"]["lruvec_stat"].is_string() {
        "tracepoint"
    } else {
        "fentry"
    }
}

fn write_readme(table: &str) -> Result<()> {
    let path = paths::workspace().join("README.md");
    let text = fs::read_to_string(&path)?;
    let (head, rest) = text.split_once(BEGIN).context("README.md has no place for the table")?;
    let (_, tail) = rest.split_once(END).context("README.md's table has no end")?;
    fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}"))?;
    eprintln!("accuracy: written to {}", path.display());
    Ok(())
}
