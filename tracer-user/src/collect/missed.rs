//! Runs of programs that the kernel left out, and that no second program made up for.

/// Counts since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Times that the first program of a pair, or the only one, was left out.
    pub missed: u64,
    /// Times that a second program did what a first was kept from.
    pub made_up: u64,
}

impl Runs {
    /// Runs whose bytes are in no account, of those since `before`. What comes before counts for nothing: while programs
    /// are attached one after the other, a second one runs where there is no first yet, and makes up for nothing.
    #[must_use]
    pub const fn lost_since(self, before: Self) -> u64 {
        let missed = self.missed.saturating_sub(before.missed);
        missed.saturating_sub(self.made_up.saturating_sub(before.made_up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_while_attaching_makes_up_for_nothing_later() {
        let attached = Runs { missed: 1, made_up: 40 };
        let later = |missed, made_up| Runs { missed, made_up }.lost_since(attached);
        assert_eq!(later(1, 40), 0);
        assert_eq!(later(11, 50), 0, "all made up for");
        assert_eq!(later(11, 48), 2);
        assert_eq!(later(3, 60), 0);
    }
}
