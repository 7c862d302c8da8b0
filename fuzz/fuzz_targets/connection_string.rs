//! Any text is read as a connection string or refused, and no refusal repeats what may be a password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskbay::config::{Layer, database_settings};

/// A word that no message has of its own.
const PASSWORD: &str = "zqxjkvbp";

fuzz_target!(|text: &str| {
    for string in [
        text.to_owned(),
        format!("postgres://me:{PASSWORD}{text}"),
        format!("postgres://me:{PASSWORD}@host/{text}"),
        format!("host=h password={PASSWORD}{text}"),
    ] {
        let layer = Layer { connection: Some(string), ..Layer::default() };
        if let Err(refused) = database_settings(&layer, |_| None) {
            let refused = refused.to_string();
            assert!(!refused.is_empty() && (text.contains(PASSWORD) || !refused.contains(PASSWORD)), "{refused}");
        }
    }
});
