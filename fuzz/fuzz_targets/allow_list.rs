//! Any text is read as an allow-list or refused, and what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| taskbay::tasks::fuzzed::allow_list(text));
