//! `headroom report --format html`, looked at in a browser. The pictures stay in `target/report`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use headroom::recording::Writer;
use headroom::recording::event::{Alert, AlertKind, Basis, Body, Driver, Event};
use headroom::role::Role;
use headroom_tests::{Browser, Run, Screen, recording};
use serde_json::Value;
use tempfile::TempDir;
use xtask::paths;

/// A recording of the lab, made on Linux 6.18 by the tracepoint backend.
fn fixture(name: &str) -> PathBuf {
    paths::workspace()
        .join("tests/fixtures/recordings")
        .join(format!("{name}.jsonl.zst"))
}

/// The page about a recording, and the JSON form of the same report.
fn render(file: &Path, folder: &TempDir) -> Result<(PathBuf, Value)> {
    let page = folder.path().join("report.html");
    let (file, out) = (file.display().to_string(), page.display().to_string());
    let run = Run::headroom(["report", &file, "--format", "html", "-o", &out])?;
    ensure!(
        run.status == Some(0) && run.stdout.is_empty() && run.stderr.is_empty(),
        "{run:?}"
    );
    let run = Run::headroom(["report", &file, "--json"])?;
    Ok((page, serde_json::from_str(&run.stdout)?))
}

fn picture(name: &str) -> PathBuf {
    paths::target().join("report").join(name)
}

/// Pixels of a canvas that are not empty, by the selector of its figure.
fn painted(browser: &mut Browser, chart: &str) -> Result<f64> {
    browser.number(&format!(
        "(() => {{ const c = document.querySelector('[data-chart={chart}] canvas');
           const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
           let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 0) n++;
           return n / (c.width * c.height); }})()"
    ))
}

/// The value that the legend of a chart shows beside a name.
fn legend(browser: &mut Browser, chart: &str, name: &str) -> Result<String> {
    browser.text(&format!(
        "[...document.querySelectorAll('[data-chart={chart}] .legend li')]
           .find(item => item.querySelector('span').textContent === '{name}')?.querySelector('b').textContent"
    ))
}

fn expect_fits(browser: &mut Browser, screen: Screen) -> Result<()> {
    let width = browser.number("document.documentElement.scrollWidth")?;
    ensure!(
        width <= f64::from(screen.width),
        "{width} pixels on a screen of {}",
        screen.width
    );
    Ok(())
}

#[test]
fn a_kill_is_shown_with_its_timeline_and_tables() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (page, report) = render(&fixture("memhold"), &folder)?;
    let pod = &report["pods"][0];
    let mut browser = Browser::start()?;
    browser.open(&page, Screen::DESKTOP)?;
    browser.wait_for("document.querySelectorAll('canvas').length === 2")?;

    let sentence = browser.text("document.querySelector('.verdict .sentence').textContent")?;
    ensure!(
        sentence.starts_with("memhold (of memhold) grew 260.5 MiB of anon in ")
            && sentence.contains("the kernel killed qemu-system-x86 at 07:16:32, invoked by vCPU 0"),
        "{sentence}"
    );
    for (table, field) in [("roles", "by_role"), ("threads", "by_thread")] {
        let rows = browser.number(&format!("document.querySelectorAll('table.{table} tbody tr').length"))?;
        let expected = pod[field].as_array().context("a list")?.len();
        ensure!(
            (rows - expected as f64).abs() < f64::EPSILON && expected == 3,
            "{table}: {rows}, not {expected}"
        );
    }
    let log = browser.text("document.querySelector('.kill .log').textContent")?;
    let lines = pod["oom"][0]["kernel_report"].as_array().context("lines")?;
    ensure!(lines.len() > 20 && log.lines().count() == lines.len(), "{log}");
    ensure!(browser.number("document.querySelectorAll('table.tasks tbody tr').length")? >= 3.0);
    ensure!(
        browser
            .text("document.querySelector('.probes').textContent")?
            .contains("mod_memcg_lruvec_state")
    );
    let blamed = browser.text("document.querySelector('table.roles tr.blamed th').textContent")?;
    ensure!(blamed == "other memhold", "{blamed}");

    for chart in ["memory", "overhead"] {
        let part = painted(&mut browser, chart)?;
        ensure!(part > 0.2, "{chart}: {part} of it is painted");
    }
    let parts = browser.text("[...document.querySelectorAll('h2')].map(part => part.textContent).join()")?;
    let expected = "Timeline,The kill,Forecasts,Who grew,Budget,Reconciliation,Reclaim stalls,How it was recorded";
    ensure!(parts == expected, "{parts}");
    let foreseen = browser.number("[...document.querySelectorAll('caption')]
        .find(caption => caption.textContent.startsWith('What was predicted')).parentNode.querySelectorAll('tbody tr').length")?;
    let forecasts = pod["forecasts"].as_array().map_or(0, Vec::len);
    ensure!(
        forecasts > 0 && (foreseen - forecasts as f64).abs() < 0.5,
        "{foreseen} of {forecasts} forecasts"
    );
    // Without a cursor the legend tells of the end, the kill.
    ensure!(legend(&mut browser, "memory", "limit")? == "688.0 MiB");
    ensure!(legend(&mut browser, "memory", "headroom")? == "0 B");
    ensure!(legend(&mut browser, "memory", "+ other memhold")? == "260.5 MiB");
    ensure!(legend(&mut browser, "overhead", "other memhold")? == "260.5 MiB");
    expect_fits(&mut browser, Screen::DESKTOP)?;
    browser.screenshot(&picture("desktop.png"))?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    // The kill and the first forecast are lines over the height of the chart, 300 pixels. Reading pixels often makes the
    // browser complain, so this comes last.
    for colour in ["--limit", "--forecast"] {
        let pixels = coloured(&mut browser, "memory", colour)?;
        ensure!(pixels > 300.0, "{pixels} pixels of {colour}");
    }
    Ok(())
}

#[test]
fn values_follow_the_cursor_and_dragging_zooms_both_charts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (page, _) = render(&fixture("backup-io"), &folder)?;
    let mut browser = Browser::start()?;
    browser.open(
        &page,
        Screen {
            height: 1200,
            ..Screen::DESKTOP
        },
    )?;
    browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
    let at_end = legend(&mut browser, "memory", "usage")?;
    let place = |browser: &mut Browser, part: f64| -> Result<(f64, f64)> {
        let edge = |side: &str| {
            format!("document.querySelector('[data-chart=memory] .u-over').getBoundingClientRect().{side}")
        };
        let (left, width, top) = (
            browser.number(&edge("left"))?,
            browser.number(&edge("width"))?,
            browser.number(&edge("top"))?,
        );
        Ok((left + width * part, top + 40.0))
    };
    let early = place(&mut browser, 0.3)?;
    browser.mouse("mouseMoved", early, false)?;
    browser.wait_for("document.querySelector('.when').textContent.includes('into the window')")?;
    let usage = legend(&mut browser, "memory", "usage")?;
    ensure!(usage != at_end, "the cursor changes nothing: {usage}");
    let clocks = browser.number("new Set([...document.querySelectorAll('.when b')].map(b => b.textContent)).size")?;
    ensure!(clocks < 1.5, "the charts do not share their cursor");

    let labels = "JSON.stringify([...document.querySelectorAll('canvas')].map(c => c.toDataURL().length))";
    let whole = browser.text(labels)?;
    let late = place(&mut browser, 0.6)?;
    browser.mouse("mousePressed", early, true)?;
    browser.mouse("mouseMoved", late, true)?;
    browser.mouse("mouseReleased", late, false)?;
    browser.wait_for(&format!("{labels} !== {whole:?}"))?;
    browser.evaluate("document.querySelector('[data-zoom=all]').click()")?;
    let away = (5.0, 5.0);
    browser.mouse("mouseMoved", away, false)?;
    browser.wait_for(&format!("{labels} === {whole:?}"))?;

    // By kind the same growth is told in other parts.
    browser.evaluate("document.querySelector('[data-by=kinds]').click()")?;
    let file = legend(&mut browser, "overhead", "file")?;
    ensure!(file.ends_with(" MiB"), "{file}");
    // A click sorts, another one the other way round.
    let first = "document.querySelector('table.threads tbody tr td').textContent";
    browser.evaluate("document.querySelector('table.threads thead button').click()")?;
    let largest = browser.text(first)?;
    browser.evaluate("document.querySelector('table.threads thead button').click()")?;
    let smallest = browser.text(first)?;
    ensure!(
        largest.parse::<u32>()? > smallest.parse::<u32>()?,
        "{largest} {smallest}"
    );
    browser.screenshot(&picture("backup.png"))?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    Ok(())
}

#[test]
fn it_reads_on_a_phone_in_the_dark_and_on_paper() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (page, _) = render(&fixture("memhold"), &folder)?;
    let mut browser = Browser::start()?;
    browser.open(&page, Screen::PHONE)?;
    browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
    expect_fits(&mut browser, Screen::PHONE)?;
    let font = browser.number("parseFloat(getComputedStyle(document.querySelector('.verdict .sentence')).fontSize)")?;
    ensure!(font >= 16.0, "{font}");
    browser.screenshot(&picture("phone.png"))?;

    browser.open(
        &page,
        Screen {
            dark: true,
            ..Screen::DESKTOP
        },
    )?;
    browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
    let ground = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.text(ground)?;
    browser.screenshot(&picture("dark.png"))?;
    let pixels = "document.querySelector('canvas').toDataURL()";
    let in_the_dark = browser.text(pixels)?;
    browser.prefer_dark(false)?;
    browser.wait_for(&format!("{ground} !== {dark:?}"))?;
    // Charts change with the rest.
    browser.wait_for(&format!(
        "{pixels}.length !== {} || {pixels}.slice(-400) !== {:?}",
        in_the_dark.len(),
        &in_the_dark[in_the_dark.len() - 400..]
    ))?;

    browser.on_paper(true)?;
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")?;
    let hidden = browser
        .number("[...document.querySelectorAll('.tools, .switch')].filter(part => part.offsetHeight > 0).length")?;
    let folded = browser.number("document.querySelectorAll('details:not([open])').length")?;
    ensure!(
        hidden < 0.5 && folded < 0.5,
        "{hidden} buttons on paper, {folded} parts left out"
    );
    browser.screenshot(&picture("paper.png"))?;
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")?;
    browser.on_paper(false)?;
    let paper = browser.print(&picture("paper.pdf"))?;
    ensure!(
        paper.starts_with(b"%PDF") && paper.len() > 20_000,
        "{} bytes",
        paper.len()
    );
    // What was opened for paper is closed again.
    ensure!(browser.number("document.querySelectorAll('details[open]').length")? < 0.5);
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    Ok(())
}

/// The recording with every name in it replaced.
fn renamed(file: &Path, name: &str, out: &Path) -> Result<()> {
    let (mut events, _) = recording::events(file)?;
    for Event { body, .. } in &mut events {
        match body {
            Body::Header(header) => {
                header.host = name.to_owned();
                header.backends.insert(name.to_owned(), name.to_owned());
            }
            Body::Pod(pod) => (pod.namespace, pod.vm, pod.cgroup) = (name.to_owned(), name.to_owned(), name.to_owned()),
            Body::Process(process) => {
                (process.comm, process.name) = (name.to_owned(), name.to_owned());
                process.role = Role::Helper(name.to_owned());
            }
            Body::Thread(thread) => {
                thread.comm = name.to_owned();
                thread.role = Role::Other(name.to_owned());
            }
            Body::Oom(oom) => {
                (oom.victim.comm, oom.invoker.comm) = (name.to_owned(), name.to_owned());
                oom.kernel_report.push(name.to_owned());
            }
            Body::Footer(footer) => footer.ended = name.to_owned(),
            _ => {}
        }
    }
    write(&events, out)
}

fn write(events: &[Event], out: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, "test")?;
    for event in events {
        writer.push(event)?;
    }
    writer.finish()?;
    drop(writer);
    fs::write(out, bytes).map_err(Into::into)
}

/// Pixels of the charts that have the colour of an alert.
fn warned(browser: &mut Browser, chart: &str) -> Result<f64> {
    coloured(browser, chart, "--warn")
}

/// Pixels of a chart that have one of the page's colours.
fn coloured(browser: &mut Browser, chart: &str, colour: &str) -> Result<f64> {
    browser.number(&format!(
        "(() => {{ const c = document.querySelector('[data-chart={chart}] canvas');
           const [r, g, b] = getComputedStyle(document.documentElement).getPropertyValue('{colour}').trim()
             .match(/[0-9a-f]{{2}}/g).map(part => parseInt(part, 16));
           const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
           let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i] === r && d[i + 1] === g && d[i + 2] === b) n++;
           return n; }})()"
    ))
}

#[test]
fn alerts_are_marked_in_the_timeline_and_listed() -> Result<()> {
    let hostile = "</script><b>\u{1b}[31m";
    let folder = tempfile::tempdir()?;
    let (mut events, _) = recording::events(&fixture("memhold"))?;
    let mut browser = Browser::start()?;
    for with in [false, true] {
        if with {
            let mut samples = events
                .iter()
                .enumerate()
                .filter_map(|(index, event)| match &event.body {
                    Body::Sample(sample) => Some((index, event.t, sample.pod)),
                    _ => None,
                });
            let (middle, at, pod) = samples.nth(6).context("seven samples")?;
            let alert = |alert, raised| Alert {
                pod,
                alert,
                raised,
                threshold: 64 << 20,
                value: Some(60 << 20),
                driver: Some(Driver {
                    role: Role::Helper(hostile.to_owned()),
                    process: hostile.to_owned(),
                }),
                kill_at: None,
                basis: Basis::default(),
            };
            let told = [
                (AlertKind::Headroom, true),
                (AlertKind::Rate, true),
                (AlertKind::Headroom, false),
            ];
            let told = told.map(|(kind, raised)| Event {
                t: at,
                body: Body::Alert(alert(kind, raised)),
            });
            events.splice(middle + 1..=middle, told);
        }
        let file = folder.path().join("alerts.jsonl.zst");
        write(&events, &file)?;
        let (page, report) = render(&file, &folder)?;
        browser.open(&page, Screen::DESKTOP)?;
        browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
        let (marks, rows) = (
            warned(&mut browser, "memory")?,
            browser.number("document.querySelectorAll('table.alerts tbody tr').length")?,
        );
        let listed = report["pods"][0]["alerts"].as_array().context("a list")?.len();
        ensure!(
            (rows - listed as f64).abs() < 0.5 && (listed == 3) == with,
            "{rows} rows"
        );
        // A line over the height of the chart, 300 pixels, and more.
        ensure!(if with { marks > 300.0 } else { marks < 20.0 }, "{marks} pixels");
        ensure!(warned(&mut browser, "overhead")? < 20.0);
    }
    ensure!(legend(&mut browser, "memory", "alerts")?.is_empty());
    let text = browser.text("document.querySelector('table.alerts tbody').textContent")?;
    ensure!(
        text.contains("over: less than 64.0 MiB of headroom") && text.contains("</script><b>\\x1b[31m"),
        "{text}"
    );
    browser.screenshot(&picture("alerts.png"))?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    Ok(())
}

#[test]
fn marks_stand_on_the_timeline() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (all, _) = recording::events(&fixture("marks"))?;
    let file = folder.path().join("marks.jsonl.zst");
    let mut browser = Browser::start()?;
    let mut painted = Vec::new();
    for with in [false, true] {
        let mut events = all.clone();
        for event in &mut events {
            if let Body::Mark(mark) = &mut event.body
                && mark.text == "backup-ends"
            {
                mark.text = "</script><b>ends\u{1b}[31m".to_owned();
            }
        }
        events.retain(|event| with || !matches!(event.body, Body::Mark(_)));
        write(&events, &file)?;
        let (page, report) = render(&file, &folder)?;
        let marks = report["pods"][0]["marks"].as_array().context("a list")?.len();
        ensure!(marks == if with { 2 } else { 0 }, "{marks} marks");
        browser.open(&page, Screen::DESKTOP)?;
        browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
        painted.push(coloured(&mut browser, "memory", "--soft")?);
    }
    // Two lines over the height of the chart, 300 pixels.
    ensure!(painted[1] > painted[0] + 300.0, "{painted:?} pixels");
    ensure!(legend(&mut browser, "memory", "marks")?.is_empty());
    browser.screenshot(&picture("marks.png"))?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());
    Ok(())
}

#[test]
fn hostile_names_are_shown_and_do_nothing() -> Result<()> {
    let hostile = "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\"'`&amp;\u{202e}\0\u{1b}[31m{{7*7}}";
    let shown = "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\"'`&amp;\\u{202e}\\x00\\x1b[31m{{7*7}}";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("hostile.jsonl.zst");
    renamed(&fixture("memhold"), hostile, &file)?;
    let (page, _) = render(&file, &folder)?;
    let mut browser = Browser::start()?;
    browser.open(&page, Screen::PHONE)?;
    browser.wait_for("document.querySelectorAll('canvas').length === 2")?;
    ensure!(
        browser.evaluate("window.owned === undefined")? == Value::Bool(true),
        "a name ran"
    );
    ensure!(
        browser.number("document.images.length")? < 0.5,
        "a name became an element"
    );
    ensure!(browser.text("document.querySelector('.pod h1').textContent")? == format!("{shown}/{shown}"));
    ensure!(browser.text("document.querySelector('table.threads tbody th').textContent")? == shown);
    let named = browser.text("document.querySelector('[data-chart=overhead] .legend').textContent")?;
    ensure!(named.contains(shown), "{named}");
    ensure!(
        browser
            .text("document.querySelector('.log').textContent")?
            .trim_end()
            .ends_with(shown)
    );
    expect_fits(&mut browser, Screen::PHONE)?;
    ensure!(browser.complaints()?.is_empty(), "{:?}", browser.complaints());

    // The policy would stop what got in all the same.
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned=1\">')")?;
    browser.evaluate("new Promise(done => setTimeout(done, 200))")?;
    ensure!(
        browser.evaluate("window.owned === undefined")? == Value::Bool(true),
        "the policy lets handlers run"
    );
    ensure!(!browser.complaints()?.is_empty(), "the policy stops nothing");
    Ok(())
}
