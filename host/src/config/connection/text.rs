//! Parsing of connection strings: the form with keywords, and the common parts of both forms.

use std::str::FromStr;

use super::{
    string::{ConnectionString, ConnectionStringError, wrong},
    url,
};

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        if text.contains('\0') {
            return Err(wrong("it contains a NUL"));
        }
        match url::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => url::read(rest),
            None => read(text),
        }
    }
}

/// Any number of `name = value`, with spaces between them and around the signs. A value with spaces is quoted; a backslash
/// escapes a following quote or backslash.
fn read(text: &str) -> Result<ConnectionString, ConnectionStringError> {
    let mut read = ConnectionString::default();
    let mut rest = text.trim_start_matches(is_blank);
    if rest.is_empty() {
        return Err(wrong("it is empty"));
    }
    for place in 1.. {
        let Some((name, behind)) = rest.split_once('=') else {
            return Err(wrong(if place == 1 {
                "it is neither a URL that begins with postgres:// nor a list such as host=… dbname=…".to_owned()
            } else {
                format!("there is no = behind the name of its parameter number {place}")
            }));
        };
        let name = name.trim_end_matches(is_blank);
        if name.contains(is_blank) {
            return Err(wrong(format!("there is no = behind the name of its parameter number {place}")));
        }
        let (value, behind) = read_value(behind.trim_start_matches(is_blank))
            .ok_or_else(|| wrong(format!("the quotes around the value of its parameter number {place} do not end")))?;
        read.set(place, name, value)?;
        rest = behind.trim_start_matches(is_blank);
        if rest.is_empty() {
            break;
        }
    }
    Ok(read)
}

/// A value and the rest of the text; `None` if its quotes are not closed.
fn read_value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = text.strip_prefix('\'').map_or((false, text), |inner| (true, inner));
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => return None,
                None => {}
            },
            '\'' if quoted => return Some((value, &text[at + 1..])),
            blank if !quoted && is_blank(blank) => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!quoted).then_some((value, ""))
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}
