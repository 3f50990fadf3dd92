//! What was measured.

use serde::{Deserialize, Serialize};

/// A piece of work under one set-up, measured in batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What runs beside the work: `none`, `empty`, `unwatched` and so on.
    pub setup: String,
    /// What is done, such as `anon`.
    pub load: String,
    /// Which step of it, such as `fault`.
    pub step: String,
    /// What one step takes: the median of the batches.
    pub median: f64,
    /// The first and the third quartile.
    pub quartiles: [f64; 2],
    /// How many batches there were.
    pub batches: usize,
}

impl Figure {
    /// Of the batches of a step, each with what one step took in it. `None` without any.
    #[must_use]
    pub fn of(setup: &str, load: &str, step: &str, batches: &[f64]) -> Option<Self> {
        let mut sorted = batches.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            // Rounds to one of the batches, which are few.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index below the number of batches"
            )]
            let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(index).copied()
        };
        Some(Self {
            setup: setup.to_owned(),
            load: load.to_owned(),
            step: step.to_owned(),
            median: quantile(0.5)?,
            quartiles: [quantile(0.25)?, quantile(0.75)?],
            batches: batches.len(),
        })
    }
}

/// What a run measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The exact kernel.
    pub kernel: String,
    /// How many hooks have a program of headroom's, and how many of them have two.
    pub hooks: (usize, usize),
    /// All figures.
    pub figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

impl Figures {
    /// What a step takes under a set-up.
    #[must_use]
    pub fn median(&self, setup: &str, load: &str, step: &str) -> Option<f64> {
        let found = |figure: &&Figure| figure.setup == setup && figure.load == load && figure.step == step;
        self.figures.iter().find(found).map(|figure| figure.median)
    }

    /// What a set-up adds to a step that takes `median(base, ..)` otherwise.
    #[must_use]
    pub fn added(&self, setup: &str, base: &str, load: &str, step: &str) -> Option<f64> {
        Some(self.median(setup, load, step)? - self.median(base, load, step)?)
    }

    /// All steps, in the order in which they were measured first.
    #[must_use]
    pub fn steps(&self) -> Vec<(&str, &str)> {
        let mut steps = Vec::new();
        for figure in &self.figures {
            let step = (figure.load.as_str(), figure.step.as_str());
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        steps
    }

    /// All set-ups, in the order in which they were measured first.
    #[must_use]
    pub fn setups(&self) -> Vec<&str> {
        let mut setups = Vec::new();
        for figure in &self.figures {
            if !setups.contains(&figure.setup.as_str()) {
                setups.push(&figure.setup);
            }
        }
        setups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_batch_does_not_count() {
        let figure = Figure::of("none", "anon", "fault", &[7.0, 9000.0, 5.0, 6.0, 8.0]).unwrap();
        assert_eq!((figure.median, figure.quartiles), (7.0, [6.0, 8.0]));
        assert_eq!(Figure::of("none", "anon", "fault", &[]), None);
    }

    #[test]
    fn what_is_added_is_the_difference() {
        let of = |setup: &str, value: f64| Figure::of(setup, "anon", "fault", &[value]).unwrap();
        let figures = Figures {
            figures: vec![of("none", 100.0), of("empty", 130.0)],
            ..Figures::default()
        };
        assert_eq!(figures.added("empty", "none", "anon", "fault"), Some(30.0));
        assert_eq!(figures.added("empty", "none", "anon", "free"), None);
        assert_eq!(figures.setups(), ["none", "empty"]);
        assert_eq!(figures.steps(), [("anon", "fault")]);
    }
}
