//! The terminal: taken, written to without ever waiting for it, and given back, also on a panic.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::style::ResetColor;
use ratatui::crossterm::terminal::{
    self, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{event, execute, queue};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use tokio::sync::mpsc::UnboundedSender;

/// How long the end waits for a terminal that takes nothing.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Whether the terminal is ours: a panic gives back only what was taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What one frame changes, gathered until it is whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered(Arc<Mutex<Vec<u8>>>);

impl Gathered {
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal in raw mode with its other screen shown.
///
/// A serial console may take seconds for a frame, and one that was stopped (Ctrl-S) takes none. So a thread of its own
/// writes, and while that has not finished, nothing is drawn: the next frame holds all that changed since.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Gathered>>,
    gathered: Gathered,
    frames: Option<SyncSender<Vec<u8>>>,
    /// The writer waits for a frame; false when the terminal is gone.
    idle: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn take() -> io::Result<Self> {
        restore_on_panic();
        enter()?;
        let gathered = Gathered::default();
        let options = TerminalOptions {
            viewport: Viewport::Fixed(area()),
        };
        let terminal = Terminal::with_options(CrosstermBackend::new(gathered.clone()), options)?;
        // Not through std: its lock would be held while the terminal takes nothing.
        let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (frames, queue) = sync_channel::<Vec<u8>>(1);
        let (teller, ended) = sync_channel(1);
        let idle = Arc::new(AtomicBool::new(true));
        let gone = Arc::new(AtomicBool::new(false));
        let (writer_idle, writer_gone) = (Arc::clone(&idle), Arc::clone(&gone));
        thread::Builder::new().name("screen".to_owned()).spawn(move || {
            for frame in queue {
                if out.write_all(&frame).is_err() {
                    writer_gone.store(true, Ordering::Relaxed);
                    break;
                }
                writer_idle.store(true, Ordering::Release);
            }
            // Nobody may be left to hear it.
            let _ = teller.try_send(());
        })?;
        Ok(Self {
            terminal,
            gathered,
            frames: Some(frames),
            idle,
            gone,
            ended,
        })
    }

    /// Draws a frame, if the terminal has taken the last one. Says whether it was drawn.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<bool> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.idle.load(Ordering::Acquire) {
            return Ok(false);
        }
        let area = area();
        if self.terminal.get_frame().area() != area {
            self.terminal.resize(area)?;
        }
        self.terminal.draw(render)?;
        let frame = self.gathered.take();
        if frame.is_empty() {
            return Ok(true);
        }
        self.idle.store(false, Ordering::Release);
        match self.frames.as_ref().map(|frames| frames.try_send(frame)) {
            Some(Ok(())) => Ok(true),
            Some(Err(TrySendError::Full(_))) => Ok(false),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Has the next frame draw everything.
    ///
    /// # Errors
    /// When its size cannot be found.
    pub fn forget(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where its cursor is and waits for the answer.
        self.terminal.resize(area())
    }

    /// Gives the terminal to the shell until that continues this program, as on Ctrl-Z.
    ///
    /// # Errors
    /// When it cannot be taken again.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        // As the terminal would have done outside raw mode.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP)?;
        enter()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.frames = None;
        // A terminal that takes nothing would hold up the end for ever.
        let _ = self.ended.recv_timeout(LAST_WORDS);
        leave();
    }
}

/// The whole terminal. A serial console often does not know its size.
fn area() -> Rect {
    match terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => Rect::new(0, 0, width, height),
        _ => Rect::new(0, 0, 80, 24),
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    queue!(out, EnterAlternateScreen, Hide)?;
    out.flush()
}

/// Gives the terminal back. First what no terminal can refuse, then what needs it to take something.
fn leave() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = disable_raw_mode();
    if crate::cli::say::takes(&io::stdout()) {
        let _ = execute!(io::stdout(), ResetColor, LeaveAlternateScreen, Show);
    }
}

/// A panic message in raw mode on the other screen would be lost, and the shell unusable.
fn restore_on_panic() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            before(info);
        }));
    });
}

/// Reads keys in a thread of its own, until nobody listens any more or the terminal is gone.
///
/// # Errors
/// When there is no such thread.
pub fn read_keys(events: UnboundedSender<event::Event>) -> io::Result<()> {
    let read = move || {
        while let Ok(event) = event::read() {
            if events.send(event).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(read).map(drop)
}
