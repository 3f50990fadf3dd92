//! `headroom doctor`: what this node allows.

use std::path::Path;

use serde_json::json;

use crate::cli::exit::{ExitError, Status};
use crate::node::privileges::{Held, PRIVILEGES, Privilege, Privileges};
use crate::node::{CgroupVersion, Hierarchy, Node};
use crate::probe::{BackendChoice, KernelTypes, LiveState, Options, Outcome, ProbeError, ProbeState, Tracer, absent};

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
    privileges: Privileges,
    kernel: String,
    cgroup: Result<CgroupVersion, String>,
    tracing: Result<Tracing, String>,
}

struct Tracing {
    backend: &'static str,
    live: LiveState,
    probes: Vec<ProbeState>,
    /// What the kernel's types lack of what headroom reads where it is there.
    absent: Vec<&'static str>,
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
    let node = Node::new(root);
    let privileges = Privileges::read(node.as_ref().ok());
    let hierarchy = node.map(|node| node.hierarchy().clone());
    let v1_accounts_swap = hierarchy.as_ref().is_ok_and(Hierarchy::accounts_memory_and_swap);
    let cgroup = hierarchy.map(|hierarchy| hierarchy.version);
    let attached = Tracer::attach(
        root,
        Options {
            backend,
            cgroup_v1: matches!(cgroup, Ok(CgroupVersion::V1)),
            v1_accounts_swap,
            ..Options::default()
        },
    );
    Findings {
        root: nix::unistd::geteuid().is_root(),
        privileges,
        kernel: kernel_release(),
        cgroup: cgroup.map_err(|error| error.to_string()),
        tracing: attached
            .map(|tracer| Tracing {
                backend: tracer.backend().as_str(),
                live: tracer.live().clone(),
                probes: tracer.states().to_vec(),
                absent: KernelTypes::of_running_kernel(root).map_or_else(|_| Vec::new(), |types| absent(&types)),
            })
            .map_err(|error| reason(&error)),
    }
}

/// Why tracing is impossible, with the way out that `record` gives too.
#[must_use]
pub fn reason(error: &ProbeError) -> String {
    let privileges = Privileges::read(None);
    let mut missing = privileges.missing_to_trace();
    if missing.is_empty() && matches!(error, ProbeError::Denied) {
        // Before 5.11 maps count as locked memory.
        let others = privileges.missing().map(|privilege| privilege.name);
        missing.extend(others.filter(|name| *name == "CAP_SYS_RESOURCE"));
    }
    match (error, missing.as_slice()) {
        (ProbeError::Types(_) | ProbeError::Unresolved(_), _) | (_, []) => error.to_string(),
        (_, [missing]) => format!("{missing} is missing: run it as root, or with that capability"),
        (_, missing) => format!(
            "{} are missing: run it as root, or with these capabilities",
            missing.join(" and ")
        ),
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
            tracing.probes.iter().map(|state| {
                let probe = state.probe.name;
                match &state.outcome {
                    Outcome::Attached { backend, hook, refused } => {
                        json!({"probe": probe, "backend": backend.as_str(), "hook": hook, "refused": refused})
                    }
                    Outcome::Needless(why) => json!({"probe": probe, "backend": null, "not_needed": why}),
                    Outcome::Missing(reason) => json!({"probe": probe, "backend": null, "reason": reason}),
                }
            })
        });
        json!({
            "schema": "headroom.doctor/1",
            "ok": self.reason().is_none(),
            "reason": self.reason(),
            "root": self.root,
            "capabilities": self.capabilities(),
            "kernel": self.kernel,
            "cgroup": self.cgroup.as_ref().map(ToString::to_string).ok(),
            "absent": self.tracing.as_ref().map(|tracing| tracing.absent.clone()).unwrap_or_default(),
            "backend": self.tracing.as_ref().map(|tracing| tracing.backend).ok(),
            "live": self.tracing.as_ref().ok().map(|tracing| match &tracing.live {
                LiveState::On { .. } => json!({"on": true}),
                LiveState::Off(reason) => json!({"on": false, "why_not": reason}),
            }),
            "probes": probes.map(Iterator::collect::<Vec<_>>).unwrap_or_default(),
        })
    }

    fn capabilities(&self) -> Vec<serde_json::Value> {
        let one = |privilege: &Privilege| {
            let (held, why) = match self.privileges.held(privilege) {
                Held::Yes => ("yes", None),
                Held::Needless(why) => ("not needed", Some(why)),
                Held::Missing => ("missing", None),
            };
            json!({
                "name": privilege.name,
                "purpose": privilege.purpose,
                "held": held,
                "not_needed": why,
                "required": privilege.lost.is_none(),
                "lost_without": privilege.lost,
            })
        };
        PRIVILEGES.iter().map(one).collect()
    }

    fn print_privileges(&self) {
        let missing: Vec<&str> = self.privileges.missing().map(|privilege| privilege.name).collect();
        match missing.as_slice() {
            [] => anstream::println!("capabilities everything that headroom needs"),
            missing => anstream::println!("capabilities missing: {}", missing.join(", ")),
        }
        for privilege in &PRIVILEGES {
            let says = match self.privileges.held(privilege) {
                Held::Yes => "yes".to_owned(),
                Held::Needless(why) => format!("not needed: {why}"),
                Held::Missing => {
                    let lost = privilege.lost.unwrap_or("nothing can be traced");
                    format!("missing: needed to {}; without it {lost}", privilege.purpose)
                }
            };
            anstream::println!("  {:<22} {says}", privilege.name);
        }
    }

    fn print(&self) {
        anstream::println!("kernel       {}", self.kernel);
        anstream::println!("root         {}", if self.root { "yes" } else { "no" });
        self.print_privileges();
        match &self.cgroup {
            Ok(version) => anstream::println!("cgroup       memory controller on {version}"),
            Err(reason) => anstream::println!("cgroup       {reason}"),
        }
        match &self.tracing {
            Err(reason) => anstream::println!("tracing      not possible: {reason}"),
            Ok(tracing) => {
                anstream::println!("tracing      works, charges are counted by {}", tracing.backend);
                anstream::println!("             {}", exactness(tracing.backend));
                if !tracing.absent.is_empty() {
                    anstream::println!("             this kernel has no {}", tracing.absent.join(", "));
                }
                match &tracing.live {
                    LiveState::On { .. } => {
                        anstream::println!("live bytes   works: what threads hold is told from what was given back");
                    }
                    LiveState::Off(reason) => anstream::println!("live bytes   not here: {reason}"),
                }
                for state in &tracing.probes {
                    anstream::println!("  {:<22} {}", state.probe.name, state.describe());
                    if let Outcome::Attached { refused, .. } = &state.outcome {
                        for reason in refused {
                            anstream::println!("  {:<22}   not by {reason}", "");
                        }
                    }
                }
            }
        }
    }
}

fn exactness(backend: &str) -> &'static str {
    match backend {
        "fentry" => "exact by thread for every page and object; guest RAM is told by its address or file",
        "kprobe" => {
            "as exact as fentry, at a higher cost; a call whose return the kernel cannot follow goes uncounted, and is \
             shown as a loss"
        }
        _ => {
            "exact by thread for every page; kernel objects count by the page; guest RAM that the kernel touches on \
             its own is told by smaps"
        }
    }
}
