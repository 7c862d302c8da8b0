//! Any text is read as a crontab or refused, and what is read can be printed and read again.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use taskbay::crontab::{parse_crontab, parse_line};

fuzz_target!(|text: &str| {
    match parse_crontab(text) {
        Err(errors) => assert!(!errors.to_string().is_empty()),
        Ok(items) => {
            for item in items {
                let again = parse_line(&item.to_string());
                assert_eq!(again.expect("what was printed is right"), Some(item.clone()));
                let from = Timestamp::UNIX_EPOCH;
                if let Some(next) = item.next_after(from) {
                    assert!(next > from && item.matches(next));
                    assert_eq!(item.times(from, next).filter(|time| *time > from).count(), 0);
                }
            }
        }
    }
});
