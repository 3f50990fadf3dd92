//! Decoding of the ring buffer's records: a pure function from bytes.

use tracer_common::{
    AccountKey, COMM_LEN, ChargeRecord, ExecRecord, Kind, OomRecord, ReclaimRecord, RecordKind, Region, StackRecord,
    ThreadRecord, VictimRecord,
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
        // They have a ring buffer of their own.
        RecordKind::Stack => return Err(DecodeError::UnknownKind(number)),
    })
}

/// Where a charge came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackSample {
    /// CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// Process id.
    pub tgid: u32,
    /// Whose account.
    pub account: AccountKey,
    /// What the account had sampled with this charge: see [`tracer_common::steps`].
    pub sampled: u64,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
    /// Return addresses in the kernel, innermost first.
    pub kernel: Vec<u64>,
    /// Addresses in the process, innermost first; empty in a kernel thread.
    pub user: Vec<u64>,
}

/// Decodes one record of the stacks' ring buffer.
///
/// # Errors
/// When the bytes are not exactly one stack.
pub fn decode_stack(bytes: &[u8]) -> Result<StackSample, DecodeError> {
    let (number, _) = u32::read_from_prefix(bytes).map_err(|_| DecodeError::NoKind(bytes.len()))?;
    if number != RecordKind::Stack as u32 {
        return Err(DecodeError::UnknownKind(number));
    }
    let record: StackRecord = exactly(RecordKind::Stack, bytes)?;
    let (kind, region) = (record.account.kind, record.account.region);
    if Kind::from_u8(kind).is_none() || Region::from_u8(region).is_none() {
        return Err(DecodeError::Charge { kind, region });
    }
    Ok(StackSample {
        t: record.t,
        tgid: record.tgid,
        account: record.account,
        sampled: record.sampled,
        comm: record.comm,
        kernel: filled(&record.kernel, record.kernel_bytes),
        user: filled(&record.user, record.user_bytes),
    })
}

/// The addresses that were filled in.
fn filled(addresses: &[u64], bytes: i32) -> Vec<u64> {
    let count = usize::try_from(bytes).unwrap_or(0) / size_of::<u64>();
    addresses.iter().take(count).copied().collect()
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

    fn stack(kernel_bytes: i32, user_bytes: i32) -> StackRecord {
        StackRecord {
            record: 8,
            tgid: 3,
            t: 4,
            account: charge(0, 2).account,
            sampled: 65_536,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
            kernel_bytes,
            user_bytes,
            kernel: std::array::from_fn(|index| index as u64),
            user: std::array::from_fn(|index| 100 + index as u64),
        }
    }

    #[test]
    fn a_stack_is_as_deep_as_the_kernel_says_and_no_deeper_than_the_record() {
        let sample = decode_stack(stack(16, -14).as_bytes()).unwrap();
        assert_eq!((sample.kernel, sample.user), (vec![0, 1], vec![]));
        let sample = decode_stack(stack(i32::MAX, 24).as_bytes()).unwrap();
        assert_eq!((sample.kernel.len(), sample.user), (48, vec![100, 101, 102]));
        assert_eq!(
            decode_stack(charge(0, 1).as_bytes()),
            Err(DecodeError::UnknownKind(1)),
            "it belongs to the other ring buffer"
        );
        assert_eq!(decode(stack(8, 8).as_bytes()), Err(DecodeError::UnknownKind(8)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0_u32..9, rest in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend(rest);
            let _ = decode(&bytes);
            let _ = decode_stack(&bytes);
        }
    }
}
