//! What is wrong with a line that is no job, in words for the author of the file.

use std::borrow::Cow;

use serde_json::{Map, Value, error::Category};

use crate::config;

const FIELDS: [&str; 9] =
    ["identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "job_key_mode", "priority", "flags"];

/// How most lines with another form came to be.
const PAYLOADS: &str = ". If the lines are payloads, name their task before --file";

/// Says what is wrong with a line that is not an object with the fields of a job; `reason` is what its reader said.
pub(super) fn of_job(line: &str, reason: &str) -> String {
    let fields = match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            return format!(
                "it is {}, and not an object such as {{\"identifier\": \"send_email\"}}{PAYLOADS}",
                kind_of(&other)
            );
        }
        Err(error) => return not_json(&error),
    };
    let unknown = fields.keys().find(|name| !FIELDS.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        let near = match unknown.as_str() {
            "task" | "task_identifier" | "name" => Some("identifier"),
            "queue" => Some("queue_name"),
            "key" => Some("job_key"),
            other => config::nearest(other, &FIELDS),
        };
        let hint =
            near.map_or_else(|| format!("; it has {}", FIELDS.join(", ")), |near| format!("; did you mean `{near}`?"));
        return format!("a job has no field `{unknown}`{hint}{}", if near.is_some() { "" } else { PAYLOADS });
    }
    if !fields.contains_key("identifier") {
        return format!("it has no `identifier`, which names the task{PAYLOADS}");
    }
    wrong_value(&fields).unwrap_or_else(|| reason.to_owned())
}

/// Says why a line is no JSON.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    let column = error.column();
    let text = error.to_string();
    let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    match (error.classify(), said) {
        (Category::Eof, _) => "it is not complete JSON: a quote or a bracket is not closed".to_owned(),
        (_, "trailing characters") => {
            format!("more follows after its JSON, at column {column}; each job has a line of its own")
        }
        (_, "key must be a string") => {
            format!("it is not JSON: a name in double quotes is expected at column {column}")
        }
        _ => format!("it is not JSON: {said} at column {column}"),
    }
}

/// The first field whose value cannot be that of a job.
fn wrong_value(fields: &Map<String, Value>) -> Option<String> {
    let is_text = |value: &Value| value.is_string();
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let is_small = |value: &Value| value.as_i64().is_some_and(|number| i16::try_from(number).is_ok());
    let is_mode = |value: &Value| {
        value.as_str().is_some_and(|mode| ["replace", "preserve_run_at", "unsafe_dedupe"].contains(&mode))
    };
    fields.iter().find_map(|(name, value)| {
        let (right, expected): (bool, &str) = match name.as_str() {
            "identifier" => (is_text(value), "the name of a task in double quotes"),
            _ if value.is_null() => return None,
            "queue_name" => (is_text(value), "a name in double quotes"),
            "job_key" => (is_text(value), "a text in double quotes"),
            "job_key_mode" => (is_mode(value), "\"replace\", \"preserve_run_at\" or \"unsafe_dedupe\""),
            "max_attempts" => (is_small(value), "a whole number from 1 to 32767"),
            "priority" => (is_small(value), "a whole number from -32768 to 32767"),
            "flags" => (is_list(value), "a list of texts, such as [\"bulk\"]"),
            _ => return None,
        };
        (!right).then(|| format!("`{name}` must be {expected}, and is {}", shortened(value)))
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::String(_) => "a text",
        Value::Number(_) => "a number",
        Value::Object(_) => "an object",
        Value::Bool(_) | Value::Null => "only a word",
    }
}

fn shortened(value: &Value) -> Cow<'static, str> {
    const LONGEST: usize = 40;
    let text = value.to_string();
    match text.chars().count() > LONGEST {
        true => format!("{}...", text.chars().take(LONGEST).collect::<String>()).into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::NewJob;

    #[test]
    fn a_wrong_line_is_described_without_the_words_of_a_parser() {
        for (line, part) in [
            (r#"["send_email", {}]"#, "it is a list, and not an object such as"),
            ("7", "it is a number"),
            ("null", "it is only a word"),
            (r#"{"to": "ada"}"#, "a job has no field `to`; it has identifier, payload,"),
            (r#"{"identifier": "t", "queue": "q"}"#, "no field `queue`; did you mean `queue_name`?"),
            (r#"{"task": "t"}"#, "did you mean `identifier`?"),
            (r#"{"payload": {}}"#, "it has no `identifier`, which names the task"),
            (r#"{"identifier": 7}"#, "`identifier` must be the name of a task in double quotes, and is 7"),
            (r#"{"identifier": "t", "priority": "high"}"#, "`priority` must be a whole number from -32768 to 32767"),
            (r#"{"identifier": "t", "max_attempts": 40000}"#, "`max_attempts` must be a whole number"),
            (r#"{"identifier": "t", "job_key_mode": "merge"}"#, "\"unsafe_dedupe\", and is \"merge\""),
            (r#"{"identifier": "t", "flags": "a"}"#, "`flags` must be a list of texts"),
            (r#"{"identifier": "t", "run_at": "soon"}"#, "a time such as 2030-01-31T12:00:00Z"),
            (r#"{"identifier": "t""#, "a quote or a bracket is not closed"),
            (r#"{"identifier": "t"} {}"#, "more follows after its JSON, at column 21"),
            ("{n: 1}", "a name in double quotes is expected at column 2"),
        ] {
            let reason = NewJob::from_spec(line).expect_err(line).reason();
            let said = of_job(line, &reason);
            assert!(said.contains(part), "{line}: {said}");
            let parsers = ["expected struct", "invalid type", "unknown variant", "EOF", "i16", "missing field"];
            assert!(!parsers.iter().any(|word| said.contains(word)), "{line}: {said}");
        }
    }
}
