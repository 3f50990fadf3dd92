//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Something that the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Command {
    Quit,
    Suspend,
    Redraw,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    /// Look into a pod, fold or unfold.
    Open,
    Back,
    Tab,
    Sort,
    Reverse,
    Help,
    Pause,
    /// Begin to type a filter.
    Filter,
    Type(char),
    Erase,
    Accept,
    /// Seconds in a recording.
    SeekBy(i64),
    SeekStart,
    SeekEnd,
    Faster,
    Slower,
}

/// Keys as the help shows them, and what they do.
pub const HELP: [(&str, &str); 14] = [
    ("up down j k", "move; PgUp PgDn by a screenful, g G to the ends"),
    ("enter", "look into a pod; fold and unfold what is in it"),
    ("esc backspace", "back: from the help, the filter, the pod"),
    ("tab", "a pod as tree, by role, by thread"),
    ("s", "sort: headroom or growth, growth per second, guest RAM, name"),
    ("r", "reverse the order"),
    ("/", "show only what contains a text; enter keeps it, esc drops it"),
    ("space p", "pause what is shown (tracing goes on); play a recording"),
    ("left right", "in a recording: 5 s back or on, with shift 1 min"),
    ("home end", "in a recording: its start, its end"),
    ("+ -", "in a recording: play faster, slower"),
    ("ctrl-l", "draw the screen anew"),
    ("ctrl-z", "back to the shell; `fg` continues"),
    ("q ctrl-c", "quit"),
];

/// What a key means. `editing` is while a filter is typed, `replay` with a recording.
#[must_use]
pub fn command(key: KeyEvent, editing: bool, replay: bool) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Quit),
            KeyCode::Char('z') => Some(Command::Suspend),
            KeyCode::Char('l') => Some(Command::Redraw),
            _ => None,
        };
    }
    if editing {
        return typing(key.code);
    }
    let far = key.modifiers.contains(KeyModifiers::SHIFT);
    if replay && let Some(command) = seeking(key.code, far) {
        return Some(command);
    }
    Some(match key.code {
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Up | KeyCode::Char('k') => Command::Up,
        KeyCode::Down | KeyCode::Char('j') => Command::Down,
        KeyCode::PageUp => Command::PageUp,
        KeyCode::PageDown => Command::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Command::First,
        KeyCode::End | KeyCode::Char('G') => Command::Last,
        KeyCode::Enter => Command::Open,
        KeyCode::Esc | KeyCode::Backspace => Command::Back,
        KeyCode::Tab => Command::Tab,
        KeyCode::Char('s') => Command::Sort,
        KeyCode::Char('r') => Command::Reverse,
        KeyCode::Char('h' | '?') => Command::Help,
        KeyCode::Char(' ' | 'p') => Command::Pause,
        KeyCode::Char('/') => Command::Filter,
        _ => return None,
    })
}

const fn typing(code: KeyCode) -> Option<Command> {
    match code {
        KeyCode::Char(c) => Some(Command::Type(c)),
        KeyCode::Backspace => Some(Command::Erase),
        KeyCode::Enter => Some(Command::Accept),
        KeyCode::Esc => Some(Command::Back),
        _ => None,
    }
}

const fn seeking(code: KeyCode, far: bool) -> Option<Command> {
    let step = if far { 60 } else { 5 };
    match code {
        KeyCode::Left => Some(Command::SeekBy(-step)),
        KeyCode::Right => Some(Command::SeekBy(step)),
        KeyCode::Home => Some(Command::SeekStart),
        KeyCode::End => Some(Command::SeekEnd),
        KeyCode::Char('+' | '=') => Some(Command::Faster),
        KeyCode::Char('-') => Some(Command::Slower),
        _ => None,
    }
}
