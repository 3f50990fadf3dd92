//! Adds events up: accounts, regions, kinds, reconciliation.
