//! A browser without a screen, driven through its developers' protocol.
//!
//! <https://chromedevtools.github.io/devtools-protocol/>: JSON messages that end with a NUL, over two pipes. No port is
//! opened, and the few methods that tests need are called by name: client crates bring generated code for all of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::setup;

/// Longest that an answer, or a condition of a page, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a page is looked at on.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
    /// The reader prefers dark pages.
    pub dark: bool,
    /// A phone: fingers, two device pixels for one.
    pub phone: bool,
}

impl Screen {
    /// A desk.
    pub const DESKTOP: Self = Self {
        width: 1280,
        height: 900,
        dark: false,
        phone: false,
    };
    /// A phone held upright.
    pub const PHONE: Self = Self {
        width: 390,
        height: 844,
        dark: false,
        phone: true,
    };
}

/// A browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser, which is installed if there is none.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub fn start() -> Result<Self> {
        let program = setup::browser()?;
        let profile = tempfile::tempdir()?;
        // It reads messages from descriptor 3 and writes them to 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            // Root may only run it without its sandbox; it sees nothing but files that tests made.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().context("standard input is piped")?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (sender, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    break;
                };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call("Target.attachToTarget", &target)?;
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(())
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// When the browser is gone or answers with an error.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("the browser is gone")?;
        loop {
            let mut answer = self
                .from
                .recv_timeout(PATIENCE)
                .with_context(|| format!("the browser does not answer {method}"))?;
            if answer["id"] != self.last_id {
                self.events.push(answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].take());
        }
    }

    /// Opens a file on a screen, and waits until it is loaded.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&mut self, file: &Path, screen: Screen) -> Result<()> {
        let metrics = json!({
            "width": screen.width,
            "height": screen.height,
            "deviceScaleFactor": if screen.phone { 2 } else { 1 },
            "mobile": screen.phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        self.prefer_dark(screen.dark)?;
        self.events.clear();
        let answer = self.call("Page.navigate", &json!({"url": format!("file://{}", file.display())}))?;
        ensure!(answer["errorText"].is_null(), "{}", answer["errorText"]);
        self.wait_for("document.readyState === 'complete'")
    }

    /// Changes what the reader prefers.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn prefer_dark(&mut self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Shows the page as it is on paper, or on a screen again.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn on_paper(&mut self, paper: bool) -> Result<()> {
        let media = if paper { "print" } else { "" };
        self.call("Emulation.setEmulatedMedia", &json!({"media": media}))
            .map(drop)
    }

    /// The value of an expression within the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", &params)?;
        ensure!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        Ok(answer["result"]["value"].take())
    }

    /// The number that an expression within the page is.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&mut self, expression: &str) -> Result<f64> {
        let value = self.evaluate(expression)?;
        value.as_f64().with_context(|| format!("{expression} is {value}"))
    }

    /// The text that an expression within the page is.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.evaluate(expression)?;
        let text = value.as_str().with_context(|| format!("{expression} is {value}"))?;
        Ok(text.to_owned())
    }

    /// Waits until an expression within the page is true.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for(&mut self, condition: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(condition)? != Value::Bool(true) {
            if Instant::now() > deadline {
                bail!("never true: {condition}");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Moves the mouse (`mouseMoved`), or presses or releases its left button (`mousePressed`, `mouseReleased`).
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn mouse(&mut self, what: &str, (x, y): (f64, f64), held: bool) -> Result<()> {
        let button = if held || what == "mouseReleased" {
            "left"
        } else {
            "none"
        };
        let clicks = u8::from(what != "mouseMoved");
        let params = json!({
            "type": what, "x": x, "y": y, "button": button, "buttons": u8::from(held), "clickCount": clicks,
        });
        self.call("Input.dispatchMouseEvent", &params).map(drop)
    }

    /// A picture of the whole page, PNG, also kept as `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn screenshot(&mut self, file: &Path) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", &json!({"captureBeyondViewport": true}))?;
        keep(&answer, file)
    }

    /// The page on paper, PDF, also kept as `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn print(&mut self, file: &Path) -> Result<Vec<u8>> {
        let answer = self.call(
            "Page.printToPDF",
            &json!({"printBackground": false, "preferCSSPageSize": true}),
        )?;
        keep(&answer, file)
    }

    /// Errors and warnings of the page's console, exceptions, and what it tried to load besides itself.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        // Events that were on their way arrive before this answer.
        self.evaluate("0")?;
        let asked = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        let beside = asked
            .filter(|event| event["params"]["type"] != "Document")
            .map(|event| format!("loads {}", event["params"]["request"]["url"]));
        let said = self
            .events
            .iter()
            .filter(|event| {
                let method = event["method"].as_str().unwrap_or_default();
                matches!(
                    method,
                    "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded"
                )
            })
            .map(|event| event["params"].to_string());
        Ok(beside.chain(said).collect())
    }
}

fn keep(answer: &Value, file: &Path) -> Result<Vec<u8>> {
    let data = answer["data"].as_str().context("no data")?;
    let bytes = BASE64_STANDARD.decode(data)?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(bytes)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
