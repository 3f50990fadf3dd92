//! Overhead by code path, as a flame graph and as a table.

use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

use super::cell::{Size, name};
use crate::report::{CodePath, CodePaths, PodReport};
use crate::units::Bytes;

/// Width of the drawing; the page scales it.
const WIDTH: usize = 1200;
/// Height of a frame.
const FRAME: usize = 18;
/// Where the drawing of frames begins, and how it ends, in what inferno writes: its title, style and script are left
/// out, since the page has its own and lets no other through.
const BEGIN: &str = "<svg id=\"frames\"";
const END: &str = "</svg>";
/// Paths in the table.
const ROWS: usize = 20;

/// What the template shows of code paths.
pub(super) struct FlameView {
    /// A drawing without script, safe within a page. `None` where there is nothing to draw.
    pub drawing: Option<String>,
    pub charged: String,
    pub rows: Vec<PathRow>,
    /// Bytes charged from paths that have no row.
    pub others: Option<String>,
}

/// A code path in the table.
pub(super) struct PathRow {
    pub charged: Size,
    pub share: String,
    pub role: String,
    /// The function that the kernel was called from, or the kernel's own.
    pub function: String,
    /// The way there, outermost first.
    pub path: String,
}

impl FlameView {
    pub(super) fn new(pod: &PodReport) -> Option<Self> {
        let paths = pod.by_code_path.as_ref()?;
        let beyond = paths
            .paths
            .iter()
            .skip(ROWS)
            .fold(paths.others, |sum, path| sum.saturating_add(path.charged));
        Some(Self {
            drawing: draw(paths),
            charged: Bytes(paths.charged).to_string(),
            rows: paths
                .paths
                .iter()
                .take(ROWS)
                .map(|path| row(path, paths.charged))
                .collect(),
            others: (beyond > 0).then(|| Bytes(beyond).to_string()),
        })
    }
}

fn row(path: &CodePath, charged: u64) -> PathRow {
    let way: Vec<String> = path
        .user
        .iter()
        .rev()
        .chain(path.kernel.iter().rev())
        .map(name)
        .collect();
    PathRow {
        charged: Size::of(path.charged),
        share: format!("{:.0}%", 100.0 * path.charged as f64 / charged.max(1) as f64),
        role: who(path),
        function: path.function().map_or_else(|| "not known".to_owned(), name),
        path: way.join(" › "),
    }
}

fn who(path: &CodePath) -> String {
    name(format!("{} ({})", path.role, path.process))
}

/// The drawing of all code paths.
fn draw(paths: &CodePaths) -> Option<String> {
    let frame = crate::export::folded_frame;
    let lines: Vec<String> = paths
        .paths
        .iter()
        .map(|path| {
            let user = path.user.iter().rev().map(|name| frame(name));
            let kernel = path.kernel.iter().rev().map(|name| format!("{}_[k]", frame(name)));
            let frames: Vec<String> = std::iter::once(frame(&who(path))).chain(user).chain(kernel).collect();
            format!("{} {}", frames.join(";"), path.charged)
        })
        .collect();
    let mut options = Options::default();
    options.title = String::new();
    options.count_name = "bytes".to_owned();
    options.image_width = Some(WIDTH);
    options.frame_height = FRAME;
    options.direction = Direction::Straight;
    options.deterministic = true;
    options.no_javascript = true;
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .inspect_err(|error| log::warn!("no flame graph: {error}"))
        .ok()?;
    framed(&String::from_utf8(svg).ok()?)
}

/// The frames of what inferno drew, in a drawing of the page's own.
fn framed(svg: &str) -> Option<String> {
    let height: u32 = svg.split_once("height=\"")?.1.split_once('"')?.0.parse().ok()?;
    let frames = svg.split_once(BEGIN)?.1;
    let frames = frames.trim_end().strip_suffix(END)?;
    Some(format!(
        "<svg class=\"flame\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\"><svg class=\"frames\"{frames}</svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    fn paths(user: &[&str], kernel: &[&str]) -> CodePaths {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        CodePaths {
            charged: 3 << 20,
            paths: vec![CodePath {
                role: Role::MainLoop,
                process: "qemu".to_owned(),
                charged: 3 << 20,
                user: owned(user),
                kernel: owned(kernel),
            }],
            others: 0,
        }
    }

    #[test]
    fn functions_stand_above_those_that_call_them() {
        let drawn = draw(&paths(&["leak", "main"], &["do_anonymous_page", "handle_mm_fault"])).unwrap();
        let at = |name: &str| {
            let tail = drawn
                .split_once(&format!("<title>{name} (3,145,728 bytes, 100.00%)</title>"))
                .unwrap()
                .1;
            let y = tail.split_once("y=\"").unwrap().1.split_once('"').unwrap().0;
            y.parse::<f64>().unwrap()
        };
        let heights: Vec<f64> = [
            "main-loop (qemu)",
            "main",
            "leak",
            "handle_mm_fault",
            "do_anonymous_page",
        ]
        .into_iter()
        .map(at)
        .collect();
        assert!(heights.is_sorted_by(|below, above| below > above), "{heights:?}");
    }

    #[test]
    fn nothing_in_a_name_becomes_markup_or_acts() {
        let hostile = "</title></svg><script>alert(1)</script> onload=x \" ' ; \u{1b}[31m\u{202e}";
        let drawn = draw(&paths(&[hostile], &[])).unwrap();
        assert!(!drawn.contains("<script") && !drawn.contains("</script"), "{drawn}");
        assert!(!drawn.contains(['\u{1b}', '\u{202e}']), "{drawn}");
        assert_eq!(drawn.matches("<svg").count(), 2, "{drawn}");
        assert_eq!(drawn.matches("</svg>").count(), 2, "{drawn}");
        assert_eq!(drawn.matches("<title>").count(), drawn.matches("</title>").count());
    }

    #[test]
    fn the_drawing_brings_no_style_and_no_script() {
        let drawn = draw(&paths(&["leak"], &["charge"])).unwrap();
        for unwanted in ["<style", "<script", "onload", "style=", "id=", "href"] {
            assert!(!drawn.contains(unwanted), "{unwanted}: {drawn}");
        }
    }
}
