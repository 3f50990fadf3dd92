//! `headroom advise`: what reserve would have held, from recordings.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::exit::{ExitError, Status};
use super::report::replay;
use super::size::{ReleaseFlags, flags, load, usage};
use crate::advice::{self, Advice, Recorded, SCHEMA, observe};
use crate::recording::State;
use crate::report::{utc, write_json};
use crate::sizing::manifest::{self, Found};
use crate::sizing::ratio::Ratio;
use crate::sizing::spec::Known;

/// From recordings of a VM, advise on the reserve that would have held, or say that none will
///
/// Without a version it is the one whose limit was recorded, else the newest released KubeVirt.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  headroom advise backup-window.jsonl.zst --harvester 1.5\n  \
                  headroom advise monday.jsonl.zst tuesday.jsonl.zst --margin 30 --json"
)]
pub struct Args {
    /// Recordings made by `headroom record`; those of one VM are put together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How much more than the recorded overhead should fit, percent of it
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=1000))]
    margin: u64,
    #[command(flatten)]
    release: ReleaseFlags,
    /// The ratio in force: KubeVirt's, or Harvester's ('' for its default, 0 for none) [default: what the limit says]
    #[arg(long, allow_hyphen_values = true)]
    ratio: Option<String>,
    /// Harvester's Reserved Memory in force [default: what the limit says]
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    reserved: Option<String>,
    /// Harvester's memory overcommit in percent [default: what the limit says]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..))]
    overcommit: Option<u64>,
    /// The VM's manifest, instead of what the limit says; - for standard input
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Document<'a> {
    schema: &'static str,
    vms: &'a [Advice],
}

/// Reads the recordings and advises.
///
/// # Errors
/// Of usage; when a recording cannot be read; when one is damaged (after advising on the rest; status 5).
pub fn run(args: &Args) -> anyhow::Result<()> {
    let known = known(args)?;
    let manifests = match &args.manifest {
        Some(path) => manifest::read(&load(path)?).map_err(usage)?,
        None => Vec::new(),
    };
    let mut damaged = Vec::new();
    let mut vms: BTreeMap<(String, String, String), Vec<Recorded>> = BTreeMap::new();
    for path in &args.files {
        if !read(path, &mut vms)? {
            damaged.push(path.display().to_string());
        }
    }
    let alone = vms.len() == 1;
    let advice: Vec<Advice> = vms
        .into_iter()
        .map(|((namespace, vm, _), mut recordings)| {
            recordings.sort_by(|a, b| a.start.cmp(&b.start));
            let known = Known {
                manifest: find(&manifests, &namespace, &vm, alone),
                ..known.clone()
            };
            advice::advise(&recordings, &known, args.margin)
        })
        .collect();
    let mut out = BufWriter::new(anstream::stdout().lock());
    print(args, &advice, &mut out)?;
    out.flush()?;
    if damaged.is_empty() {
        return Ok(());
    }
    let message = format!("damaged, what could be read was looked at: {}", damaged.join(", "));
    Err(ExitError::new(Status::Damaged, message).into())
}

fn known(args: &Args) -> anyhow::Result<Known> {
    let (kubevirt, harvester) = args.release.given().map_err(usage)?;
    let ratio = match (harvester, args.ratio.as_deref()) {
        (Some(harvester), Some(text)) if harvester.has_ratio() => Some(Ratio::harvester(text).map_err(usage)?),
        (_, Some(text)) => Some(Some(Ratio::kubevirt(text).map_err(usage)?)),
        (_, None) => None,
    };
    let reserved = args
        .reserved
        .as_deref()
        .map(|text| flags::size("--reserved", text))
        .transpose()
        .map_err(usage)?;
    Ok(Known {
        kubevirt,
        harvester,
        ratio,
        reserved,
        overcommit: args.overcommit,
        manifest: None,
    })
}

/// The VM's manifest; the only one for the only VM, whatever its name.
fn find(manifests: &[Found], namespace: &str, vm: &str, alone: bool) -> Option<Found> {
    let name = format!("{namespace}/{vm}");
    let by_name = manifests.iter().find(|found| found.name == name || found.name == vm);
    match manifests {
        [only] if alone => Some(only.clone()),
        _ => by_name.cloned(),
    }
}

/// Adds a recording's VMs; says whether it was not damaged. A cgroup without a VM's name is told by its path.
fn read(path: &Path, vms: &mut BTreeMap<(String, String, String), Vec<Recorded>>) -> anyhow::Result<bool> {
    let (replay, summary) = replay(path)?;
    let state = summary.state;
    let ledger = replay.ledger();
    for pod in ledger.pods() {
        let seen = observe(ledger, pod, state);
        let cgroup = if seen.vm.is_empty() {
            seen.cgroup.clone()
        } else {
            String::new()
        };
        let recorded = Recorded {
            file: path.display().to_string(),
            start: utc(ledger, seen.window.0),
            end: utc(ledger, seen.window.1),
            seen,
        };
        let key = (recorded.seen.namespace.clone(), recorded.seen.vm.clone(), cgroup);
        vms.entry(key).or_default().push(recorded);
    }
    Ok(state != State::Damaged)
}

fn print(args: &Args, advice: &[Advice], out: &mut impl Write) -> std::io::Result<()> {
    if args.json {
        let document = Document {
            schema: SCHEMA,
            vms: advice,
        };
        return write_json(&document, out);
    }
    if advice.is_empty() {
        writeln!(out, "no VM pod was seen")?;
    }
    for (index, advice) in advice.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        advice::render_text(advice, out)?;
    }
    Ok(())
}
