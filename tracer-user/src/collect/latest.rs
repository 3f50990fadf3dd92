//! Records carry an account's totals: of those that say nothing but how one account grew, the last says it all. A busy
//! thread fills hundreds between two looks, and what follows a record is dearer than reading it.

use std::collections::HashSet;

use crate::probe::Record;

/// Leaves records of charges out that a later one of the same account stands for. What comes between two records of another
/// kind, a kill above all, is not mixed with what comes after it. The order stays.
pub(super) fn latest(records: &mut Vec<Record>) {
    let mut seen = HashSet::new();
    // From the end, where the last one is met first.
    records.reverse();
    records.retain(|record| {
        if let Record::Charge(charge, ..) = record {
            return seen.insert(charge.account);
        }
        seen.clear();
        true
    });
    records.reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::{AccountKey, COMM_LEN, ChargeRecord, ExecRecord, Kind, RecordKind, Region};

    use super::*;
    use crate::collect::Accounts;

    fn charge(t: u64, tid: u32, charged: u64) -> Record {
        let (kind, region) = (Kind::Anon, Region::Overhead);
        let record = ChargeRecord {
            record: RecordKind::Charge as u32,
            tgid: tid,
            t,
            account: AccountKey {
                memcg: 1,
                start_ns: 2,
                tid,
                kind: kind as u8,
                region: region as u8,
                padding: 0,
            },
            charged,
            uncharged: 0,
            comm: [0; COMM_LEN],
        };
        Record::Charge(record, kind, region)
    }

    fn times(records: &[Record]) -> Vec<u64> {
        let time = |record: &Record| match record {
            Record::Charge(charge, ..) => charge.t,
            _ => 0,
        };
        records.iter().map(time).collect()
    }

    #[test]
    fn the_last_of_each_account_stays_where_it_is() {
        let mut records = vec![charge(1, 7, 10), charge(2, 8, 5), charge(3, 7, 20), charge(4, 9, 1)];
        latest(&mut records);
        assert_eq!(times(&records), [2, 3, 4]);
    }

    #[test]
    fn what_happens_parts_what_was_before_it_from_what_came_after() {
        let exec = Record::Exec(ExecRecord {
            record: RecordKind::Exec as u32,
            tgid: 7,
            t: 3,
            memcg: 1,
            comm: [0; COMM_LEN],
        });
        let mut records = vec![charge(1, 7, 10), charge(2, 7, 20), exec, charge(4, 7, 30)];
        latest(&mut records);
        assert_eq!(times(&records), [2, 0, 4]);
    }

    proptest! {
        #[test]
        fn no_byte_is_left_out(steps in proptest::collection::vec((0_u32..4, 1_u64..1000), 1..60)) {
            let mut totals = [0; 4];
            let mut records = Vec::new();
            for (t, (thread, bytes)) in (0..).zip(steps) {
                totals[thread as usize] += bytes;
                records.push(charge(t, thread, totals[thread as usize]));
            }
            let sum = |records: &[Record]| {
                let mut accounts = Accounts::default();
                let charges = records.iter().filter_map(|record| match record {
                    Record::Charge(charge, ..) => accounts.update(&charge.account, charge.charged, charge.uncharged),
                    _ => None,
                });
                charges.map(|charge| charge.charged).sum::<u64>()
            };
            let all = sum(&records);
            latest(&mut records);
            prop_assert_eq!(sum(&records), all);
            prop_assert!(records.len() <= totals.len());
            prop_assert!(times(&records).is_sorted());
        }
    }
}
