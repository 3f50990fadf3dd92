//! The ratio that multiplies the overhead: KubeVirt's `additionalGuestMemoryOverheadRatio` and the Harvester setting
//! that is copied into it.

use super::Error;

/// Harvester's default. harvester: pkg/settings/settings_helper.go (1.4)
pub const HARVESTER_DEFAULT: &str = "1.5";

/// A factor of at least 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// No multiplication.
    pub const ONE: Self = Self(1.0);

    /// Reads KubeVirt's field: at least 1. kubevirt: pkg/virt-operator/webhooks/kubevirt-update-admitter.go (1.0)
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn kubevirt(text: &str) -> Result<Self, Error> {
        match parse(text) {
            Some(ratio) if ratio >= 1.0 => Ok(Self(ratio)),
            Some(_) => Err(Error::Rejected(format!(
                "additionalGuestMemoryOverheadRatio {text:?} can't be less than 1"
            ))),
            None => Err(Error::Rejected(format!(
                "additionalGuestMemoryOverheadRatio {text:?} is not a number"
            ))),
        }
    }

    /// Reads Harvester's setting: empty for the default, 0 for none, or 1 to 10; the messages are Harvester's own.
    /// harvester: pkg/settings/settings_helper.go (1.4)
    ///
    /// # Errors
    /// What Harvester's webhook would answer.
    pub fn harvester(text: &str) -> Result<Option<Self>, Error> {
        let text = if text.is_empty() { HARVESTER_DEFAULT } else { text };
        let shown = text.escape_default();
        let ratio =
            parse(text).ok_or_else(|| Error::Rejected(format!("value {shown} can't be converted to float64")))?;
        if ratio == 0.0 {
            return Ok(None);
        }
        if ratio < 1.0 {
            return Err(Error::Rejected(format!("value {shown} can't be less than 1")));
        }
        if ratio > 10.0 {
            return Err(Error::Rejected(format!("value {shown} can't be greater than 10")));
        }
        Ok(Some(Self(ratio)))
    }

    /// The factor.
    #[must_use]
    pub fn factor(self) -> f64 {
        self.0
    }

    /// What the ratio adds to `bytes`: whole kilobytes, in the floating point that KubeVirt uses.
    /// kubevirt: pkg/virt-controller/services/renderresources.go multiplyMemory (1.0)
    ///
    /// # Errors
    /// [`Error::Overflow`].
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rounding of float64 is part of the result; the range is checked"
    )]
    pub fn adds(self, bytes: u64) -> Result<u64, Error> {
        let kilobytes = bytes.div_ceil(1000) as f64 * (self.0 - 1.0);
        if kilobytes >= (i64::MAX / 1000) as f64 {
            return Err(Error::Overflow("the overhead times the ratio"));
        }
        Ok(kilobytes as u64 * 1000)
    }
}

/// A finite decimal number: what both products mean, less the `inf` and `nan` that their parser lets through.
fn parse(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio: &f64| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harvester_says_what_it_says() {
        assert_eq!(Ratio::harvester(""), Ok(Some(Ratio(1.5))));
        assert_eq!(Ratio::harvester("0"), Ok(None));
        assert_eq!(Ratio::harvester("0.0"), Ok(None));
        assert_eq!(Ratio::harvester("10.0"), Ok(Some(Ratio(10.0))));
        for (text, message) in [
            ("0.9", "value 0.9 can't be less than 1"),
            ("-1", "value -1 can't be less than 1"),
            ("10.1", "value 10.1 can't be greater than 10"),
            ("x", "value x can't be converted to float64"),
            ("NaN", "value NaN can't be converted to float64"),
        ] {
            assert_eq!(Ratio::harvester(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn kubevirt_wants_at_least_one() {
        assert!(Ratio::kubevirt("1").is_ok());
        assert!(Ratio::kubevirt("0").is_err());
        assert!(Ratio::kubevirt("inf").is_err());
    }
}
