//! `headroom pods`: the VM pods of this node, how much headroom each has, and what runs in it.

use std::io::Write as _;
use std::path::Path;

use crate::cli::exit::{ExitError, Status};
use crate::cli::protect;
use crate::node::overview::{self, Overview};
use crate::node::{Node, NodeError, Target, TargetError};
use crate::sizing::spec::Budgeted;

mod budget;
mod text;

/// Name and major version of the JSON document.
const SCHEMA: &str = "headroom.pods/1";

/// List the VM pods (and libvirt machines) of this node with their headroom, processes and threads
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  headroom pods\n  headroom pods prod/web\n  headroom pods --json | jq '.pods[].headroom'"
)]
pub struct Args {
    /// NAMESPACE/VM, a VM name, a pod uid, pid:N or cgroup:/path; shows its processes and threads. Every VM pod when
    /// absent
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// List processes and threads of every pod
    #[arg(short, long)]
    threads: bool,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// A pod, and what KubeVirt budgets for it.
#[derive(serde::Serialize)]
struct Listed {
    #[serde(flatten)]
    overview: Overview,
    budgeted: Option<Budgeted>,
}

#[derive(serde::Serialize)]
struct Document<'a> {
    schema: &'static str,
    cgroup: String,
    pods: &'a [Listed],
}

/// Runs the command.
///
/// # Errors
/// When this node has no memory controller, or the target is not found.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let node = Node::new(Path::new("/")).map_err(unsupported)?;
    protect::warn_of_missing(&node, &["CAP_SYS_PTRACE"]);
    let target: Option<Target> = args
        .target
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(status_of_target)?;
    let pods = node.resolve(target.as_slice()).map_err(status_of_target)?;
    let pods: Vec<Listed> = pods
        .iter()
        .map(|pod| overview::of(&node, pod))
        .map(|overview| Listed {
            budgeted: budget::budgeted(&overview),
            overview,
        })
        .collect();
    let mut out = anstream::stdout().lock();
    if args.json {
        let document = Document {
            schema: SCHEMA,
            cgroup: node.hierarchy().version.to_string(),
            pods: &pods,
        };
        // As the io::Error it may be: a closed pipe ends quietly.
        serde_json::to_writer_pretty(&mut out, &document).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text::render(&pods, args.threads || target.is_some()))?;
    }
    out.flush()?;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "maps an error")]
fn unsupported(error: NodeError) -> ExitError {
    ExitError::new(Status::Unsupported, error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "maps an error")]
fn status_of_target(error: TargetError) -> ExitError {
    let status = match error {
        TargetError::Syntax(_) => Status::Usage,
        _ => Status::NotFound,
    };
    ExitError::new(status, error.to_string())
}
