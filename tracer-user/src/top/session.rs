//! A user at a terminal: keys in, frames out.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::Event as Key;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::feed::Feed;
use super::input::command;
use super::replay::Player;
use super::screen::{Screen, read_keys};
use super::snapshot::{Open, Snapshot};
use super::text::Theme;
use super::ui::{Action, Ui};
use super::view::{Status, draw};
use crate::collect::{self, Collector};
use crate::node::OwnMeter;
use crate::probe::boot_ns;

/// How often a recording that is played or read is looked after.
const BEAT: Duration = Duration::from_millis(50);
/// Of a beat, this much may be spent on reading.
const READING: Duration = Duration::from_millis(40);

/// A terminal, and what its user chose.
#[derive(Debug)]
pub struct Session {
    screen: Screen,
    /// What the user chose.
    pub ui: Ui,
    theme: Theme,
    keys: UnboundedReceiver<Key>,
    /// Time between frames that nobody asked for.
    interval: Duration,
    drawn: Option<Instant>,
    asked: bool,
    replay: bool,
}

impl Session {
    /// Takes the terminal, and draws at most every `interval`, or when a key asks for it.
    ///
    /// # Errors
    /// When there is no terminal.
    pub fn start(theme: Theme, interval: Duration, replay: bool) -> io::Result<Self> {
        let screen = Screen::take()?;
        let (sender, keys) = unbounded_channel();
        read_keys(sender)?;
        Ok(Self {
            screen,
            ui: Ui::default(),
            theme,
            keys,
            interval,
            drawn: None,
            asked: true,
            replay,
        })
    }

    /// What the keys that came ask for; quitting, when the terminal is gone.
    ///
    /// # Errors
    /// When the terminal cannot be taken back from the shell.
    pub fn actions(&mut self) -> io::Result<Vec<Action>> {
        use tokio::sync::mpsc::error::TryRecvError;
        let mut actions = Vec::new();
        loop {
            match self.keys.try_recv() {
                Ok(Key::Key(key)) => {
                    self.asked = true;
                    let command = command(key, self.ui.editing, self.replay);
                    actions.extend(command.map(|command| self.ui.command(command)));
                }
                // It has another size, or the mouse moved.
                Ok(_) => self.asked = true,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    actions.push(Action::Quit);
                    break;
                }
            }
        }
        for action in &actions {
            match action {
                Action::Suspend => self.screen.suspend()?,
                Action::Redraw => self.screen.forget()?,
                _ => {}
            }
        }
        Ok(actions)
    }

    /// Whether it is time for a frame.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.asked || self.drawn.is_none_or(|drawn| drawn.elapsed() >= self.interval)
    }

    /// Whether the user did something since the last frame.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        self.asked
    }

    /// Draws a frame. A terminal that has not taken the last one gets it later.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, snapshot: &Snapshot, status: &Status) -> io::Result<()> {
        let Self { screen, ui, theme, .. } = self;
        if screen.draw(|frame| draw(frame, snapshot, ui, status, *theme))? {
            self.asked = false;
            self.drawn = Some(Instant::now());
        }
        Ok(())
    }
}

/// Shows what a collector sees until the user quits or `stop` is ready. Pausing holds what is shown, not the tracing.
///
/// # Errors
/// When the terminal is gone, or the collector fails.
pub async fn live(
    session: &mut Session,
    collector: &mut Collector<Feed>,
    wake: &AsyncFd<OwnedFd>,
    stop: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    let mut meter = OwnMeter::default();
    let mut held: Option<Snapshot> = None;
    let stop = async { Ok(stop.await) };
    let end = collect::run(collector, wake, stop, |collector| {
        let now = boot_ns();
        for action in session.actions()? {
            match action {
                Action::Quit => return Ok(Some("quit")),
                Action::Pause => {
                    held = match held {
                        Some(_) => None,
                        None => Some(Snapshot::of(collector.sink(), now, Open::All)),
                    };
                }
                _ => {}
            }
        }
        if session.is_due() {
            let status = Status {
                paused: held.is_some(),
                own: Some(meter.read()),
                ..Status::default()
            };
            match &held {
                Some(held) => session.draw(held, &status)?,
                None => {
                    let open = Open::One(session.ui.open());
                    session.draw(&Snapshot::of(collector.sink(), now, open), &status)?;
                }
            }
        }
        Ok(None)
    });
    end.await.map(drop)
}

/// Plays a recording until the user quits.
///
/// # Errors
/// When the terminal is gone, or the recording can no longer be read.
pub async fn replay(session: &mut Session, player: &mut Player) -> anyhow::Result<()> {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        beats.tick().await;
        for action in session.actions()? {
            match action {
                Action::Quit => return Ok(()),
                Action::SeekBy(seconds) => player.seek_by(seconds)?,
                Action::SeekStart => player.seek_start()?,
                Action::SeekEnd => player.seek_end()?,
                Action::Pause => player.play_or_stop()?,
                Action::Faster => player.faster(),
                Action::Slower => player.slower(),
                Action::Draw | Action::Redraw | Action::Suspend => {}
            }
        }
        player.pass(last.elapsed())?;
        last = Instant::now();
        let arriving = !player.has_arrived();
        player.advance(READING)?;
        let arrived = arriving && player.has_arrived() && !player.is_playing();
        let moves = player.is_playing() || arriving;
        if session.is_asked() || arrived || (moves && session.is_due()) {
            let snapshot = Snapshot::of(player.feed(), player.position(), Open::One(session.ui.open()));
            let status = Status {
                paused: !player.is_playing(),
                playing: Some(player.status()),
                ..Status::default()
            };
            session.draw(&snapshot, &status)?;
        }
    }
}
