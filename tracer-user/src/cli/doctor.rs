//! `headroom doctor`: what this node allows.

use std::path::Path;

use serde_json::json;

use crate::cli::exit::{ExitError, Status};
use crate::node::{CgroupVersion, Node};
use crate::probe::{BackendChoice, Options, ProbeError, ProbeState, Tracer};

/// Say what tracing is possible on this node, and what each probe gets or why not
///
/// Attaches every probe for a moment, without watching anything. Exit status 0 if tracing works, 3 if it does not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  headroom doctor --json | jq .probes")]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Try this backend alone
    #[arg(long, value_enum, default_value_t)]
    backend: BackendChoice,
}

/// What was found.
struct Findings {
    root: bool,
    kernel: String,
    cgroup: Result<CgroupVersion, String>,
    tracing: Result<Tracing, String>,
}

struct Tracing {
    backend: &'static str,
    probes: Vec<ProbeState>,
}

/// Examines the node and prints what it allows.
///
/// # Errors
/// Exit status 3 when tracing does not work here.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let findings = examine(args.backend);
    if args.json {
        anstream::println!("{:#}", findings.to_json());
    } else {
        findings.print();
    }
    match findings.reason() {
        None => Ok(()),
        Some(reason) => {
            Err(ExitError::new(Status::Unsupported, format!("this node cannot be traced: {reason}")).into())
        }
    }
}

fn examine(backend: BackendChoice) -> Findings {
    let root = Path::new("/");
    let attached = Tracer::attach(
        root,
        Options {
            backend,
            ..Options::default()
        },
    );
    Findings {
        root: nix::unistd::geteuid().is_root(),
        kernel: kernel_release(),
        cgroup: Node::new(root)
            .map(|node| node.hierarchy().version)
            .map_err(|error| error.to_string()),
        tracing: attached
            .map(|tracer| Tracing {
                backend: tracer.backend().as_str(),
                probes: tracer.states().to_vec(),
            })
            .map_err(|error| reason(&error)),
    }
}

/// Why tracing is impossible, with the way out that `record` gives too.
#[must_use]
pub fn reason(error: &ProbeError) -> String {
    if nix::unistd::geteuid().is_root() {
        error.to_string()
    } else {
        format!("{error} (not root: run it with sudo)")
    }
}

/// `uname -r`
#[must_use]
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

impl Findings {
    fn reason(&self) -> Option<String> {
        self.cgroup.as_ref().err().or(self.tracing.as_ref().err()).cloned()
    }

    fn to_json(&self) -> serde_json::Value {
        let probes = self.tracing.as_ref().map(|tracing| {
            tracing.probes.iter().map(|state| match &state.result {
                Ok((backend, hook)) => json!({"probe": state.probe.name, "backend": backend.as_str(), "hook": hook}),
                Err(reason) => json!({"probe": state.probe.name, "backend": null, "reason": reason}),
            })
        });
        json!({
            "schema": "headroom.doctor/1",
            "ok": self.reason().is_none(),
            "reason": self.reason(),
            "root": self.root,
            "kernel": self.kernel,
            "cgroup": self.cgroup.as_ref().map(ToString::to_string).ok(),
            "backend": self.tracing.as_ref().map(|tracing| tracing.backend).ok(),
            "probes": probes.map(Iterator::collect::<Vec<_>>).unwrap_or_default(),
        })
    }

    fn print(&self) {
        anstream::println!("kernel       {}", self.kernel);
        anstream::println!("root         {}", if self.root { "yes" } else { "no" });
        match &self.cgroup {
            Ok(version) => anstream::println!("cgroup       memory controller on {version}"),
            Err(reason) => anstream::println!("cgroup       {reason}"),
        }
        match &self.tracing {
            Err(reason) => anstream::println!("tracing      not possible: {reason}"),
            Ok(tracing) => {
                anstream::println!("tracing      works, charges are counted by {}", tracing.backend);
                anstream::println!("             {}", exactness(tracing.backend));
                for state in &tracing.probes {
                    anstream::println!("  {:<22} {}", state.probe.name, state.describe());
                }
            }
        }
    }
}

fn exactness(backend: &str) -> &'static str {
    match backend {
        "fentry" => "exact by thread for every page and object; guest RAM is told by its address or file",
        _ => {
            "exact by thread for every page; kernel objects count by the page; guest RAM that the kernel touches on \
             its own is told by smaps"
        }
    }
}
