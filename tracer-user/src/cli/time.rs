//! Times as people write them.

use std::time::Duration;

/// A duration: `90s`, `15m`, `2h`, `1h30m`, or a bare number of seconds.
///
/// # Errors
/// Says how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("'{text}' is not a time: write it as 90s, 15m or 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("20"), Ok(Duration::from_secs(20)));
        assert!(duration("-5s").is_err());
        assert!(duration("soon").is_err());
    }
}
