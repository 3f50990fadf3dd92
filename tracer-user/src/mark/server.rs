//! A recorder's side: listens, and hands on what is to be marked.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Answer, MAX_LINE, MAX_TEXT, Request, SOCKET};

/// Marks that wait for the recorder; who comes later waits in the socket.
const WAITING: usize = 16;
/// How long a client may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A mark that somebody asked for.
#[derive(Debug)]
pub struct Asked {
    /// What is to be marked.
    pub request: Request,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Says what came of it.
    pub fn answer(self, answer: Answer) {
        // A client that has gone does not want to know.
        let _ = self.answer.send(answer);
    }
}

/// Marks as they come. The socket goes with it.
#[derive(Debug)]
pub struct Marks {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
    listening: tokio::task::JoinHandle<()>,
}

impl Marks {
    /// Listens in this folder from now on. Needs the runtime.
    ///
    /// # Errors
    /// When others may write to the folder, or the socket cannot be made.
    pub fn listen(folder: &Path) -> io::Result<Self> {
        own(folder)?;
        tidy(folder)?;
        let path = folder.join(format!("{}{SOCKET}", std::process::id()));
        // Left by a process that had this id before.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let (sender, asked) = mpsc::channel(WAITING);
        Ok(Self {
            path,
            asked,
            listening: tokio::spawn(serve(listener, sender)),
        })
    }

    /// A mark that waits, if one does.
    pub fn waiting(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        self.listening.abort();
        // Who asks a socket that stays behind is refused.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder. Where it is there, others may look into it, but not put sockets of their own there: who may talk to
/// ours, the socket's own mode says.
fn own(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it must be a folder that belongs to this user and that nobody else can write to",
    ))
}

/// Removes sockets of processes that are no more.
fn tidy(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_suffix(SOCKET)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // It may be gone by now.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            // One after the other: marks keep their order, and nobody can open connections without end.
            Ok((stream, _)) => {
                if let Err(error) = one(stream, &asked).await {
                    log::warn!("a mark failed: {error}");
                }
            }
            Err(error) => {
                log::warn!("cannot take marks: {error}");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn one(stream: UnixStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {peer} is not root"),
        ));
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_LINE as u64));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let mut request: Request = serde_json::from_str(&line)?;
    request.text = request.text.chars().take(MAX_TEXT).collect();
    let (answer, answered) = oneshot::channel();
    let answer = match asked.send(Asked { request, answer }).await {
        Ok(()) => answered.await.unwrap_or(Answer::Failed),
        Err(_) => Answer::Failed,
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::client::{Told, tell};
    use super::*;

    /// A recorder that answers `answer` to every mark, and what it was asked.
    fn with_recorder(answer: Answer, client: impl FnOnce(&Path) + Send + 'static) -> Vec<Request> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut marks = Marks::listen(&path).unwrap();
            let mut client = tokio::task::spawn_blocking({
                let path = path.clone();
                move || client(&path)
            });
            let mut seen = Vec::new();
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    done = &mut client => { done.unwrap(); break; }
                }
                if let Some(asked) = marks.waiting() {
                    seen.push(asked.request.clone());
                    asked.answer(answer);
                }
            }
            drop(marks);
            assert_eq!(
                fs::read_dir(&path).unwrap().count(),
                0,
                "the socket goes with the recorder"
            );
            seen
        })
    }

    fn request(text: &str) -> Request {
        Request {
            text: text.to_owned(),
            memcgs: vec![7],
        }
    }

    #[test]
    fn a_mark_reaches_the_recorder_and_its_answer_comes_back() {
        let seen = with_recorder(Answer::Marked, |folder| {
            let told = tell(folder, &request("backup begins")).unwrap();
            assert_eq!((told.marked, told.failed), (1, 0));
        });
        assert_eq!(seen, [request("backup begins")]);
        with_recorder(Answer::NotWatched, |folder| {
            assert_eq!(tell(folder, &request("x")).unwrap().not_watched, 1);
        });
    }

    #[test]
    fn what_a_killed_recorder_left_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            tell(&folder.path().join("none"), &request("x")).unwrap(),
            Told::default()
        );
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("4194305.sock")).unwrap());
        assert_eq!(tell(folder.path(), &request("x")).unwrap(), Told::default());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        tidy(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o775, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(own(folder.path()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        own(folder.path()).unwrap();
    }

    #[test]
    fn who_says_nothing_and_who_says_nonsense_hold_nobody_up() {
        let began = Instant::now();
        let seen = with_recorder(Answer::Marked, |folder| {
            let socket = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
            let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            let mut nonsense = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            io::Write::write_all(&mut nonsense, &[b'x'; 100]).unwrap();
            drop(nonsense);
            assert_eq!(tell(folder, &request(&"y".repeat(1000))).unwrap().marked, 1);
            drop(silent);
        });
        assert_eq!(seen[0].text.len(), MAX_TEXT);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
