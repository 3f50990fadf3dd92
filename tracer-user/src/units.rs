//! Sizes and times as people read and write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Displays with a binary suffix (`412.0 MiB`), parses `64KiB`, `2GiB`, `1048576`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const SUFFIXES: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&SignedBytes(i64::try_from(self.0).unwrap_or(i64::MAX)).to_string())
    }
}

/// A sum of byte counts, which is wide so that none overflows, as what is shown: that of a real recording fits.
#[must_use]
pub fn clamp(bytes: i128) -> i64 {
    i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX })
}

/// A difference of byte counts, displayed as [`Bytes`] with its sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedBytes(pub i64);

impl fmt::Display for SignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        for (suffix, shift) in SUFFIXES {
            if magnitude >> shift == 0 && shift != 0 {
                continue;
            }
            if shift == 0 {
                return f.pad(&format!("{sign}{magnitude} {suffix}"));
            }
            #[expect(clippy::cast_precision_loss, reason = "one decimal is displayed")]
            let value = magnitude as f64 / (1_u64 << shift) as f64;
            return f.pad(&format!("{sign}{value:.1} {suffix}"));
        }
        unreachable!("the last suffix takes every magnitude")
    }
}

/// Why a size could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a size: write bytes or a number with KiB, MiB, GiB or TiB, as in 64MiB")]
pub struct SizeError(String);

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError(text.to_owned());
        let (number, shift) = SUFFIXES
            .iter()
            .find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift)))
            .unwrap_or((text, 0));
        let number: u64 = number.trim().parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_with_the_largest_suffix_that_leaves_a_whole_number() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(412 << 20).to_string(), "412.0 MiB");
        assert_eq!(SignedBytes(-(3 << 29)).to_string(), "-1.5 GiB");
    }

    #[test]
    fn parses_what_people_write() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("4096".parse(), Ok(Bytes(4096)));
        assert!("64MB".parse::<Bytes>().is_err());
        assert!("99999999999TiB".parse::<Bytes>().is_err());
    }
}
