//! Whatever a plugin says of itself is accepted or refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| taskbay::plugin::fuzzed::manifest(json));
