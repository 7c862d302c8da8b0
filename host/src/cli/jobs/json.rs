//! A job as JSON: the columns of the view `jobs`, then its payload and its state.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::moment::written;
use crate::queue::{JobState, StoredJob};

/// Names and order of the fields are a promise.
#[derive(Debug, Serialize)]
pub(super) struct JsonJob<'a> {
    id: i64,
    queue_name: Option<&'a str>,
    task_identifier: &'a str,
    priority: i16,
    run_at: String,
    attempts: i16,
    max_attempts: i16,
    last_error: Option<&'a str>,
    created_at: String,
    updated_at: String,
    key: Option<&'a str>,
    locked_at: Option<String>,
    locked_by: Option<&'a str>,
    revision: i32,
    flags: Option<Box<RawValue>>,
    payload: Box<RawValue>,
    state: &'static str,
}

impl<'a> JsonJob<'a> {
    pub(super) fn of(job: &'a StoredJob) -> Self {
        Self {
            id: job.id,
            queue_name: job.queue_name.as_deref(),
            task_identifier: &job.task_identifier,
            priority: job.priority,
            run_at: written(job.run_at),
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            last_error: job.last_error.as_deref(),
            created_at: written(job.created_at),
            updated_at: written(job.updated_at),
            key: job.key.as_deref(),
            locked_at: job.locked_at.map(written),
            locked_by: job.locked_by.as_deref(),
            revision: job.revision,
            flags: job.flags.as_deref().map(raw),
            payload: raw(&job.payload),
            state: JobState::as_str(job.state),
        }
    }
}

/// As it is stored, number by number; as a text if this library does not take it for JSON.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned())
        .or_else(|_| serde_json::value::to_raw_value(json))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Puts line breaks and indentation into JSON without changing anything else of it: no number is rounded, no key lost.
pub(super) fn indent(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                text.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    break_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                break_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

fn break_line(text: &mut String, depth: usize) {
    text.push('\n');
    // Deeper than anybody reads, indentation is most of the text.
    text.extend(std::iter::repeat_n("  ", depth.min(40)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_changes_nothing_but_white_space() {
        let text = r#"{"a": [1, {"b":"x, \"y\": {z}\\"}], "n":12345678901234567890.10,"n":{},"e":[ ] }"#;
        let expected = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, \\\"y\\\": {z}\\\\\"\n    }\n  ],\n  \
                        \"n\": 12345678901234567890.10,\n  \"n\": {},\n  \"e\": []\n}";
        assert_eq!(indent(text), expected);
        assert_eq!(indent("null"), "null");
    }
}
