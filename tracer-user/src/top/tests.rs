//! Draws a recording into memory. It was made in the lab; a machine with hostile names was added.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::{CrosstermBackend, TestBackend};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::input::command;
use super::replay::Player;
use super::screen::Gathered;
use super::view::{Status, draw};
use super::*;
use crate::recording::event::Event;

const SECOND: u64 = 1_000_000_000;
/// The recording begins an hour after boot.
const START: u64 = 3600 * SECOND;
const PLAIN: Theme = Theme {
    color: false,
    unicode: true,
};
const ASCII: Theme = Theme {
    color: false,
    unicode: false,
};

fn events() -> Vec<Event> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/top/node.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn feed(until: u64) -> Feed {
    let mut feed = Feed::replay();
    for event in events().iter().filter(|event| event.t <= until) {
        feed.apply(event);
    }
    feed
}

/// A screen at some seconds after the start.
fn buffer(seconds: u64, ui: &mut Ui, size: (u16, u16), theme: Theme) -> Buffer {
    let t = START + seconds * SECOND;
    let feed = feed(t);
    let snapshot = Snapshot::of(&feed, t, Open::One(ui.open()));
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, &snapshot, ui, &Status::default(), theme))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let symbols: Vec<&str> = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
    let line = |cells: &[&str]| format!("{}\n", cells.concat().trim_end());
    symbols.chunks(width).map(line).collect()
}

fn press(ui: &mut Ui, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            c => KeyCode::Char(c),
        };
        if let Some(command) = command(KeyEvent::new(code, KeyModifiers::NONE), ui.editing, false) {
            ui.command(command);
        }
    }
}

/// A pod looked into, once the list was drawn.
fn inside(keys: &str) -> Ui {
    let mut ui = Ui::default();
    buffer(30, &mut ui, (80, 24), PLAIN);
    press(&mut ui, "\n");
    buffer(30, &mut ui, (80, 24), PLAIN);
    press(&mut ui, keys);
    ui
}

#[test]
fn pods_at_80_by_24() {
    insta::assert_snapshot!(text(&buffer(20, &mut Ui::default(), (80, 24), PLAIN)));
}

#[test]
fn pods_on_a_terminal_of_ascii_alone() {
    let shown = text(&buffer(20, &mut Ui::default(), (80, 12), ASCII));
    assert!(shown.is_ascii(), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_pod_as_a_tree() {
    insta::assert_snapshot!(text(&buffer(30, &mut inside(""), (80, 24), PLAIN)));
}

#[test]
fn a_pod_by_role_on_a_wide_terminal() {
    insta::assert_snapshot!(text(&buffer(30, &mut inside("\t"), (120, 20), PLAIN)));
}

#[test]
fn a_pod_by_thread_after_the_kill() {
    insta::assert_snapshot!(text(&buffer(40, &mut inside("\t\t"), (100, 20), PLAIN)));
}

#[test]
fn the_help() {
    insta::assert_snapshot!(text(&buffer(20, &mut inside("?"), (80, 24), PLAIN)));
}

#[test]
fn hostile_names_reach_no_cell() {
    let mut ui = Ui::default();
    press(&mut ui, "/live");
    buffer(30, &mut ui, (80, 24), PLAIN);
    press(&mut ui, "\n\n");
    for keys in ["", "\t", "\t"] {
        press(&mut ui, keys);
        ui.filter.clear();
        let buffer = buffer(30, &mut ui, (120, 24), PLAIN);
        let hostile = |c: char| c.is_control() || c == '\u{202e}' || c == '\u{301}';
        let cell = buffer.content.iter().find(|cell| cell.symbol().chars().any(hostile));
        assert!(cell.is_none(), "{cell:?}");
    }
    assert_eq!(ui.open(), Some(2));
}

#[test]
fn no_size_is_too_small() {
    for (width, height) in [
        (1, 1),
        (19, 4),
        (20, 5),
        (21, 9),
        (40, 3),
        (300, 6),
        (8, 200),
        (500, 200),
    ] {
        for keys in ["", "\t", "\t\t", "?"] {
            buffer(30, &mut inside(keys), (width, height), PLAIN);
            buffer(30, &mut Ui::default(), (width, height), ASCII);
        }
    }
}

#[test]
fn without_colours_there_are_none_and_with_them_a_kill_is_red() {
    let colors = |theme| -> Vec<Color> {
        let buffer = buffer(40, &mut Ui::default(), (80, 24), theme);
        buffer.content.iter().map(|cell| cell.fg).collect()
    };
    assert!(colors(PLAIN).iter().all(|color| *color == Color::Reset));
    let theme = Theme {
        color: true,
        unicode: true,
    };
    assert!(colors(theme).contains(&Color::Red));
}

#[test]
fn rows_are_sorted_filtered_and_folded() {
    let mut ui = inside("");
    let tree = text(&buffer(30, &mut ui, (80, 40), PLAIN));
    assert!(tree.contains("CPU 0/KVM") && tree.contains("memhold"), "{tree}");
    press(&mut ui, "/vcpu 0\n");
    let filtered = text(&buffer(30, &mut ui, (80, 40), PLAIN));
    assert!(
        filtered.contains("CPU 0/KVM") && filtered.contains("qemu"),
        "{filtered}"
    );
    assert!(
        !filtered.contains("CPU 1/KVM") && !filtered.contains("virtlogd"),
        "{filtered}"
    );
    press(&mut ui, "\u{1b}");
    buffer(30, &mut ui, (80, 40), PLAIN);
    let qemu = ui.rows.iter().position(|key| matches!(key, Key::Process(_)));
    ui.selected = qemu.and_then(|index| ui.rows.get(index + 1)).cloned();
    let rows = ui.rows.len();
    let process = ui.rows.iter().find(|key| {
        let index = ui.rows.iter().position(|other| other == *key).unwrap_or(0);
        matches!(key, Key::Process(_)) && matches!(ui.rows.get(index + 1), Some(Key::Thread(_)))
    });
    ui.selected = process.cloned();
    press(&mut ui, "\n");
    let folded = text(&buffer(30, &mut ui, (80, 40), PLAIN));
    assert!(ui.rows.len() < rows && folded.contains(" [+"), "{folded}");
    press(&mut ui, "\ns\ts");
    let by_guest = text(&buffer(30, &mut ui, (80, 40), PLAIN));
    assert!(by_guest.contains("sort:guest RAM"), "{by_guest}");
    let first = by_guest.lines().nth(6).unwrap_or_default();
    assert!(first.starts_with("vcpu"), "{by_guest}");
    press(&mut ui, "r");
    let reversed = text(&buffer(30, &mut ui, (80, 40), PLAIN));
    assert!(
        !reversed.lines().nth(6).unwrap_or_default().starts_with("vcpu"),
        "{reversed}"
    );
}

/// What one terminal gets in bytes, second by second.
#[test]
fn a_frame_fits_a_slow_serial_console() {
    let all = events();
    for (open, most) in [(false, 400), (true, 960)] {
        let mut feed = Feed::replay();
        let mut ui = Ui::default();
        if open {
            ui.show(Screen::Pod(0));
        }
        let gathered = Gathered::default();
        let backend = CrosstermBackend::new(gathered.clone());
        let options = ratatui::TerminalOptions {
            viewport: ratatui::Viewport::Fixed(ratatui::layout::Rect::new(0, 0, 80, 24)),
        };
        let mut terminal = Terminal::with_options(backend, options).unwrap();
        let mut next = 0;
        let mut sizes = Vec::new();
        for second in 1..34 {
            let t = START + second * SECOND;
            while let Some(event) = all.get(next).filter(|event| event.t <= t) {
                feed.apply(event);
                next += 1;
            }
            let snapshot = Snapshot::of(&feed, t, Open::One(ui.open()));
            terminal
                .draw(|frame| draw(frame, &snapshot, &mut ui, &Status::default(), ASCII))
                .unwrap();
            sizes.push(gathered.take().len());
        }
        // The first two draw what stays.
        let steady = &sizes[8..];
        let mean = steady.iter().sum::<usize>() / steady.len();
        println!("open: {open}, mean {mean}, sizes {sizes:?}");
        assert!(mean < most, "{mean} bytes a frame: {sizes:?}");
    }
}

fn recording(folder: &Path) -> PathBuf {
    let path = folder.join("node.jsonl.zst");
    let mut writer = crate::recording::Writer::create(&path, crate::recording::Overwrite::Refuse).unwrap();
    for event in events() {
        writer.push(&event).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn shown(player: &mut Player) -> String {
    while !player.has_arrived() {
        player.advance(Duration::from_secs(5)).unwrap();
    }
    let snapshot = Snapshot::of(player.feed(), player.position(), Open::One(Some(0)));
    let mut ui = Ui::default();
    ui.show(Screen::Pod(0));
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    let status = Status {
        playing: Some(player.status()),
        ..Status::default()
    };
    terminal
        .draw(|frame| draw(frame, &snapshot, &mut ui, &status, PLAIN))
        .unwrap();
    text(terminal.backend().buffer())
}

#[test]
fn a_time_looks_the_same_from_wherever_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(folder.path());
    let mut player = Player::open(&path).unwrap();
    let end = shown(&mut player);
    assert!(end.contains("killed"), "{end}");
    player.seek_start().unwrap();
    let start = shown(&mut player);
    assert_ne!(start, end);
    player.seek_by(20).unwrap();
    let forward = shown(&mut player);
    player.seek_by(12).unwrap();
    shown(&mut player);
    player.seek_by(-12).unwrap();
    assert_eq!(shown(&mut player), forward);
    player.seek_end().unwrap();
    assert_eq!(shown(&mut player), end);
    player.play_or_stop().unwrap();
    assert_eq!(shown(&mut player).lines().next(), start.lines().next());
    player.faster();
    player.pass(Duration::from_secs(10)).unwrap();
    assert_eq!(shown(&mut player).replace("x2", "x1"), forward);
    player.pass(Duration::from_secs(10)).unwrap();
    assert!(!player.is_playing(), "it stops at the end");
}

#[test]
fn what_is_cut_off_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.jsonl.zst");
    std::fs::File::create(&cut)
        .unwrap()
        .write_all(&bytes[..bytes.len() / 2])
        .unwrap();
    let mut player = Player::open(&cut).unwrap();
    assert!(shown(&mut player).contains("INCOMPLETE"));
}

fn any_key() -> impl Strategy<Value = (KeyEvent, bool)> {
    let code = prop_oneof![
        any::<char>().prop_map(KeyCode::Char),
        prop::sample::select(vec!['q', 'j', 'k', 's', 'r', '/', ' ', 'p', '?', 'g', 'G', '+', '-'])
            .prop_map(KeyCode::Char),
        prop::sample::select(vec![
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::Backspace,
            KeyCode::Left,
            KeyCode::Right,
        ]),
    ];
    (code, any::<bool>()).prop_map(|(code, replay)| (KeyEvent::new(code, KeyModifiers::NONE), replay))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_keys_do_harm(keys in prop::collection::vec(any_key(), 1..40), size in (1_u16..100, 1_u16..30)) {
        let t = START + 30 * SECOND;
        let snapshot = Snapshot::of(&feed(t), t, Open::All);
        let mut ui = Ui::default();
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        for (key, replay) in keys {
            if let Some(command) = command(key, ui.editing, replay) {
                ui.command(command);
            }
            terminal.draw(|frame| draw(frame, &snapshot, &mut ui, &Status::default(), PLAIN)).unwrap();
        }
    }
}
