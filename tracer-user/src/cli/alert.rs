//! When to alert, and what to run then: arguments of `record` and `watch`.

use std::time::Duration;

use anyhow::Context as _;

use crate::cli::exit::{ExitError, Status};
use crate::cli::time::duration;
use crate::ledger::alert::Thresholds;
use crate::lookout::{Lookout, Program, Runner};
use crate::units::{Bytes, SizeError};

/// Arguments about alerts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// Alert when the limit is expected to be met within this time, as in 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    alert_eta: Option<Duration>,
    /// Alert when less than this is left below the limit, as in 64MiB; page cache that can be reclaimed counts as free
    #[arg(long, value_name = "SIZE")]
    alert_headroom: Option<Bytes>,
    /// Alert when overhead grows by this much per second or more, as in 10MiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = rate)]
    alert_rate: Option<Bytes>,
    /// Run this at each alert: a program and its arguments, quoted as one word, without a shell
    ///
    /// It finds what there is to say in the variables HEADROOM_ALERT (eta, headroom or rate), HEADROOM_TIME,
    /// HEADROOM_NAMESPACE, HEADROOM_VM, HEADROOM_POD (uid), HEADROOM_CGROUP, HEADROOM_CULPRIT, HEADROOM_ETA_S,
    /// HEADROOM_HEADROOM_BYTES, HEADROOM_RATE_BYTES_PER_S, HEADROOM_LIMIT_BYTES, HEADROOM_THRESHOLD and HEADROOM_VALUE
    /// (seconds, bytes, or bytes per second), and HEADROOM_MESSAGE (a line to be read). In what comes from the pod,
    /// characters other than letters, digits and " ._-:/@+,()" are underscores. While it runs, it is not run for another
    /// alert. What it leaves running in its process group ends with it. When headroom ends, it has 5 s left. It has no
    /// capabilities of root: headroom gives them up once it is attached, unless told to --keep-privileges.
    #[arg(long, value_name = "CMD")]
    on_alert: Option<String>,
    /// Give CMD to /bin/sh
    #[arg(long, requires = "on_alert")]
    on_alert_shell: bool,
    /// Kill CMD, with its process group, after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    on_alert_timeout: Duration,
}

/// Bytes per second: `10MiB/s`.
///
/// # Errors
/// Says how to write it.
pub fn rate(text: &str) -> Result<Bytes, SizeError> {
    text.strip_suffix("/s").unwrap_or(text).parse()
}

/// Checked arguments.
#[derive(Debug)]
pub struct Alerting {
    thresholds: Thresholds,
    program: Option<Program>,
}

impl AlertArgs {
    /// Checks them.
    ///
    /// # Errors
    /// Exit status 2 when a threshold would never or always be passed, or when the command cannot be run.
    pub fn check(&self) -> anyhow::Result<Alerting> {
        let usage = |message: String| -> anyhow::Error { ExitError::new(Status::Usage, message).into() };
        let thresholds = Thresholds {
            eta: self.alert_eta,
            headroom: self.alert_headroom.map(|bytes| bytes.0),
            rate: self.alert_rate.map(|bytes| bytes.0),
        };
        for (flag, zero) in [
            ("--alert-eta", thresholds.eta.is_some_and(|eta| eta.is_zero())),
            ("--alert-headroom", thresholds.headroom == Some(0)),
            ("--alert-rate", thresholds.rate == Some(0)),
            (
                "--on-alert-timeout",
                self.on_alert.is_some() && self.on_alert_timeout.is_zero(),
            ),
        ] {
            if zero {
                return Err(usage(format!("{flag} must be more than 0")));
            }
        }
        if self.on_alert.is_some() && !thresholds.any() {
            let message = "--on-alert needs a threshold: --alert-eta, --alert-headroom or --alert-rate";
            return Err(usage(message.to_owned()));
        }
        let program = match &self.on_alert {
            Some(line) if self.on_alert_shell => Some(Program::of_shell(line, self.on_alert_timeout)),
            Some(line) => {
                let program = Program::of_words(line, self.on_alert_timeout);
                Some(program.map_err(|error| usage(format!("--on-alert: {error}")))?)
            }
            None => None,
        };
        Ok(Alerting { thresholds, program })
    }
}

impl Alerting {
    /// The stage that looks ahead.
    ///
    /// # Errors
    /// When the thread that runs the command cannot be started.
    pub fn lookout(self) -> anyhow::Result<Lookout> {
        let runner = self.program.map(Runner::start).transpose();
        Ok(Lookout::new(self.thresholds, runner.context("cannot start a thread")?))
    }
}
