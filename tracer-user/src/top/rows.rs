//! Which rows there are, in which order.

use std::cmp::{Ordering, Reverse};

use super::items::{Item, Key, What};
use super::snapshot::{PodRow, Snapshot};
use super::text::Theme;
use super::ui::{Sort, Tab, Ui};

/// A row of the list.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What it stands for.
    pub key: Key,
    /// What it shows.
    pub shown: Shown<'a>,
}

/// What a row shows.
#[derive(Clone, Debug)]
pub enum Shown<'a> {
    /// A pod.
    Pod(&'a PodRow),
    /// Something in a pod.
    Item {
        /// It.
        item: &'a Item,
        /// The lines of the tree before its name.
        lead: String,
        /// What is in it, where that is not shown.
        folded: Option<usize>,
    },
}

impl Row<'_> {
    /// Whether it has figures of its own.
    #[must_use]
    pub fn tells(&self) -> bool {
        !matches!(self.shown, Shown::Item { item, .. } if item.what == What::Above)
    }
}

/// The rows that the user wants to see, in order.
#[must_use]
pub fn rows<'a>(snapshot: &'a Snapshot, ui: &Ui, theme: Theme) -> Vec<Row<'a>> {
    let filter = ui.filter.to_lowercase();
    let Some(detail) = snapshot.detail(ui.open()) else {
        return pods(snapshot, ui, &filter);
    };
    let roots = match ui.tab {
        Tab::Tree => &detail.tree,
        Tab::Roles => &detail.roles,
        Tab::Threads => &detail.threads,
    };
    let mut walk = Walk {
        ui,
        theme,
        filter: &filter,
        rows: Vec::new(),
    };
    walk.level(roots, "", false);
    walk.rows
}

fn pods<'a>(snapshot: &'a Snapshot, ui: &Ui, filter: &str) -> Vec<Row<'a>> {
    let matches =
        |pod: &&PodRow| contains(&pod.name, filter) || pod.culprit.as_ref().is_some_and(|name| contains(name, filter));
    let mut pods: Vec<&PodRow> = snapshot.pods.iter().filter(matches).collect();
    pods.sort_by(|a, b| {
        let order = match ui.sort {
            Sort::Main => a.headroom().unwrap_or(u64::MAX).cmp(&b.headroom().unwrap_or(u64::MAX)),
            Sort::Rate => b.rate.total_cmp(&a.rate),
            Sort::Guest => b.guest_resident.cmp(&a.guest_resident),
            Sort::Name => Ordering::Equal,
        };
        turned(order.then_with(|| a.name.cmp(&b.name)), ui).then(a.number.cmp(&b.number))
    });
    let row = |pod: &'a PodRow| Row {
        key: Key::Pod(pod.number),
        shown: Shown::Pod(pod),
    };
    pods.into_iter().map(row).collect()
}

fn turned(order: Ordering, ui: &Ui) -> Ordering {
    if ui.reversed { order.reverse() } else { order }
}

/// Whether a text contains another one, which is in lower case.
fn contains(text: &str, wanted: &str) -> bool {
    wanted.is_empty() || text.to_lowercase().contains(wanted)
}

/// On the way through a tree.
struct Walk<'a, 'u> {
    ui: &'u Ui,
    theme: Theme,
    filter: &'u str,
    rows: Vec<Row<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn level(&mut self, items: &'a [Item], lead: &str, inner: bool) {
        let mut shown: Vec<&'a Item> = items.iter().filter(|item| self.wanted(item)).collect();
        shown.sort_by(|a, b| self.order(a, b));
        let [through, into, into_last, nothing] = self.theme.branches();
        let count = shown.len();
        for (index, item) in shown.into_iter().enumerate() {
            let last = index + 1 == count;
            let (own, below) = match (inner, last) {
                (false, _) => (String::new(), String::new()),
                (true, false) => (format!("{lead}{into}"), format!("{lead}{through}")),
                (true, true) => (format!("{lead}{into_last}"), format!("{lead}{nothing}")),
            };
            let folded = self.ui.folded.contains(&item.key) && !item.children.is_empty();
            self.rows.push(Row {
                key: item.key.clone(),
                shown: Shown::Item {
                    item,
                    lead: own,
                    folded: folded.then_some(item.children.len()),
                },
            });
            if !folded {
                self.level(&item.children, &below, true);
            }
        }
    }

    /// What matches the filter, and what it is in.
    fn wanted(&self, item: &Item) -> bool {
        let matches = |item: &Item| {
            contains(&item.name, self.filter) || item.role.as_ref().is_some_and(|role| contains(role, self.filter))
        };
        item.find(&matches).is_some()
    }

    fn order(&self, a: &Item, b: &Item) -> Ordering {
        let order = match self.ui.sort {
            Sort::Main => Reverse(a.growth).cmp(&Reverse(b.growth)),
            Sort::Rate => b.rate.total_cmp(&a.rate),
            Sort::Guest => Reverse(a.guest).cmp(&Reverse(b.guest)),
            Sort::Name => Ordering::Equal,
        };
        turned(order.then_with(|| a.name.cmp(&b.name)), self.ui).then_with(|| a.key.cmp(&b.key))
    }
}
