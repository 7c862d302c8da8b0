//! Whatever a plugin's process says, the host neither dies of it nor waits for ever for the end of a job.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| taskbay::plugin::fuzzed::plugin_process(bytes));
