//! `headroom export`: a recording for other tools.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use super::exit::{ExitError, Status};
use super::report::not_read;
use super::{progress, time, wholeness};
use crate::export::{ExportError, Format, export};
use crate::recording::{Reader, State, Summary};

/// Write recordings in the form of another tool
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: headroom export backup-window.jsonl.zst --format csv -o backup-window.csv")]
pub struct Args {
    /// Recordings made by `headroom record`; several go into one file, in the order of time (jsonl: one after another)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The form
    #[arg(long, value_enum)]
    format: Format,
    /// Where to write it; - for stdout
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Least time between two points of a pod (else every sample is one), or length of an interval of hlog (else 10s)
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match time::duration(text)? {
        Duration::ZERO => Err("an interval of no time holds nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads recordings and writes them in another form.
///
/// # Errors
/// When a recording cannot be read, when one is damaged (after exporting what could be read; status 5), or when the
/// output cannot be written, is there already, or would be binary on a terminal (status 2).
pub fn run(args: &Args) -> anyhow::Result<()> {
    let summaries = if args.output == Path::new("-") {
        let stdout = io::stdout();
        if args.format.is_binary() && stdout.is_terminal() {
            let message = "this form is binary and would garble the terminal: give a file with -o, or a pipe";
            return Err(ExitError::new(Status::Usage, message).into());
        }
        write(args, stdout.lock())?
    } else if is_special(&args.output) {
        // A pipe or a device: there is nothing to replace.
        let out = OpenOptions::new().write(true).open(&args.output);
        write(args, out.with_context(|| not_written(&args.output))?)?
    } else {
        write_file(args)?
    };
    let states: Vec<State> = summaries.iter().map(|summary| summary.state).collect();
    wholeness::complain(&args.files, &states, "exported")
}

/// Writes a file that appears whole or not at all.
fn write_file(args: &Args) -> anyhow::Result<Vec<Summary>> {
    let exists = || {
        let path = args.output.display();
        anyhow::anyhow!("{path} exists: choose another name or overwrite it with --force")
    };
    if !args.force && args.output.symlink_metadata().is_ok() {
        return Err(exists());
    }
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(&args.output).unwrap_or_else(|_| args.output.clone());
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Only its owner can read it, as the recording.
    let mut file = NamedTempFile::new_in(folder).with_context(|| not_written(&args.output))?;
    let summaries = write(args, file.as_file_mut())?;
    let persisted = if args.force {
        file.persist(&path)
    } else {
        file.persist_noclobber(&path)
    };
    match persisted {
        Ok(_) => Ok(summaries),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
        Err(error) => Err(error.error).with_context(|| not_written(&args.output)),
    }
}

fn write(args: &Args, out: impl Write) -> anyhow::Result<Vec<Summary>> {
    let files = args.files.iter().map(|path| {
        let file = File::open(path).map_err(|error| not_read(path, &error.into()))?;
        Ok((path.as_path(), file))
    });
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let progress = progress::reading(&files);
    let readers = files.into_iter().map(|(path, file)| {
        let reader = Reader::new(progress.wrap_read(file));
        reader.map_err(|error| not_read(path, &error))
    });
    let readers = readers.collect::<anyhow::Result<Vec<_>>>()?;
    let mut out = BufWriter::new(out);
    let summaries = export(readers, args.format, args.interval, &mut out).map_err(|error| match error {
        ExportError::Read { recording, error } => match args.files.get(recording) {
            Some(path) => not_read(path, &error),
            None => error.into(),
        },
        ExportError::Write(error) => anyhow::Error::from(error).context(not_written(&args.output)),
    })?;
    progress.finish_and_clear();
    Ok(summaries)
}

fn not_written(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "cannot write to stdout".to_owned(),
        _ => format!("cannot write {}", path.display()),
    }
}

fn is_special(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}
