//! Draws a snapshot: pure, so that tests draw into memory.

mod head;
mod help;
mod list;
mod pod;
mod style;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::rows::rows;
use super::snapshot::Snapshot;
use super::text::Theme;
use super::ui::Ui;

pub use head::{Playing, Status};

/// Least size that anything can be shown in, cells.
const LEAST: (u16, u16) = (20, 5);

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, ui: &mut Ui, status: &Status, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return frame.render_widget(Paragraph::new("too small"), area);
    }
    let width = usize::from(area.width);
    let mut top = head::lines(snapshot, status, width, theme);
    if let Some(detail) = snapshot.detail(ui.open()) {
        top.extend(pod::summary(snapshot, detail, ui, width, theme));
    }
    // A list of one row is more use than a head without one.
    top.truncate(usize::from(area.height.saturating_sub(4)));
    let rows = rows(snapshot, ui, theme);
    let layout = Layout::vertical([
        Constraint::Length(u16::try_from(top.len()).unwrap_or(u16::MAX)),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [top_area, heading, body, detail, foot] = layout.areas(area);
    frame.render_widget(Paragraph::new(top), top_area);
    if ui.help {
        let help_area = heading.union(detail);
        frame.render_widget(Paragraph::new(help::lines(width, theme)), help_area);
    } else {
        if ui.selected.is_none() {
            // What is above the pod has nothing to tell.
            ui.selected = rows.iter().find(|row| row.tells()).map(|row| row.key.clone());
        }
        ui.settle(
            rows.iter().map(|row| row.key.clone()).collect(),
            usize::from(body.height),
        );
        frame.render_widget(Paragraph::new(list::heading(snapshot, ui, width, theme)), heading);
        let lines: Vec<Line<'_>> = list::lines(snapshot, &rows, ui, width, theme);
        frame.render_widget(Paragraph::new(lines), body);
        frame.render_widget(Paragraph::new(pod::selected(&rows, ui, width, theme)), detail);
    }
    if ui.open().is_some() && snapshot.detail(ui.open()).is_none() {
        return frame.render_widget(Paragraph::new(head::no_pod(width, theme)), foot);
    }
    frame.render_widget(Paragraph::new(head::foot(ui, status, width, theme)), foot);
}
