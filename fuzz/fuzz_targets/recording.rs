//! Anything may be in the file that is given to `headroom report`, and on its lines.
#![no_main]

use headroom_tests::recording;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    recording::check(bytes).expect("what must hold of every file");
    recording::check_lines(bytes).expect("what must hold of every line");
});
