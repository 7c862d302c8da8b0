//! Any text is a public key or a signature, or is refused with a reason; and none but the right one is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| taskbay::tasks::fuzzed::signature(text));
