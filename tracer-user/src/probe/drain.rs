//! What user space tells the kernel side, and reads from it: watch list, guest RAM, records, accounts, losses.

use std::collections::HashSet;

use aya::maps::MapError;
use tracer_common::{
    AccountKey, AccountTotals, FileKey, GuestRange, GuestRanges, Kind, LossCounter, MAX_GUEST_RANGES, NOT_FOLLOWED,
    OVERFLOW_TID, OwnerTotals, Region, Watched,
};

use super::record::{Record, StackSample, decode, decode_stack};
use super::tracer::{ProbeError, Tracer, failed};

/// Creates a new element only (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// Kinds of memory that can be guest RAM, and so have accounts in every region.
const USER_KINDS: [Kind; 3] = [Kind::Anon, Kind::File, Kind::Shmem];

/// The accounts of a memcg for what finds no place in a thread's.
fn overflow_keys(memcg: u64) -> impl Iterator<Item = AccountKey> {
    let regions = |kind| {
        let told_apart = USER_KINDS.contains(&kind);
        Region::ALL
            .into_iter()
            .filter(move |region| *region == Region::Overhead || told_apart)
            .map(move |region| (kind, region))
    };
    Kind::ALL
        .into_iter()
        .flat_map(regions)
        .map(move |(kind, region)| AccountKey {
            memcg,
            start_ns: 0,
            tid: OVERFLOW_TID,
            kind: kind as u8,
            region: region as u8,
            padding: 0,
        })
}

/// Whether the pages of an account are followed, where any are.
fn follows(key: &AccountKey) -> bool {
    key.region == Region::Overhead as u8 && Kind::from_u8(key.kind).is_some_and(Kind::is_followed)
}

impl Tracer {
    /// Watches a memcg, or changes what is known of it.
    ///
    /// # Errors
    /// When the watch list or the accounts are full; nothing of the memcg is in them then.
    pub fn watch(&mut self, memcg: u64, watched: Watched) -> Result<(), ProbeError> {
        self.try_watch(memcg, watched)
            .inspect_err(|_| self.close_overflow(memcg))
    }

    fn try_watch(&mut self, memcg: u64, watched: Watched) -> Result<(), ProbeError> {
        // The overflow accounts come first: from the first charge on there is a place for every byte.
        for key in overflow_keys(memcg) {
            self.open_overflow(key)?;
        }
        self.watches.watch(memcg, watched)
    }

    fn open_overflow(&mut self, key: AccountKey) -> Result<(), ProbeError> {
        if self.accounts.get(&key, 0).is_ok() {
            return Ok(());
        }
        let slot = match &mut self.ledger {
            Some(ledger) if follows(&key) => ledger.open_overflow(key),
            _ => NOT_FOLLOWED,
        };
        let empty = AccountTotals {
            charged: 0,
            uncharged: 0,
            emitted: 0,
            tgid: 0,
            slot,
            sampled: 0,
            comm: [0; 16],
        };
        match self.accounts.insert(key, empty, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(failed("ACCOUNTS")),
        }
    }

    /// Stops watching a memcg. Its accounts stay until they are removed.
    ///
    /// # Errors
    /// When the map cannot be written; a memcg that was not watched is none.
    pub fn unwatch(&mut self, memcg: u64) -> Result<(), ProbeError> {
        self.watches.unwatch(memcg)
    }

    /// Removes the overflow accounts of a memcg that is watched no more, after its totals were read.
    pub fn close_overflow(&mut self, memcg: u64) {
        for key in overflow_keys(memcg) {
            self.remove_account(&key);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.close_overflow(memcg);
        }
    }

    /// Forgets where a process had guest RAM; that it had none is fine.
    pub fn forget_guest_ranges(&mut self, tgid: u32) {
        let _ = self.guest_ranges.remove(&tgid);
    }

    /// Forgets that a file backs guest RAM; that it did not is fine.
    pub fn forget_guest_file(&mut self, file: &FileKey) {
        let _ = self.guest_files.remove(file);
    }

    /// Tells where a process has guest RAM. Ranges beyond the first [`MAX_GUEST_RANGES`] are not told: the number
    /// left out is returned.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_guest_ranges(&mut self, tgid: u32, ranges: &[(u64, u64)]) -> Result<usize, ProbeError> {
        let mut value = GuestRanges {
            ranges: [GuestRange { start: 0, end: 0 }; MAX_GUEST_RANGES],
        };
        for (slot, &(start, end)) in value.ranges.iter_mut().zip(ranges) {
            *slot = GuestRange { start, end };
        }
        self.guest_ranges
            .insert(tgid, value, 0)
            .map_err(failed("GUEST_RANGES"))?;
        Ok(ranges.len().saturating_sub(MAX_GUEST_RANGES))
    }

    /// Tells that a file backs guest RAM.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_guest_file(&mut self, file: FileKey) -> Result<(), ProbeError> {
        self.guest_files.insert(file, 1, 0).map_err(failed("GUEST_FILES"))
    }

    /// Hands every waiting record to a sink.
    pub fn drain(&mut self, mut sink: impl FnMut(Record)) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        while let Some(item) = self.ring.next() {
            match decode(&item) {
                Ok(record) => sink(record),
                Err(error) => {
                    log::warn!("{error}");
                    self.malformed += 1;
                }
            }
        }
    }

    /// Hands every waiting stack to a sink.
    pub fn drain_stacks(&mut self, mut sink: impl FnMut(StackSample)) {
        while let Some(item) = self.stacks.next() {
            match decode_stack(&item) {
                Ok(sample) => sink(sample),
                Err(error) => {
                    log::warn!("{error}");
                    self.malformed += 1;
                }
            }
        }
    }

    /// Every account that was ever added to. An account that changes while the map is read shows its totals of some
    /// moment in between.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn accounts(&self) -> Result<Vec<(AccountKey, AccountTotals)>, ProbeError> {
        let mut accounts = match &self.all_accounts {
            Some(batches) => batches.read()?,
            None => self
                .accounts
                .iter()
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed("ACCOUNTS"))?,
        };
        accounts.retain(|(_, totals)| totals.charged != 0 || totals.uncharged != 0);
        Ok(accounts)
    }

    /// Removes an account of a thread that is gone, after its totals were read. An account that is not there is fine.
    pub fn remove_account(&mut self, key: &AccountKey) {
        let _ = self.accounts.remove(key);
    }

    /// What the account that has this slot holds; `None` where pages are not followed, or there is no such slot.
    #[must_use]
    pub fn owner(&self, slot: u32) -> Option<OwnerTotals> {
        self.ledger.as_ref()?.owner(slot)
    }

    /// Makes a slot free whose account was removed and holds nothing.
    pub fn close_slot(&mut self, slot: u32) {
        if let Some(ledger) = &mut self.ledger {
            ledger.close(slot);
        }
    }

    /// Forgets the pages of these slots, whose memcgs are watched no more. False where that failed: their slots are then in
    /// use for good.
    pub fn forget_pages(&mut self, slots: &HashSet<u32>) -> bool {
        match &mut self.ledger {
            Some(ledger) if !slots.is_empty() => ledger.forget(slots),
            _ => true,
        }
    }

    /// What the kernel side could not do as meant, since the start, by [`LossCounter`].
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn losses(&self) -> Result<[u64; LossCounter::COUNT], ProbeError> {
        let of_cpus = self.losses.get(&0, 0).map_err(failed("LOSSES"))?;
        Ok(std::array::from_fn(|counter| {
            of_cpus.iter().map(|losses| losses[counter]).sum()
        }))
    }

    /// Records that could not be decoded.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Pages of page cache added, by memcg and file.
    pub fn file_pages(&self) -> impl Iterator<Item = (u64, FileKey, u64)> + '_ {
        self.file_pages.iter().flatten().map(|([memcg, inode, device], pages)| {
            let device = u32::try_from(device).unwrap_or(0);
            (
                memcg,
                FileKey {
                    inode,
                    device,
                    padding: 0,
                },
                pages,
            )
        })
    }
}
