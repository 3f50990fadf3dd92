//! The smallest reserves that hold a need, found by asking the products' own arithmetic.

use serde::Serialize;

use super::measure::GUEST_RAM_PER_PAGE_TABLE;
use crate::sizing::ratio::Ratio;
use crate::sizing::spec::{Reserve, Spec};
use crate::sizing::{Error, MIB};

/// Harvester takes ratios up to 10; more in KubeVirt's own field is hardly meant.
const MOST_HUNDREDTHS: u64 = 1000;

/// What has to fit below the limit beside the guest RAM. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Overhead that reclaim cannot take, at its peak.
    pub overhead: u64,
    /// The most guest RAM that was resident meanwhile.
    pub guest_resident: u64,
    /// Guest RAM is in hugetlb pages, which the limit does not count.
    pub hugepages: bool,
    /// Percent of the overhead on top of it.
    pub margin: u64,
}

impl Need {
    /// Page tables of guest RAM that the guest has yet to touch.
    #[must_use]
    pub fn untouched(&self, guest: u64) -> u64 {
        if self.hugepages {
            return 0;
        }
        guest.saturating_sub(self.guest_resident) / GUEST_RAM_PER_PAGE_TABLE
    }

    /// The least limit for this much guest RAM, without the margin.
    #[must_use]
    pub fn minimum(&self, guest: u64) -> u64 {
        Self { margin: 0, ..*self }.limit(guest)
    }

    /// The least limit for this much guest RAM.
    #[must_use]
    pub fn limit(&self, guest: u64) -> u64 {
        let overhead = u128::from(self.overhead) + u128::from(self.untouched(guest));
        let with_margin = overhead + (overhead * u128::from(self.margin)).div_ceil(100);
        let charged = if self.hugepages { 0 } else { guest };
        u64::try_from(u128::from(charged) + with_margin).unwrap_or(u64::MAX)
    }
}

/// A reserve that holds, and what it costs. Bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holding {
    /// As it is written: a ratio, or a quantity.
    pub value: String,
    /// What the guest gets.
    pub guest: u64,
    /// The limit.
    pub limit: u64,
    /// What the node gives more than before; negative where it gives less.
    pub costs_node: i64,
    /// What the guest gets less than before; negative where it gets more.
    pub costs_guest: i64,
}

/// Which reserve to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// The ratio.
    Ratio,
    /// Reserved Memory.
    Reserved,
    /// `reservedOverhead.addedOverhead`.
    Added,
}

impl Knob {
    /// The reserve with this knob at a step: hundredths of a ratio, or MiB.
    fn at(self, now: Reserve, step: u64) -> Result<Reserve, Error> {
        Ok(match self {
            Self::Ratio => Reserve {
                ratio: Some(Ratio::kubevirt(&self.text(step))?),
                ..now
            },
            Self::Reserved => Reserve {
                reserved: Some(step.saturating_mul(MIB)),
                ..now
            },
            Self::Added => Reserve {
                added: step.saturating_mul(MIB),
                ..now
            },
        })
    }

    fn text(self, step: u64) -> String {
        match self {
            Self::Ratio => format!("{}.{:02}", step / 100, step % 100),
            Self::Reserved | Self::Added => format!("{step}Mi"),
        }
    }

    fn steps(self, spec: &Spec) -> (u64, u64) {
        match self {
            Self::Ratio => (100, MOST_HUNDREDTHS),
            // The guest keeps 10 MiB at the least.
            Self::Reserved => (0, (spec.vm.limit.unwrap_or(0) / MIB).saturating_sub(10)),
            Self::Added => (0, 1 << 24),
        }
    }
}

/// The smallest value of a knob with which the limit holds the need.
///
/// # Errors
/// Why there is none, in the products' words where it is theirs.
pub fn smallest(spec: &Spec, knob: Knob, need: Need) -> Result<Holding, String> {
    if knob == Knob::Ratio && spec.harvester.is_some_and(|harvester| !harvester.has_ratio()) {
        return Err("this Harvester release has no ratio: it came with 1.4".to_owned());
    }
    let now = spec.size(spec.now).map_err(|error| error.to_string())?;
    let size = |step| knob.at(spec.now, step).and_then(|reserve| spec.size(reserve));
    let holds = |step: u64| size(step).map(|sized| sized.limit >= need.limit(sized.guest));
    let (mut low, mut high) = knob.steps(spec);
    match holds(high) {
        Ok(true) => {}
        Ok(false) => return Err(format!("not even {} would hold", knob.text(high))),
        Err(error) => return Err(error.to_string()),
    }
    // What holds goes on holding with more, so the smallest is found by halving.
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(middle) {
            Ok(true) => high = middle,
            Ok(false) => low = middle + 1,
            Err(error) => return Err(error.to_string()),
        }
    }
    let sized = size(high).map_err(|error| error.to_string())?;
    Ok(Holding {
        value: knob.text(high),
        guest: sized.guest,
        limit: sized.limit,
        costs_node: difference(sized.limit, now.limit),
        costs_guest: difference(now.guest, sized.guest),
    })
}

fn difference(a: u64, b: u64) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::event::VmShape;
    use crate::sizing::GIB;
    use crate::sizing::spec::{Known, spec};
    use crate::sizing::version::{Harvester, KubeVirt};

    fn a_spec(known: &Known, guest: u64) -> Spec {
        let shape = VmShape {
            vcpus: 2,
            graphics: true,
            ..VmShape::default()
        };
        spec(known, guest, false, None, Some(shape)).unwrap()
    }

    fn harvester(version: &str) -> Known {
        Known {
            harvester: Some(Harvester::named(version).unwrap()),
            ..Known::default()
        }
    }

    fn need(mib: u64) -> Need {
        Need {
            overhead: mib * MIB,
            guest_resident: 2 * GIB,
            hugepages: false,
            margin: 20,
        }
    }

    #[test]
    fn the_margin_is_on_overhead_alone() {
        let need = Need {
            guest_resident: GIB,
            ..need(100)
        };
        let untouched = GIB / 256;
        assert_eq!(need.minimum(2 * GIB), 2 * GIB + 100 * MIB + untouched);
        assert_eq!(need.limit(2 * GIB), 2 * GIB + (100 * MIB + untouched) * 6 / 5 + 1);
        let hugepages = Need {
            hugepages: true,
            ..need
        };
        assert_eq!(hugepages.limit(2 * GIB), 120 * MIB);
    }

    proptest::proptest! {
        #[test]
        fn the_smallest_holds_and_one_step_less_does_not(
            overhead in 1..2000_u64, knob in 0..3_usize, version in 0..3_usize,
        ) {
            let known = [harvester("1.4"), harvester("1.7"), Known::default()][version].clone();
            let spec = a_spec(&known, 2 * GIB);
            let knob = [Knob::Ratio, Knob::Reserved, Knob::Added][knob];
            let need = need(overhead);
            if let Ok(found) = smallest(&spec, knob, need) {
                proptest::prop_assert!(found.limit >= need.limit(found.guest));
                let step = match knob {
                    Knob::Ratio => found.value.replace('.', "").parse::<u64>().unwrap(),
                    _ => found.value.trim_end_matches("Mi").parse().unwrap(),
                };
                if step > knob.steps(&spec).0 {
                    let less = spec.size(knob.at(spec.now, step - 1).unwrap()).unwrap();
                    proptest::prop_assert!(less.limit < need.limit(less.guest), "{found:?}");
                }
            }
        }
    }

    #[test]
    fn a_release_without_the_knob_says_so() {
        let old = a_spec(&harvester("1.3"), 2 * GIB);
        assert!(smallest(&old, Knob::Ratio, need(400)).unwrap_err().contains("1.4"));
        let known = Known {
            kubevirt: Some(KubeVirt::named("1.5").unwrap()),
            ..Known::default()
        };
        let before = a_spec(&known, 2 * GIB);
        assert!(smallest(&before, Knob::Added, need(400)).unwrap_err().contains("1.8"));
        assert!(
            smallest(&before, Knob::Ratio, need(90_000))
                .unwrap_err()
                .contains("10.00")
        );
    }
}
