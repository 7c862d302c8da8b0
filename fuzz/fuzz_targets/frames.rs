//! Any bytes on the line to a plugin's process, in any pieces, are frames or an error, and are read as they were written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first ones say in which pieces the others arrive.
    let (pieces, bytes) = bytes.split_at(bytes.len().min(4));
    taskbay::plugin::fuzzed::frames(bytes, pieces);
});
