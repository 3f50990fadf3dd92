//! Anything may be given to `headroom explain`.
#![no_main]

use headroom_tests::oomlog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| oomlog::check(log).expect("what must hold of every log"));
