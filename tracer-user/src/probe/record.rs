//! Decoding of the ring buffer's records: a pure function from bytes.

use tracer_common::{
    ChargeRecord, ExecRecord, Kind, OomRecord, ReclaimRecord, RecordKind, Region, ThreadRecord, VictimRecord,
};
use zerocopy::FromBytes;

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented on its type")]
pub enum Record {
    Charge(ChargeRecord, Kind, Region),
    Reclaim(ReclaimRecord),
    Oom(OomRecord),
    Victim(VictimRecord),
    Exit(ThreadRecord),
    Rename(ThreadRecord),
    Exec(ExecRecord),
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not even a record's number.
    #[error("a record of {0} bytes has no type")]
    NoKind(usize),
    /// A number that no record has.
    #[error("unknown record type {0}")]
    UnknownKind(u32),
    /// Not the length of its type.
    #[error("a {kind:?} record of {len} bytes")]
    Length {
        /// Its type.
        kind: RecordKind,
        /// Its length.
        len: usize,
    },
    /// A charge with an unknown kind or region.
    #[error("a charge of unknown kind {kind} or region {region}")]
    Charge {
        /// The kind's number.
        kind: u8,
        /// The region's number.
        region: u8,
    },
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are not exactly one record of a known type with known enum values.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (number, _) = u32::read_from_prefix(bytes).map_err(|_| DecodeError::NoKind(bytes.len()))?;
    let kind = RecordKind::from_u32(number).ok_or(DecodeError::UnknownKind(number))?;
    Ok(match kind {
        RecordKind::Charge => {
            let charge: ChargeRecord = exactly(kind, bytes)?;
            let (kind, region) = (charge.account.kind, charge.account.region);
            match (Kind::from_u8(kind), Region::from_u8(region)) {
                (Some(kind), Some(region)) => Record::Charge(charge, kind, region),
                _ => return Err(DecodeError::Charge { kind, region }),
            }
        }
        RecordKind::Reclaim => Record::Reclaim(exactly(kind, bytes)?),
        RecordKind::Oom => Record::Oom(exactly(kind, bytes)?),
        RecordKind::Victim => Record::Victim(exactly(kind, bytes)?),
        RecordKind::Exit => Record::Exit(exactly(kind, bytes)?),
        RecordKind::Rename => Record::Rename(exactly(kind, bytes)?),
        RecordKind::Exec => Record::Exec(exactly(kind, bytes)?),
    })
}

fn exactly<T: FromBytes>(kind: RecordKind, bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length { kind, len: bytes.len() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::AccountKey;
    use zerocopy::IntoBytes;

    use super::*;

    fn charge(kind: u8, region: u8) -> ChargeRecord {
        let account = AccountKey {
            memcg: 7,
            start_ns: 8,
            tid: 9,
            kind,
            region,
            padding: 0,
        };
        ChargeRecord {
            record: 1,
            tgid: 3,
            t: 4,
            account,
            charged: 5,
            uncharged: 6,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        }
    }

    #[test]
    fn a_charge_comes_back_as_it_went() {
        let record = charge(2, 1);
        assert_eq!(
            decode(record.as_bytes()),
            Ok(Record::Charge(record, Kind::Shmem, Region::Guest))
        );
    }

    #[test]
    fn unknown_numbers_and_lengths_are_refused() {
        assert_eq!(
            decode(charge(99, 1).as_bytes()),
            Err(DecodeError::Charge { kind: 99, region: 1 })
        );
        assert_eq!(decode(&[0, 1]), Err(DecodeError::NoKind(2)));
        assert_eq!(decode(&77_u32.to_le_bytes()), Err(DecodeError::UnknownKind(77)));
        let short = &charge(0, 0).as_bytes()[..71].to_vec();
        assert_eq!(
            decode(short),
            Err(DecodeError::Length {
                kind: RecordKind::Charge,
                len: 71
            })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0_u32..9, rest in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend(rest);
            let _ = decode(&bytes);
        }
    }
}
