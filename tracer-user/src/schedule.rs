//! Times of day as people write them, and when they come next.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, ZonedDateTime};

/// How long anything sleeps at a time: the clock may be set meanwhile, and the node may have slept.
const NAP: Duration = Duration::from_secs(10);

/// A time of every day: `22:00`, `22:00:30`, `22:00,Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daily {
    time: Time,
    zone: TimeZone,
}

/// A time window of every day: `22:00-02:00`, `22:00-02:00,Europe/Berlin`. It may go beyond midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    start: Time,
    end: Time,
    zone: TimeZone,
}

/// What is left of a window, or the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// When it begins, or began.
    pub start: ZonedDateTime,
    /// When it ends.
    pub end: ZonedDateTime,
}

impl FromStr for Daily {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (time, zone) = with_zone(text)?;
        Ok(Self {
            time: time_of_day(time)?,
            zone,
        })
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (times, zone) = with_zone(text)?;
        let (start, end) = times
            .split_once('-')
            .ok_or_else(|| format!("'{text}' is not a window: write it as 22:00-02:00 or 22:00-02:00,Europe/Berlin"))?;
        let (start, end) = (time_of_day(start)?, time_of_day(end)?);
        if start == end {
            return Err(format!(
                "the window {text} has no length: leave it away to trace all day"
            ));
        }
        Ok(Self { start, end, zone })
    }
}

/// Without a time zone that of this system, or UTC where it has none.
fn with_zone(text: &str) -> Result<(&str, TimeZone), String> {
    match text.split_once(',') {
        None => Ok((text, TimeZone::system())),
        Some((times, zone)) => TimeZone::get(zone)
            .map(|zone| (times, zone))
            .map_err(|_| format!("there is no time zone '{zone}': write it as Europe/Berlin or UTC")),
    }
}

fn time_of_day(text: &str) -> Result<Time, String> {
    ["%H:%M", "%H:%M:%S"]
        .iter()
        .find_map(|format| Time::strptime(format, text.trim()).ok())
        .ok_or_else(|| format!("'{text}' is not a time of day: write it as 22:00"))
}

/// This time on the day of `day`, moved by `days`. A time that a change of the clocks leaves out comes when it would have
/// been; of one that comes twice, the first counts.
fn on(day: &ZonedDateTime, days: i64, time: Time) -> Option<ZonedDateTime> {
    let date = day.date().checked_add(days.days()).ok()?;
    date.to_datetime(time).to_zoned_datetime(day.time_zone().clone()).ok()
}

impl Daily {
    /// When it comes next. `None` only at the end of all times.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<ZonedDateTime> {
        let today = now.to_zoned_datetime(self.zone.clone());
        [0, 1, 2]
            .into_iter()
            .filter_map(|days| on(&today, days, self.time))
            .find(|at| at.timestamp() > now)
    }
}

impl Window {
    /// The window that it is now, else the next one. `None` only at the end of all times.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Occurrence> {
        let today = now.to_zoned_datetime(self.zone.clone());
        [-1, 0, 1, 2]
            .into_iter()
            .filter_map(|days| {
                let end = days + i64::from(self.end <= self.start);
                Some(Occurrence {
                    start: on(&today, days, self.start)?,
                    end: on(&today, end, self.end)?,
                })
            })
            .find(|window| window.end.timestamp() > now && window.end > window.start)
    }
}

/// Sleeps until the system's clock shows this time.
pub async fn sleep_until(at: Timestamp) {
    while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now())) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(window: &str, now: &str) -> (String, String) {
        let found = window.parse::<Window>().unwrap().next(at(now)).unwrap();
        (found.start.timestamp().to_string(), found.end.timestamp().to_string())
    }

    fn pair(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn a_window_beyond_midnight_is_one_window() {
        let tonight = pair("2026-11-25T22:00:00Z", "2026-11-26T02:00:00Z");
        for now in [
            "2026-11-25T02:00:00Z",
            "2026-11-25T12:00:00Z",
            "2026-11-25T22:00:00Z",
            "2026-11-26T01:59:59Z",
        ] {
            assert_eq!(next("22:00-02:00,UTC", now), tonight, "{now}");
        }
        assert_eq!(
            next("22:00-02:00,UTC", "2026-11-26T02:00:00Z").0,
            "2026-11-26T22:00:00Z"
        );
        assert_eq!(
            next("01:00-01:30:20,UTC", "2026-11-25T01:30:00Z"),
            pair("2026-11-25T01:00:00Z", "2026-11-25T01:30:20Z")
        );
    }

    #[test]
    fn a_window_is_one_of_its_time_zone_all_year() {
        let zone = "22:00-02:00,Europe/Berlin";
        assert_eq!(
            next(zone, "2026-07-01T12:00:00Z"),
            pair("2026-07-01T20:00:00Z", "2026-07-02T00:00:00Z")
        );
        assert_eq!(
            next(zone, "2026-12-01T12:00:00Z"),
            pair("2026-12-01T21:00:00Z", "2026-12-02T01:00:00Z")
        );
        // The night in which 02:00 becomes 03:00, and the one in which 03:00 becomes 02:00.
        assert_eq!(
            next("01:00-03:30,Europe/Berlin", "2026-03-29T00:00:00Z"),
            pair("2026-03-29T00:00:00Z", "2026-03-29T01:30:00Z")
        );
        assert_eq!(
            next("01:00-03:30,Europe/Berlin", "2026-10-24T23:00:00Z"),
            pair("2026-10-24T23:00:00Z", "2026-10-25T02:30:00Z")
        );
        // A window within the hour that is left out is moved behind it.
        assert_eq!(
            next("02:10-02:50,Europe/Berlin", "2026-03-29T00:00:00Z"),
            pair("2026-03-29T01:10:00Z", "2026-03-29T01:50:00Z")
        );
    }

    #[test]
    fn a_time_of_day_comes_today_or_tomorrow() {
        let daily: Daily = "22:00,UTC".parse().unwrap();
        let next = |now: &str| daily.next(at(now)).unwrap().timestamp().to_string();
        assert_eq!(next("2026-11-25T21:59:59Z"), "2026-11-25T22:00:00Z");
        assert_eq!(next("2026-11-25T22:00:00Z"), "2026-11-26T22:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is_one() {
        for (window, words) in [
            ("22:00", "22:00-02:00"),
            ("22-02", "22:00"),
            ("25:00-02:00", "25:00"),
            ("22:00-22:00", "no length"),
            ("22:00-02:00,Mars/Olympus", "Mars/Olympus"),
        ] {
            let error = window.parse::<Window>().unwrap_err();
            assert!(error.contains(words), "{window}: {error}");
        }
        assert!("soon".parse::<Daily>().is_err());
    }
}
