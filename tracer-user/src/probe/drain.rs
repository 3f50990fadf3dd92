//! What user space tells the kernel side, and reads from it: watch list, guest RAM, records, accounts, losses.

use std::collections::HashSet;

use tracer_common::{
    Account, AccountKey, FileKey, GuestRange, GuestRanges, Kind, LossCounter, MAX_GUEST_RANGES, OVERFLOW_TID, Region,
    Watched,
};

use super::record::{Record, StackSample, decode, decode_stack};
use super::tracer::{ProbeError, Tracer, failed};

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
            self.accounts.open(key)?;
        }
        self.watches.watch(memcg, watched)
    }

    /// Stops watching a memcg. Its accounts stay until they are removed.
    ///
    /// # Errors
    /// When the map cannot be written; a memcg that was not watched is none.
    pub fn unwatch(&mut self, memcg: u64) -> Result<(), ProbeError> {
        self.watches.unwatch(memcg)
    }

    /// Closes the overflow accounts of a memcg that is watched no more, after its totals were read and its pages forgotten.
    pub fn close_overflow(&mut self, memcg: u64) {
        for key in overflow_keys(memcg) {
            if let Some(number) = self.accounts.number(&key) {
                self.accounts.end(number, &key);
                self.accounts.close(number);
            }
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

    /// Every account that was ever added to, with its number. An account that changes meanwhile shows its totals of some
    /// moment in between.
    #[must_use]
    pub fn accounts(&self) -> Vec<(u32, Account)> {
        self.accounts.read()
    }

    /// Whether the pages of an account are followed.
    #[must_use]
    pub fn follows(&self, key: &AccountKey) -> bool {
        self.ledger.is_some()
            && key.region == Region::Overhead as u8
            && Kind::from_u8(key.kind).is_some_and(Kind::is_followed)
    }

    /// Ends an account of a thread that is gone, and returns it as it is in the end. Where its pages are followed, it keeps its
    /// number until that is closed.
    pub fn end_account(&mut self, number: u32, key: &AccountKey) -> Account {
        let last = self.accounts.end(number, key);
        if !self.follows(key) {
            self.accounts.close(number);
        }
        last
    }

    /// What an account holds, and what it was charged that found no room in the page ledger, in bytes.
    #[must_use]
    pub fn held(&self, number: u32) -> (u64, u64) {
        self.accounts.held(number)
    }

    /// Makes a number free whose account has ended and holds nothing.
    pub fn close_account(&mut self, number: u32) {
        self.accounts.close(number);
    }

    /// Forgets the pages of these accounts, whose memcgs are watched no more.
    pub fn forget_pages(&mut self, owners: &HashSet<u32>) {
        if let Some(ledger) = &mut self.ledger
            && !owners.is_empty()
        {
            ledger.forget(owners);
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
