//! The payload at the end of a line: an object in JSON5, kept as JSON.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::shortened::shortened;

/// Objects and arrays within each other: no more than serde_json reads, so that whoever gets the job can read it.
const DEEPEST: usize = 120;
/// JavaScript's whole numbers end here. Up to here, `1e3` is 1000 for it.
const LARGEST_WHOLE_FLOAT: f64 = 9_007_199_254_740_992.0;

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("payload: {reason}; it is one JSON5 object, as {{to: \"all\", count: 3}}")]
    Malformed { reason: String },
    #[error("payload: it does not end with `}}`; nothing may stand behind it, neither options nor a comment")]
    Open,
    #[error("payload: the number {number} is too large to be kept as it is written; write it in quotes")]
    LargeNumber { number: String },
}

/// The error comes with the number of characters before the place where something is wrong.
pub(super) fn parse_payload(text: &str) -> Result<Map<String, Value>, (usize, PayloadError)> {
    if !text.ends_with('}') {
        return Err((0, PayloadError::Open));
    }
    let value = json5::from_str(text).map_err(|error| malformed(text, &error))?;
    if let Some((offset, number)) = large_whole_number(text) {
        return Err((text[..offset].chars().count(), PayloadError::LargeNumber { number: shortened(number) }));
    }
    match value {
        Payload(Value::Object(map)) => Ok(map),
        Payload(_) => Err((0, PayloadError::Malformed { reason: "not an object".to_owned() })),
    }
}

fn malformed(text: &str, error: &json5::Error) -> (usize, PayloadError) {
    use json5::ErrorCode as Code;
    // Where the end comes too early, the parser's place is the beginning of what is open.
    let ends_early = error.code().is_some_and(|code| code.to_string().starts_with("EOF"));
    let reason = match error.code() {
        Some(_) if ends_early => "it ends too early".to_owned(),
        Some(Code::ExpectedComma) => "a comma is missing".to_owned(),
        Some(Code::ExpectedColon) => "a colon is missing".to_owned(),
        Some(Code::ExpectedValue) => "a value is missing, or is text without quotes".to_owned(),
        Some(Code::TrailingCharacters) => "something stands behind its end".to_owned(),
        Some(code) => code.to_string(),
        None => {
            // What is not from the parser is from here, with a place that is told apart.
            let message = error.to_string();
            message.rsplit_once(" at line ").map_or(message.clone(), |(reason, _)| reason.to_owned())
        }
    };
    let place = error.position().filter(|_| !ends_early).map(|position| {
        // Lines may be continued with U+2028, which is none of our line ends.
        let before = text.split_inclusive(json5::char::is_json5_line_terminator).take(position.line);
        before.map(|line| line.chars().count()).sum::<usize>() + position.column
    });
    (place.unwrap_or_else(|| text.chars().count() - 1), PayloadError::Malformed { reason })
}

/// The parser makes floating-point numbers of whole numbers beyond 64 bits, whose last digits are lost. The text is well-formed.
fn large_whole_number(text: &str) -> Option<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || "_$.+-\u{200c}\u{200d}".contains(c);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if c == '"' || c == '\'' {
            1 + end_of_string(&rest[1..], c)
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("//") {
            rest.find(json5::char::is_json5_line_terminator).unwrap_or(rest.len())
        } else if is_word(c) {
            let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            if is_large(word) {
                return Some((text.len() - rest.len(), word));
            }
            word.len()
        } else {
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    None
}

fn end_of_string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (offset, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_large(word: &str) -> bool {
    let digits = word.trim_start_matches(['+', '-']);
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, base) = hex.map_or((digits, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return false;
    }
    match u128::from_str_radix(digits, base) {
        Ok(number) if word.starts_with('-') => number > i64::MIN.unsigned_abs().into(),
        Ok(number) => number > u64::MAX.into(),
        Err(_) => true,
    }
}

/// A value in JSON5, read to be JSON.
struct Payload(Value);

/// What can follow within so many objects and arrays.
#[derive(Clone, Copy)]
struct Within(usize);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Within(0).deserialize(deserializer).map(Self)
    }
}

impl<'de> DeserializeSeed<'de> for Within {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Within {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.0 == DEEPEST {
            return Err(E::custom(format!("objects and arrays are more than {DEEPEST} deep")));
        }
        Ok(Self(self.0 + 1))
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.fract() == 0.0 && value.abs() <= LARGEST_WHOLE_FLOAT {
            return Ok((value as i64).into());
        }
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("JSON has no infinity and no NaN, and no numbers beyond 1.8e308"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(within)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(within)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key `{}` is there twice", shortened(&key))));
            }
        }
        Ok(Value::Object(map))
    }
}
