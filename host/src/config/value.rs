//! The values of settings, and their parsing from text and TOML.

use std::{fmt, path::PathBuf, time::Duration};

use serde_json::{Map, Value as Json};
use toml::de::DeValue;

use super::{parse_duration, parse_milliseconds, parse_size};

/// A setting's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
    Truth(bool),
    Count(usize),
    Time(Duration),
    /// In bytes.
    Size(u64),
    Path(PathBuf),
    Table(Map<String, Json>),
}

/// The kind of a setting's values, with their syntax.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    /// A text that errors do not repeat, because it may contain a password.
    Secret,
    /// A list; separated by commas in a single text.
    Texts,
    Truth,
    /// From 1.
    Count,
    Port,
    /// May be zero.
    Time,
    /// More than zero.
    PositiveTime,
    /// More than zero; a text without a unit is in milliseconds, as in graphile-worker's flag.
    Milliseconds,
    Size,
    /// Relative to the folder of the settings file, or otherwise to the current folder.
    Path,
    Choice(&'static [&'static str]),
    /// Interpreted by the plugin.
    Table,
}

impl Kind {
    /// Reads a flag's or a variable's text.
    pub fn read_text(self, text: &str) -> Result<Value, String> {
        Ok(match self {
            Self::Text | Self::Secret => Value::Text(text.to_owned()),
            Self::Texts => Value::Texts(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            ),
            Self::Truth => match text {
                "true" | "1" | "yes" | "on" => Value::Truth(true),
                "false" | "0" | "no" | "off" => Value::Truth(false),
                _ => return Err("it must be true or false".to_owned()),
            },
            Self::Count => Value::Count(
                text.parse()
                    .ok()
                    .filter(|number| *number > 0)
                    .ok_or_else(|| "it must be a whole number from 1".to_owned())?,
            ),
            Self::Port => Value::Count(
                text.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| "it must be a port from 1 to 65535".to_owned())?
                    .into(),
            ),
            Self::Time => Value::Time(parse_duration(text)?),
            Self::PositiveTime => Value::Time(positive(parse_duration(text)?)?),
            Self::Milliseconds => Value::Time(positive(parse_milliseconds(text)?)?),
            Self::Size => Value::Size(parse_size(text)?),
            Self::Path => Value::Path(text.into()),
            Self::Choice(choices) => {
                let known = choices.iter().find(|choice| **choice == text);
                Value::Text((*known.ok_or_else(|| format!("it must be {}", choices.join(" or ")))?).to_owned())
            }
            Self::Table => return Err("it can be set in taskbay.toml only".to_owned()),
        })
    }

    /// Reads the value of a key in a file.
    pub(super) fn read_toml(self, value: &DeValue<'_>) -> Result<Value, String> {
        let wrong = |expected: &str| format!("must be {expected}, not {}", describe(value));
        Ok(match self {
            Self::Text => Value::Text(text(value)?),
            Self::Secret => {
                Value::Text(value.as_str().ok_or_else(|| "must be a text in quotes".to_owned())?.to_owned())
            }
            Self::Texts => {
                let items = value.as_array().ok_or_else(|| wrong("a list of texts"))?;
                Value::Texts(items.iter().map(|item| text(item.get_ref())).collect::<Result<_, _>>()?)
            }
            Self::Truth => Value::Truth(value.as_bool().ok_or_else(|| wrong("true or false"))?),
            Self::Count => Value::Count(count(value, usize::MAX).ok_or_else(|| wrong("a whole number from 1"))?),
            Self::Port => {
                Value::Count(count(value, usize::from(u16::MAX)).ok_or_else(|| wrong("a port from 1 to 65535"))?)
            }
            Self::Time => Value::Time(duration(value)?),
            Self::PositiveTime | Self::Milliseconds => Value::Time(positive(duration(value)?)?),
            Self::Size => match value {
                DeValue::String(text) => Value::Size(parse_size(text)?),
                _ => return Err(wrong("a size such as \"512MiB\"")),
            },
            Self::Path => Value::Path(text(value)?.into()),
            Self::Choice(choices) => {
                let quoted: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                let known = choices.iter().find(|choice| value.as_str() == Some(**choice));
                Value::Text((*known.ok_or_else(|| wrong(&quoted.join(" or ")))?).to_owned())
            }
            Self::Table => match json(value)? {
                Json::Object(table) => Value::Table(table),
                _ => return Err(wrong("a section")),
            },
        })
    }
}

/// In the syntax of `taskbay.toml`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => truth.fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Table(table) => f.write_str(&toml_of(&Json::Object(table.clone()))),
            _ => f.write_str(&toml_of(&self.to_json())),
        }
    }
}

impl Value {
    /// As JSON: durations and sizes as the texts used in the file.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => Json::from(text.as_str()),
            Self::Texts(texts) => Json::from(texts.clone()),
            Self::Truth(truth) => Json::from(*truth),
            Self::Count(count) => Json::from(*count),
            Self::Time(time) => Json::from(humantime::format_duration(*time).to_string()),
            Self::Size(bytes) => Json::from(size_text(*bytes)),
            Self::Path(path) => Json::from(path.display().to_string()),
            Self::Table(table) => Json::Object(table.clone()),
        }
    }
}

fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes}B"), |(name, size)| format!("{}{name}", bytes / size))
}

fn toml_of(value: &Json) -> String {
    match value {
        // TOML has the same escapes.
        Json::String(_) | Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::Null => "\"\"".to_owned(),
        Json::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Json::Object(table) if table.is_empty() => "{}".to_owned(),
        Json::Object(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(key, value)| format!("{} = {}", bare(key), toml_of(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A key within a dotted path.
pub(super) fn bare(key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain { key.to_owned() } else { Json::from(key).to_string() }
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("must be a text in quotes, not {}", describe(value)))
}

fn count(value: &DeValue<'_>, most: usize) -> Option<usize> {
    integer(value).and_then(|number| usize::try_from(number).ok()).filter(|number| (1..=most).contains(number))
}

fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::String(text) => parse_duration(text),
        other => Err(format!("must be a duration such as \"2s\" or \"500ms\", not {}", describe(other))),
    }
}

fn positive(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(time) }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
}

/// The JSON form in which a plugin receives its settings.
fn json(value: &DeValue<'_>) -> Result<Json, String> {
    Ok(match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Integer(number) => {
            Json::from(integer(value).ok_or_else(|| format!("{number} is too large a number"))?)
        }
        DeValue::Float(number) => {
            let float: f64 = number.as_str().parse().map_err(|_| format!("{number} is not a number"))?;
            serde_json::Number::from_f64(float)
                .map(Json::Number)
                .ok_or_else(|| format!("JSON has no number {number}"))?
        }
        DeValue::Boolean(truth) => Json::from(*truth),
        DeValue::Datetime(time) => Json::from(time.to_string()),
        DeValue::Array(items) => Json::Array(items.iter().map(|item| json(item.get_ref())).collect::<Result<_, _>>()?),
        DeValue::Table(table) => Json::Object(
            table
                .iter()
                .map(|(key, value)| Ok((key.get_ref().to_string(), json(value.get_ref())?)))
                .collect::<Result<Map<_, _>, String>>()?,
        ),
    })
}

/// A description of a value for a message: its type, and the value if that helps.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}
