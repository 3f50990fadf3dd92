//! `headroom size`: the overhead that KubeVirt and Harvester budget for a VM.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;

use crate::cli::exit::{ExitError, Status};
use crate::sizing::budget::{Budget, budget};
use crate::sizing::harvester::{self, Settings, mutate};
use crate::sizing::manifest::{self, Found};
use crate::sizing::ratio::Ratio;
use crate::sizing::version::{Harvester, KubeVirt, Release};
use crate::sizing::vm::Vm;
use crate::sizing::{Error, fit, matrix};

pub(super) mod flags;
mod text;

use flags::{VmFlags, limit};

/// Name and major version of the JSON documents.
const SCHEMA: &str = "headroom.size/1";

/// Show the memory that KubeVirt and Harvester would budget for a VM, term by term
///
/// Without a version the newest released KubeVirt is meant.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  headroom size --memory 2Gi --cpus 2 --harvester 1.4\n  \
                  headroom size --manifest vm.yaml --kubevirt 1.5 --ratio 2\n  \
                  kubectl get vm -A -o yaml | headroom size --manifest - --json\n  \
                  headroom size table --memory 2Gi\n  headroom size fit 17024340kB"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    release: ReleaseFlags,
    #[command(flatten)]
    vm: VmFlags,
    /// A VM or VMI manifest, YAML or JSON, of one or several documents; - for standard input. Only --binding-memory and
    /// --auto-limit, which no manifest tells, go with it
    #[arg(long, value_name = "FILE", conflicts_with_all = flags::TOLD_BY_A_MANIFEST)]
    manifest: Option<std::path::PathBuf>,
    /// KubeVirt's additionalGuestMemoryOverheadRatio, or Harvester's additional-guest-memory-overhead-ratio ('' for its
    /// default, 0 for none)
    #[arg(long, allow_hyphen_values = true)]
    ratio: Option<String>,
    /// Harvester's Reserved Memory
    #[arg(long, value_name = "QUANTITY", requires = "harvester", allow_hyphen_values = true)]
    reserved: Option<String>,
    /// Harvester's memory overcommit in percent
    #[arg(long, value_name = "PERCENT", default_value_t = harvester::OVERCOMMIT)]
    overcommit: u64,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// Which release's rules apply.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseFlags {
    /// The KubeVirt version, as in 1.5, 1.4.0 or main
    #[arg(long, value_name = "VERSION", conflicts_with = "harvester")]
    kubevirt: Option<String>,
    /// The Harvester version, as in 1.4: its KubeVirt, and its own rules
    #[arg(long, value_name = "VERSION")]
    harvester: Option<String>,
}

impl ReleaseFlags {
    /// What was given, and nothing else.
    pub(super) fn given(&self) -> Result<(Option<KubeVirt>, Option<Harvester>), Error> {
        let harvester = self.harvester.as_deref().map(Harvester::named).transpose()?;
        let kubevirt = match (&self.kubevirt, harvester) {
            (_, Some(harvester)) => Some(harvester.kubevirt),
            (Some(text), None) => Some(KubeVirt::named(text)?),
            (None, None) => None,
        };
        Ok((kubevirt, harvester))
    }

    fn read(&self) -> Result<(KubeVirt, Option<Harvester>), Error> {
        let (kubevirt, harvester) = self.given()?;
        Ok((kubevirt.unwrap_or(KubeVirt::NEWEST), harvester))
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print Harvester's configuration matrix for a VM, as documented and exact
    ///
    /// Without a version the newest released KubeVirt is meant.
    #[command(after_help = "Example:\n  headroom size table --memory 2Gi --cpus 1 --harvester 1.4")]
    Table(TableArgs),
    /// Find the VM shapes and versions that explain a limit
    ///
    /// Without a version all of them are tried.
    #[command(after_help = "Example, with the limit from a kernel log:\n  headroom size fit 17024340kB --cpus 2")]
    Fit(FitArgs),
}

#[derive(Debug, clap::Args)]
struct TableArgs {
    #[command(flatten)]
    release: ReleaseFlags,
    #[command(flatten)]
    vm: VmFlags,
    /// Harvester's memory overcommit in percent
    #[arg(long, value_name = "PERCENT", default_value_t = harvester::OVERCOMMIT)]
    overcommit: u64,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct FitArgs {
    /// The limit: bytes, a quantity (2Gi), or kB as the kernel prints it (17024340kB, of 1024 bytes)
    limit: String,
    #[command(flatten)]
    release: ReleaseFlags,
    /// The number of vCPUs, if it is known
    #[arg(long, value_name = "N")]
    cpus: Option<u64>,
    /// How many to show, the most usual shapes first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// One VM, sized.
#[derive(serde::Serialize)]
struct Sized {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    kubevirt: String,
    harvester: Option<String>,
    ratio: f64,
    reserved: u64,
    vm: Vm,
    budget: Budget,
}

/// Runs the command.
///
/// # Errors
/// Of usage, with what Kubernetes, KubeVirt or Harvester would refuse; of reading the manifest or writing the result.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::Table(table)) => run_table(table),
        Some(Command::Fit(fit)) => run_fit(fit),
        None => run_size(args),
    }
}

pub(super) fn usage(error: impl std::fmt::Display) -> ExitError {
    ExitError::new(Status::Usage, error.to_string())
}

fn run_size(args: &Args) -> anyhow::Result<()> {
    let release = args.release.read().map_err(usage)?;
    let found = match &args.manifest {
        Some(path) => {
            let mut found = manifest::read(&load(path)?).map_err(usage)?;
            for found in &mut found {
                args.vm.add_to(&mut found.vm).map_err(usage)?;
            }
            found
        }
        None => vec![Found {
            name: String::new(),
            is_instance: false,
            vm: args.vm.read(release.1.is_some()).map_err(usage)?,
            reserved: None,
            hotplug: false,
        }],
    };
    let sized = found
        .into_iter()
        .map(|found| {
            let name = found.name.clone();
            size(args, release, found).map_err(|error| match name.as_str() {
                "" => usage(error),
                name => usage(format!("{name}: {error}")),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    print(args.json, &serde_json::json!({"schema": SCHEMA, "vms": sized}), || {
        text::sized(&sized)
    })
}

fn size(args: &Args, (kubevirt, harvester): (KubeVirt, Option<Harvester>), found: Found) -> Result<Sized, Error> {
    let ratio = match (harvester, args.ratio.as_deref()) {
        (Some(harvester), text) if harvester.has_ratio() => Ratio::harvester(text.unwrap_or(""))?,
        (_, Some(text)) => Some(Ratio::kubevirt(text)?),
        (_, None) => None,
    };
    let (vm, reserved) = match harvester {
        // Harvester has already changed an instance.
        Some(harvester) if !found.is_instance => {
            let reserved = args
                .reserved
                .as_deref()
                .map(|text| flags::size("--reserved", text))
                .transpose()?;
            let settings = Settings {
                // Earlier releases know nothing of KubeVirt's own field.
                ratio: ratio.filter(|_| harvester.has_ratio()),
                reserved: reserved.or(found.reserved),
                overcommit: args.overcommit,
                pins_request: harvester.release >= Release(1, 4, 0),
                host_devices_request: harvester.release >= Release(1, 2, 2),
                hotplug: found.hotplug,
            };
            let mutated = mutate(&found.vm, settings)?;
            (mutated.vm, mutated.reserved)
        }
        _ => (found.vm, 0),
    };
    let factor = ratio.unwrap_or(Ratio::ONE);
    Ok(Sized {
        name: found.name,
        kubevirt: kubevirt.0.to_string(),
        harvester: harvester.map(|harvester| harvester.release.to_string()),
        ratio: factor.factor(),
        reserved,
        budget: budget(kubevirt, &vm, factor)?,
        vm,
    })
}

fn run_table(args: &TableArgs) -> anyhow::Result<()> {
    let (kubevirt, harvester) = args.release.read().map_err(usage)?;
    let vm = args.vm.read(true).map_err(usage)?;
    let rows = matrix::matrix(kubevirt, &vm, args.overcommit).map_err(usage)?;
    let document = serde_json::json!({
        "schema": SCHEMA, "kubevirt": kubevirt.0.to_string(),
        "harvester": harvester.map(|harvester| harvester.release.to_string()), "vm": vm, "table": rows,
    });
    print(args.json, &document, || text::matrix(&vm, kubevirt, &rows))
}

fn run_fit(args: &FitArgs) -> anyhow::Result<()> {
    let limit = limit(&args.limit).map_err(usage)?;
    let (kubevirt, _) = args.release.read().map_err(usage)?;
    let named = args.release.kubevirt.is_some() || args.release.harvester.is_some();
    let known = fit::Known {
        kubevirt: named.then_some(kubevirt),
        vcpus: args.cpus,
    };
    let fits = fit::fit(limit, known);
    let shown = &fits[..fits.len().min(args.top)];
    let document = serde_json::json!({"schema": SCHEMA, "limit": limit, "found": fits.len(), "fits": shown});
    print(args.json, &document, || text::fits(limit, shown, fits.len()))
}

/// The manifest's text, of bounded size.
pub(super) fn load(path: &std::path::Path) -> anyhow::Result<String> {
    let name = match path.to_str() {
        Some("-") => "on standard input".to_owned(),
        _ => path.display().to_string().escape_debug().to_string(),
    };
    let bound = u64::try_from(manifest::MAX_BYTES)? + 1;
    let mut bytes = Vec::new();
    if path == std::path::Path::new("-") {
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    }
    .with_context(|| format!("cannot read the manifest {name}"))?;
    if bytes.len() > manifest::MAX_BYTES {
        return Err(usage(format!(
            "the manifest {name} is larger than {} MiB",
            manifest::MAX_BYTES >> 20
        ))
        .into());
    }
    String::from_utf8(bytes).map_err(|_| usage(format!("the manifest {name} is not UTF-8")).into())
}

fn print(json: bool, document: &serde_json::Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    if json {
        // As the io::Error it may be: a closed pipe ends quietly.
        serde_json::to_writer_pretty(&mut out, document).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text())?;
    }
    out.flush()?;
    Ok(())
}
