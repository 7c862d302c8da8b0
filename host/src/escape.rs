//! Makes text from outside fit for a terminal: task names, errors, file names and server messages are data, and must neither
//! steer the terminal nor break or reorder a line.

use std::{borrow::Cow, fmt::Write as _, ops::RangeInclusive};

/// Blank on the screen, although Unicode counts them among letters, marks or symbols.
const BLANK: [RangeInclusive<char>; 10] = [
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2065}'..='\u{2065}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0d}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Escapes everything that is not visible, line breaks included. The result is one line.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\t')
}

/// The same for text that has several lines: line breaks stay.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\t' | '\n'))
}

/// Escapes what is not visible in a JSON document, without changing what the document means.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    if document.chars().all(|c| is_visible(c) || matches!(c, '\t' | '\n')) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        match c {
            // Legal between two tokens alone, where any white space will do.
            '\r' => escaped.push(' '),
            _ if is_visible(c) || matches!(c, '\t' | '\n') => escaped.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(escaped, "\\u{unit:04x}");
            }),
        }
    }
    Cow::Owned(escaped)
}

fn escape(text: &str, harmless: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !is_visible(c) && !harmless(c)) else { return Cow::Borrowed(text) };
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_visible(c) || harmless(c) { escaped.push(c) } else { escaped.extend(c.escape_default()) }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal shows the character in its place: not control and format characters (the bidirectional ones among
/// them), line separators, and those that Unicode has not assigned.
fn is_visible(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\u{2028}' | '\u{2029}' => false,
        _ if c.is_control() => false,
        _ if c.is_whitespace() => true,
        _ if BLANK.iter().any(|blank| blank.contains(&c)) => false,
        // The standard library knows the categories, and tells them only this way. The letter before keeps it from escaping
        // combining marks, which are visible on a letter.
        _ => ['x', c].iter().collect::<String>().escape_debug().nth(1) == Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_text_of_any_language_stays_as_it_is() {
        for text in [
            "plain, 'quoted' \"twice\" \\ \t",
            "größer",
            "e\u{301}",
            "日本語　x",
            "नमस्ते",
            "שלום",
            "5\u{a0}%",
            "❤\u{fe0f} 🦀",
        ] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text:?} becomes {:?}", line(text));
            assert_eq!(json(text), text);
        }
    }

    #[test]
    fn whatever_steers_hides_or_reorders_is_escaped() {
        let controls = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}').filter(|c| *c != '\t');
        let bidirectional = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter();
        let bidirectional = bidirectional.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let separators = ['\u{2028}', '\u{2029}'];
        let blank = ['\u{ad}', '\u{200b}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{3164}', '\u{e0041}', '\u{e0100}'];
        let others = ['\u{fff9}', '\u{e000}', '\u{10ffff}', '\u{fdd0}'];
        for c in controls.chain(bidirectional).chain(separators).chain(blank).chain(others) {
            assert_eq!(line(&format!("a{c}b")), format!("a{}b", c.escape_default()));
        }
    }

    #[test]
    fn only_a_block_has_line_breaks() {
        assert_eq!(line("a\nb\r\x1b[31m"), "a\\nb\\r\\u{1b}[31m");
        assert_eq!(block("a\nb\r\x1b[31m"), "a\nb\\r\\u{1b}[31m");
    }

    #[test]
    fn json_means_the_same_after_escaping() {
        let value = serde_json::json!({ "a\u{202e}": "\x1b\u{7f}\u{9b}\u{2028}\u{e0041}é\n" });
        let text = format!("{value:#}\r\n");
        let escaped = json(&text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        assert!(
            escaped.contains("\\u202e") && escaped.contains("\\udb40\\udc41") && escaped.contains('é'),
            "{escaped}"
        );
        assert!(escaped.chars().all(|c| is_visible(c) || c == '\n'), "{escaped:?}");
    }
}
