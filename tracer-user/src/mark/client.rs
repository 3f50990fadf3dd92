//! `headroom mark`'s side: tells every recorder.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, MAX_LINE, Request, SOCKET};

/// How long a recorder may take: it reads every account before it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What telling all recorders came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Recorders that marked it.
    pub marked: usize,
    /// Recorders that watch other pods.
    pub not_watched: usize,
    /// Recorders that did not answer, or could not.
    pub failed: usize,
}

/// Tells every recorder in the folder.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn tell(folder: &Path, request: &Request) -> io::Result<Told> {
    let mut told = Told::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(told),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != SOCKET.trim_start_matches('.'))
        {
            continue;
        }
        match ask(&path, request) {
            Ok(Answer::Marked) => told.marked += 1,
            Ok(Answer::NotWatched) => told.not_watched += 1,
            Ok(Answer::Failed) => told.failed += 1,
            // What a recorder that was killed left behind: nobody listens.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Err(error) => {
                log::warn!("{}: {error}", path.display());
                told.failed += 1;
            }
        }
    }
    Ok(told)
}

fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
