//! Texts of the database as they can be read. One with the encoding SQL_ASCII takes any bytes for a text, whatever they mean.

use std::{borrow::Cow, error::Error, fmt::Write as _};

use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

/// A text, in which bytes that are not valid UTF-8 are written as escapes such as `\xe9`.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// Nothing of it had to be written as an escape.
    pub(super) is_utf8: bool,
}

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let text = readable(raw);
        Ok(Self { is_utf8: matches!(text, Cow::Borrowed(_)), text: text.into_owned() })
    }

    fn accepts(kind: &Type) -> bool {
        <&str as FromSql>::accepts(kind)
    }
}

/// The text in a column, readable.
pub(super) fn text(row: &Row, column: usize) -> Result<String, tokio_postgres::Error> {
    row.try_get::<_, Text>(column).map(|text| text.text)
}

/// The same of a column that may be null.
pub(super) fn text_or_null(row: &Row, column: usize) -> Result<Option<String>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<Text>>(column)?.map(|text| text.text))
}

fn readable(raw: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(raw) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(raw.len() + 16);
    for chunk in raw.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a text does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf8_is_escaped_and_the_rest_stays() {
        assert!(matches!(readable("Zoë \\ 🦀".as_bytes()), Cow::Borrowed("Zoë \\ 🦀")));
        assert_eq!(readable(b"Ren\xe9, d\xe9j\xe0 \xc3\xa9"), r"Ren\xe9, d\xe9j\xe0 é");
        assert_eq!(readable(b"\xf0\x9f\xa6"), r"\xf0\x9f\xa6");
    }
}
