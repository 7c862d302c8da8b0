//! Converts JSON text to the author's types, with readable messages for payloads of the wrong shape.

use serde::de::DeserializeOwned;

/// Reads a value. The error names the wrong field and the reason.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // Tracking the path costs time, so only a value that has already failed is read again with it.
    serde_json::from_str(text).map_err(|error| explain::<T>(text).unwrap_or_else(|| error.to_string()))
}

fn explain<T: DeserializeOwned>(text: &str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, T>(&mut json).err()?;
    let path = error.path().to_string();
    let reason = error.into_inner();
    Some(if path == "." { reason.to_string() } else { format!("`{path}`: {reason}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Deserialize;

    #[derive(Deserialize, Debug)]
    #[allow(dead_code, reason = "only reading it is of interest")]
    struct Order {
        lines: Vec<Line>,
    }

    #[derive(Deserialize, Debug)]
    #[allow(dead_code, reason = "only reading it is of interest")]
    struct Line {
        amount: u32,
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let error = read::<Order>(r#"{"lines": [{"amount": 1}, {"amount": "two"}]}"#).unwrap_err();
        assert_eq!(error, "`lines[1].amount`: invalid type: string \"two\", expected u32 at line 1 column 42");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = read::<Order>("{}").unwrap_err();
        assert_eq!(error, "missing field `lines` at line 1 column 2");
    }

    #[test]
    fn a_payload_of_another_kind_is_named() {
        assert_eq!(read::<Order>("null").unwrap_err(), "invalid type: null, expected struct Order at line 1 column 4");
    }

    #[test]
    fn raw_json_keeps_every_byte() {
        let text = r#"{"n": 123456789012345678901234567890, "nul": "\u0000"}"#;
        assert_eq!(read::<Box<serde_json::value::RawValue>>(text).unwrap().get(), text);
    }
}
