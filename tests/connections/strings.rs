//! Whatever is given as a connection string, the answer is settings or a sentence.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

fn settings(string: &str) -> Result<String, String> {
    let layer = Layer { connection: Some(string.to_owned()), ..Layer::default() };
    database_settings(&layer, |_| None)
        .map(|settings| format!("{:?}", settings.config.get_dbname()))
        .map_err(|error| error.to_string())
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,80}") {
        let _ = settings(&text);
        let _ = settings(&format!("postgres://{text}"));
        let _ = settings(&format!("host=h {text}"));
    }

    #[test]
    fn no_refusal_repeats_a_password(password in "[a-z]{12}", more in "[a-z@:/?&=%' ]{0,12}") {
        for string in [
            format!("postgres://me:{password}{more}@host/db"),
            format!("postgres://me:{password}@host/db?{more}"),
            format!("host=h password={password} {more}"),
            format!("host=h password='{password}{more}"),
        ] {
            if let Err(refused) = settings(&string) {
                prop_assert!(!refused.contains(&password), "{string}: {refused}");
            }
        }
    }

    #[test]
    fn both_forms_of_a_string_mean_the_same(
        user in "[a-zA-Z0-9 ='\\\\@:/%?#ü]{1,12}",
        database in "[a-zA-Z0-9 ='\\\\@:/%?#ü]{1,12}",
    ) {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        for string in [
            format!("host=h user={} dbname = {}", quoted(&user), quoted(&database)),
            format!("postgres://{}@h/{}", encoded(&user), encoded(&database)),
            format!("postgresql://h/?user={}&dbname={}", encoded(&user), encoded(&database)),
        ] {
            let layer = Layer { connection: Some(string.clone()), ..Layer::default() };
            let config = database_settings(&layer, |_| None).map_err(|error| TestCaseError::fail(error.to_string()))?.config;
            prop_assert_eq!((config.get_user(), config.get_dbname()), (Some(&*user), Some(&*database)), "{}", string);
        }
    }
}
