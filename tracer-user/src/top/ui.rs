//! What the user looks at, and what keys do to it.

use std::collections::HashSet;

use super::input::Command;
use super::items::Key;

/// Longest filter, characters.
const MAX_FILTER: usize = 64;

/// What fills the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// All pods.
    #[default]
    Pods,
    /// One pod, by its number.
    Pod(u32),
}

/// How a pod is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Slices, scopes, processes, threads.
    #[default]
    Tree,
    /// Roles and processes.
    Roles,
    /// Threads alone.
    Threads,
}

/// What rows are ordered by. The largest comes first, except by name and by headroom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Headroom of pods, growth of what is in them.
    #[default]
    Main,
    /// Growth per second.
    Rate,
    /// Guest RAM.
    Guest,
    /// Name.
    Name,
}

/// What the program is to do about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Draw.
    Draw,
    /// Draw everything anew.
    Redraw,
    /// End.
    Quit,
    /// Give the terminal back to the shell until it continues this.
    Suspend,
    /// Go forth or back in a recording, by seconds.
    SeekBy(i64),
    /// Go to a recording's start.
    SeekStart,
    /// Go to its end.
    SeekEnd,
    /// Play it faster.
    Faster,
    /// Play it slower.
    Slower,
    /// Pause or go on.
    Pause,
}

/// What the user chose.
#[derive(Debug, Default)]
pub struct Ui {
    /// What fills the screen.
    pub screen: Screen,
    /// How a pod is looked at.
    pub tab: Tab,
    /// The order.
    pub sort: Sort,
    /// The order is turned round.
    pub reversed: bool,
    /// What rows must contain.
    pub filter: String,
    /// The filter is being typed.
    pub editing: bool,
    /// The help is shown.
    pub help: bool,
    /// What is not unfolded.
    pub folded: HashSet<Key>,
    /// The row under the cursor.
    pub selected: Option<Key>,
    /// Rows above the first one shown.
    pub offset: usize,
    /// Keys of all rows in order, as last drawn.
    pub rows: Vec<Key>,
    /// Rows that fit, as last drawn.
    pub page: usize,
}

impl Ui {
    /// The pod that is looked into.
    #[must_use]
    pub const fn open(&self) -> Option<u32> {
        match self.screen {
            Screen::Pods => None,
            Screen::Pod(number) => Some(number),
        }
    }

    /// Does what a key says.
    pub fn command(&mut self, command: Command) -> Action {
        match command {
            Command::Quit => return Action::Quit,
            Command::Suspend => return Action::Suspend,
            Command::Redraw => return Action::Redraw,
            Command::Pause => return Action::Pause,
            Command::SeekBy(seconds) => return Action::SeekBy(seconds),
            Command::SeekStart => return Action::SeekStart,
            Command::SeekEnd => return Action::SeekEnd,
            Command::Faster => return Action::Faster,
            Command::Slower => return Action::Slower,
            Command::Up => self.go(-1),
            Command::Down => self.go(1),
            Command::PageUp => self.go(-self.page_step()),
            Command::PageDown => self.go(self.page_step()),
            Command::First => self.selected = self.rows.first().cloned(),
            Command::Last => self.selected = self.rows.last().cloned(),
            Command::Open => self.enter(),
            Command::Back => self.back(),
            Command::Tab => self.tab = self.tab.next(),
            Command::Sort => self.sort = self.sort.next(),
            Command::Reverse => self.reversed = !self.reversed,
            Command::Help => self.help = !self.help,
            Command::Filter => self.editing = true,
            Command::Type(c) => {
                if self.filter.chars().count() < MAX_FILTER {
                    self.filter.push(c);
                }
            }
            Command::Erase => drop(self.filter.pop()),
            Command::Accept => self.editing = false,
        }
        Action::Draw
    }

    fn page_step(&self) -> isize {
        isize::try_from(self.page.max(1)).unwrap_or(isize::MAX)
    }

    /// Where the cursor is.
    #[must_use]
    pub fn index(&self) -> usize {
        let selected = self.selected.as_ref();
        selected
            .and_then(|selected| self.rows.iter().position(|key| key == selected))
            .unwrap_or(0)
    }

    fn go(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        let index = self.index().saturating_add_signed(by).min(last);
        self.selected = self.rows.get(index).cloned();
    }

    fn enter(&mut self) {
        let Some(key) = self.rows.get(self.index()).cloned() else {
            return;
        };
        if let Key::Pod(number) = key {
            self.show(Screen::Pod(number));
        } else if !self.folded.remove(&key) {
            self.folded.insert(key);
        }
    }

    /// One thing at a time: the help, the filter, the pod.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.editing || !self.filter.is_empty() {
            self.editing = false;
            self.filter.clear();
        } else if let Screen::Pod(number) = self.screen {
            self.show(Screen::Pods);
            self.selected = Some(Key::Pod(number));
        }
    }

    /// Goes to another screen.
    pub fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.selected = None;
        self.offset = 0;
    }

    /// Takes the rows that there are now; keeps the cursor on its row and that row in sight.
    pub fn settle(&mut self, rows: Vec<Key>, page: usize) {
        let before = self.index();
        self.rows = rows;
        self.page = page;
        let last = self.rows.len().saturating_sub(1);
        let there = self
            .selected
            .as_ref()
            .is_some_and(|selected| self.rows.contains(selected));
        if !there {
            self.selected = self.rows.get(before.min(last)).cloned();
        }
        let index = self.index();
        self.offset = self.offset.min(index).min(self.rows.len().saturating_sub(page));
        if index >= self.offset + page {
            self.offset = index + 1 - page.max(1);
        }
    }
}

impl Tab {
    fn next(self) -> Self {
        match self {
            Self::Tree => Self::Roles,
            Self::Roles => Self::Threads,
            Self::Threads => Self::Tree,
        }
    }
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Main => Self::Rate,
            Self::Rate => Self::Guest,
            Self::Guest => Self::Name,
            Self::Name => Self::Main,
        }
    }
}
