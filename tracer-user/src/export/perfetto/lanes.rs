//! Stalls of a role's threads side by side: on one line of a timeline slices must not overlap.

/// Lines of one role. More threads than this have not been seen reclaiming at once.
const MAX_LANES: usize = 256;

/// A line and when it is free again.
#[derive(Debug)]
struct Lane {
    uuid: u64,
    free: u64,
}

/// Where a stall goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The line.
    pub uuid: u64,
    /// When it begins there: later than it did only if all lines were taken.
    pub begin: u64,
    /// The line is a new one.
    pub new: bool,
}

/// The lines of one role.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    /// A line for a stall from `begin` to `end`. Stalls come in the order of their ends, more or less.
    pub(super) fn place(&mut self, begin: u64, end: u64, new_uuid: impl FnOnce() -> u64) -> Placed {
        let fits = self.0.iter().position(|lane| lane.free <= begin);
        if fits.is_none() && self.0.len() < MAX_LANES {
            let uuid = new_uuid();
            self.0.push(Lane { uuid, free: end });
            return Placed { uuid, begin, new: true };
        }
        let lane = match fits {
            Some(index) => self.0.get_mut(index),
            None => self.0.iter_mut().min_by_key(|lane| lane.free),
        };
        let Some(lane) = lane else {
            unreachable!("with no lines yet, one was added above");
        };
        let begin = begin.max(lane.free);
        lane.free = end.max(begin);
        Placed {
            uuid: lane.uuid,
            begin,
            new: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn threads_that_take_turns_share_a_line_and_others_do_not() {
        let mut lanes = Lanes::default();
        let mut place = |begin, end, uuid| lanes.place(begin, end, || uuid).uuid;
        assert_eq!(place(0, 10, 1), 1);
        assert_eq!(place(10, 20, 2), 1);
        assert_eq!(place(15, 25, 3), 3);
        assert_eq!(place(24, 30, 4), 1);
    }

    proptest! {
        #[test]
        fn nothing_overlaps(stalls in prop::collection::vec((0_u64..1000, 0_u64..1000), 0..2000)) {
            let mut lanes = Lanes::default();
            let mut ends: HashMap<u64, u64> = HashMap::new();
            for (uuid, (end, duration)) in (1..).zip(stalls) {
                let begin = end.saturating_sub(duration);
                let placed = lanes.place(begin, end, || uuid);
                let free = ends.entry(placed.uuid).or_default();
                prop_assert!(placed.begin >= *free && placed.begin >= begin);
                *free = end.max(placed.begin);
            }
            prop_assert!(ends.len() <= MAX_LANES);
        }
    }
}
