//! Kubernetes quantities, exactly: `2Gi`, `60M`, `1500m`, `12e6`.
//!
//! kubernetes: apimachinery pkg/api/resource/quantity.go. Values are whole nano-units; finer digits round up.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Longer than any number that fits.
const MAX_LEN: usize = 64;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// An exact quantity.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Not of the form.
    #[error("{0:?} is not a quantity: write a number with an optional suffix, as in 2Gi, 512Mi, 60M or 1500m")]
    Form(String),
    /// Does not fit in 63 bits.
    #[error("the quantity {0:?} is too large")]
    TooLarge(String),
    /// Below zero where a size is wanted.
    #[error("the quantity {0:?} is negative")]
    Negative(String),
}

impl Quantity {
    /// This many bytes, printed with a binary suffix where one fits.
    #[must_use]
    pub fn bytes(bytes: u64) -> Self {
        Self {
            nanos: i128::from(bytes) * NANO,
            format: Format::Binary,
        }
    }

    /// The whole units, rounded up as Kubernetes' `Value()` does, if not negative.
    ///
    /// # Errors
    /// [`QuantityError::Negative`].
    pub fn size(self) -> Result<u64, QuantityError> {
        let whole = self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0);
        u64::try_from(whole).map_err(|_| QuantityError::Negative(self.to_string()))
    }

    /// Thousandths, rounded up, if not negative: what CPU quantities are compared by.
    ///
    /// # Errors
    /// [`QuantityError::Negative`].
    pub fn milli(self) -> Result<u128, QuantityError> {
        let unit = NANO / 1000;
        let whole = self.nanos.div_euclid(unit) + i128::from(self.nanos.rem_euclid(unit) != 0);
        u128::try_from(whole).map_err(|_| QuantityError::Negative(self.to_string()))
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

/// Splits a text into its sign, digits, digits after the point, and suffix.
fn split(text: &str) -> Option<(bool, &str, &str, &str)> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    (!whole.is_empty() || !fraction.is_empty()).then_some((negative, whole, fraction, suffix))
}

/// The multiplier as a power of two and a power of ten, and the format.
fn scale(suffix: &str) -> Option<(u32, i32, Format)> {
    if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((*shift, 0, Format::Binary));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((0, *exponent, Format::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((0, exponent, Format::Exponent))
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let shown = || text.chars().take(MAX_LEN).collect::<String>();
        let too_large = || QuantityError::TooLarge(shown());
        let (negative, whole, fraction, suffix) = split(text).ok_or_else(|| QuantityError::Form(shown()))?;
        let (shift, exponent, format) = scale(suffix).ok_or_else(|| QuantityError::Form(shown()))?;
        if text.len() > MAX_LEN {
            return Err(too_large());
        }
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa
                .checked_mul(10)
                .and_then(|value| value.checked_add(i128::from(digit - b'0')))
                .ok_or_else(too_large)?;
        }
        let places = i32::try_from(fraction.len()).map_err(|_| too_large())?;
        let power = exponent
            .checked_add(9)
            .and_then(|power| power.checked_sub(places))
            .ok_or_else(too_large)?;
        let shifted = mantissa.checked_mul(1_i128 << shift).ok_or_else(too_large)?;
        let magnitude = scale_by_ten(shifted, power).ok_or_else(too_large)?;
        if magnitude > i128::from(i64::MAX) * NANO {
            return Err(too_large());
        }
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }
}

/// `value` x 10^`power`, rounded up.
fn scale_by_ten(value: i128, power: i32) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        return value.checked_mul(factor?);
    }
    // A divisor that does not fit leaves less than one nano-unit, which rounds up to one.
    Some(factor.map_or(1, |factor| value / factor + i128::from(value % factor != 0)))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.pad("0");
        }
        let whole = self.nanos % NANO == 0;
        let units = self.nanos / NANO;
        if self.format == Format::Binary && whole && units.unsigned_abs() >= 1024 {
            let (suffix, shift) = BINARY
                .iter()
                .rev()
                .find(|(_, shift)| units % (1_i128 << shift) == 0)
                .copied()
                .unwrap_or(("", 0));
            return f.pad(&format!("{}{suffix}", units >> shift));
        }
        let (mut value, mut exponent) = (self.nanos, -9_i32);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, power)| *power == exponent)
            .map_or("", |(name, _)| name);
        match (self.format, exponent) {
            (Format::Exponent, 1.. | ..=-1) => f.pad(&format!("{value}e{exponent}")),
            _ => f.pad(&format!("{value}{suffix}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn prints_canonically() {
        for (text, canonical) in [
            ("1.5Gi", "1536Mi"),
            ("2048Mi", "2Gi"),
            ("17031576Ki", "17031576Ki"),
            ("0.5", "500m"),
            ("60000000", "60M"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("512", "512"),
            ("0.1Ki", "102400m"),
            ("-1Mi", "-1Mi"),
            ("0Gi", "0"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(printed(text), canonical, "{text}");
        }
    }

    #[test]
    fn sizes_round_up_to_whole_units() {
        for (text, size) in [("1500m", 2), ("1Ki", 1024), ("1k", 1000), ("1e3", 1000), ("0.1", 1)] {
            assert_eq!(text.parse::<Quantity>().unwrap().size(), Ok(size), "{text}");
        }
        assert_eq!("1500m".parse::<Quantity>().unwrap().milli(), Ok(1500));
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "-", ".", "Gi", "1KB", "1 Gi", "1e", "0x10", "NaN", "١Gi"] {
            assert!(
                matches!(text.parse::<Quantity>(), Err(QuantityError::Form(_))),
                "{text}"
            );
        }
        for text in ["9Ei", "1e30", "1e2147483647", &"9".repeat(500)] {
            assert!(
                matches!(text.parse::<Quantity>(), Err(QuantityError::TooLarge(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "-1Gi".parse::<Quantity>().unwrap().size(),
            Err(QuantityError::Negative(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_prints_what_it_reads(text in "[-+]?[0-9.]{0,40}(Ki|Mi|Gi|Ei|m|k|M|E|e-?[0-9]{1,10})?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let again: Quantity = quantity.to_string().parse().unwrap();
                proptest::prop_assert_eq!(again.nanos, quantity.nanos);
            }
        }
    }
}
