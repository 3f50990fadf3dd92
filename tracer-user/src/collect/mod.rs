//! The live data way: kernel records and node facts in, events out.
