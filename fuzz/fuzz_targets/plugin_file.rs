//! Any file in the tasks folder is a plugin or refused with a reason, before anything of it is mapped.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| taskbay::tasks::fuzzed::plugin_file(bytes));
