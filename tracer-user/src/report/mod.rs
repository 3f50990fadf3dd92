//! What the ledger found, as data, text and JSON.
