//! Any `taskbay.toml` is read or refused, with the place of what is wrong; what is read can be printed and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| taskbay::config::fuzzed::settings_file(text));
