//! `headroom mark`: what happens now, into every running recording.

use std::path::Path;

use anyhow::Context as _;

use super::exit::{ExitError, Status};
use crate::mark::{MAX_TEXT, Request, folder, tell};
use crate::node::Node;

/// Put a mark into every running recording: when a backup begins, and when it ends
///
/// A mark shows on the timeline, and bounds a report: `headroom report --from MARK --to MARK`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom mark 'backup begins'
  headroom mark 'snapshot taken' default/vm1")]
pub struct Args {
    /// What happens
    text: String,
    /// The pod that it happens to: NAMESPACE/VM, VM name, pod uid, pid:N or cgroup:/path. Without it, all of them
    target: Option<String>,
}

/// Tells every recorder.
///
/// # Errors
/// Exit status 2 for a text that is empty or too long, 4 when the target is not there, 1 when no recording took it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let length = args.text.chars().count();
    if args.text.trim().is_empty() || length > MAX_TEXT {
        let message = format!("a mark has 1 to {MAX_TEXT} characters, not {length}");
        return Err(ExitError::new(Status::Usage, message).into());
    }
    let request = Request {
        text: args.text.clone(),
        memcgs: args.target.as_deref().map(memcgs).transpose()?.unwrap_or_default(),
    };
    let folder = folder();
    let told = tell(&folder, &request).with_context(|| format!("cannot reach recorders in {}", folder.display()))?;
    let recordings = |count: usize| if count == 1 { "recording" } else { "recordings" };
    if told.failed > 0 {
        anyhow::bail!("{} {} did not take the mark", told.failed, recordings(told.failed));
    }
    if told.marked == 0 {
        anyhow::bail!(match told.not_watched {
            0 => "nothing is recorded on this node now".to_owned(),
            count => format!("{count} {} run, none of this pod", recordings(count)),
        });
    }
    println!("marked in {} {}", told.marked, recordings(told.marked));
    Ok(())
}

/// cgroup ids of a target's pod.
fn memcgs(target: &str) -> anyhow::Result<Vec<u64>> {
    let unsupported = |reason: String| ExitError::new(Status::Unsupported, reason);
    let node = Node::new(Path::new("/")).map_err(|error| unsupported(error.to_string()))?;
    let target = target
        .parse()
        .map_err(|error: crate::node::target::TargetError| ExitError::new(Status::Usage, error.to_string()))?;
    let pods = node
        .resolve(&[target])
        .map_err(|error| ExitError::new(Status::NotFound, error.to_string()))?;
    let ids = pods.iter().flat_map(|pod| &pod.memcgs).map(|memcg| memcg.id);
    Ok(ids.take(MAX_MEMCGS).collect())
}

/// Memcgs of a pod that are told: any one that the recorder watches will do.
const MAX_MEMCGS: usize = 256;
