//! A report as one self-contained HTML page: no network, light and dark, for screens, phones and paper.
//!
//! The rooms here turn findings into what the templates in `templates/report/` show. Every name that comes from a pod
//! or a log passes [`cell::name`], which makes control characters visible; the templates escape for HTML on their own.
//! Scripts and styles are let through by their hashes alone, so markup that got in all the same could run nothing.

mod budget;
mod cell;
mod chart;
mod flame;
mod kill;
mod merged;
mod pod;
mod recording;
mod table;

use std::io::{self, Write};

use askama::Template;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Merged, Report, words};
use merged::MergedView;
use recording::RecordingView;

/// uPlot 1.6.32, MIT (`templates/report/uplot/LICENSE`), as published in the npm package `uplot`.
const UPLOT: &str = include_str!("../../../templates/report/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../../templates/report/uplot/uPlot.min.css");
const UPLOT_LICENSE: &str = include_str!("../../../templates/report/uplot/LICENSE");
const STYLE: &str = include_str!("../../../templates/report/report.css");
const SCRIPTS: [&str; 3] = [
    include_str!("../../../templates/report/stack.js"),
    include_str!("../../../templates/report/chart.js"),
    include_str!("../../../templates/report/page.js"),
];

#[derive(Template)]
#[template(path = "report/page.html")]
struct Page {
    title: String,
    version: &'static str,
    policy: String,
    style: String,
    script: String,
    merged: Option<MergedView>,
    reports: Vec<RecordingView>,
}

/// Writes a report as one page.
///
/// # Errors
/// When `out` fails.
pub fn render(report: &Report, out: &mut impl Write) -> io::Result<()> {
    page(std::slice::from_ref(report), None, out)
}

/// Writes reports of several recordings as one page.
///
/// # Errors
/// When `out` fails.
pub fn render_merged(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    page(&merged.recordings, Some(MergedView::new(merged)), out)
}

fn page(reports: &[Report], merged: Option<MergedView>, out: &mut impl Write) -> io::Result<()> {
    let style = format!("\n{UPLOT_STYLE}\n{STYLE}");
    let script = format!("\n/*\n{UPLOT_LICENSE}*/\n{UPLOT}{}", SCRIPTS.concat());
    let pods: usize = reports.iter().map(|report| report.pods.len()).sum();
    let page = Page {
        title: title(reports),
        version: env!("CARGO_PKG_VERSION"),
        policy: policy(&style, &script),
        style,
        script,
        merged,
        reports: reports
            .iter()
            .enumerate()
            .map(|(index, report)| RecordingView::new(index, report, pods))
            .collect(),
    };
    page.write_into(out).map_err(io::Error::other)
}

/// Where a pod stands on the page.
fn anchor(recording: usize, pod: usize) -> String {
    format!("p{recording}-{pod}")
}

/// What the browser lets the page do: run this script and this style, show its own icon, and nothing else.
fn policy(style: &str, script: &str) -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'",
        hash(script),
        hash(style)
    )
}

fn title(reports: &[Report]) -> String {
    let names: Vec<String> = reports
        .iter()
        .flat_map(|report| &report.pods)
        .map(words::name)
        .collect();
    match names.as_slice() {
        [] => "headroom report".to_owned(),
        [name] => format!("{name} – headroom report"),
        [first, rest @ ..] => format!("{first} and {} more – headroom report", rest.len()),
    }
}
