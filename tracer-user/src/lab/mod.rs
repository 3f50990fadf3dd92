//! Scenarios that reproduce the kill, with known ground truth.
