//! Parses crontab lines and files: the five fields, the task, the options and the payload.

use std::collections::HashMap;

use super::{
    CronItem, FieldError, FieldKind, OptionError, Pattern, PayloadError, When, field::is_meant_as_field,
    options::parse_options, payload::parse_payload, shortened::shortened,
};

/// The maximum length of a line in bytes.
pub const LONGEST_LINE: usize = 1024 * 1024;
/// The database takes no longer ones.
const LONGEST_TASK: usize = 128;
/// The maximum number of displayed errors; the others are only counted.
const PRINTED_ERRORS: usize = 20;

/// The reason why a line is refused, with the position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", place(*line, *column))]
pub struct CrontabError {
    /// Counted from 1; nothing for a line that is not of a file.
    pub line: Option<usize>,
    /// In characters, counted from 1; nothing for what was not written as text.
    pub column: Option<usize>,
    pub problem: Problem,
}

/// All wrong lines of a file, in order. Displayed with one line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct CrontabErrors(pub Vec<CrontabError>);

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(
        "{found} of 5 time fields; a line begins with minute, hour, day of the month, month and day of the week, as `0 4 * * *`"
    )]
    TooFewFields { found: usize },
    #[error(
        "`{text}` is a sixth time field; there are no seconds (and no years): remove the first field if it is that of the seconds"
    )]
    TooManyFields { text: String },
    #[error("`{text}` is not understood; {hint}")]
    Shorthand { text: String, hint: String },
    #[error("`{text}` sets a variable, which a crontab of this kind does not have; {hint}")]
    Variable { text: String, hint: &'static str },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("no task behind the five time fields; its name comes before `?options` and a `{{payload}}`")]
    NoTask,
    #[error(
        "task `{name}`: {what}; a name is a letter or `_`, and then letters, digits, `_`, `:`, `-` and `/`, at most {LONGEST_TASK}"
    )]
    Task { name: String, what: String },
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("`{text}` is not understood; {hint}")]
    Rest { text: String, hint: &'static str },
    #[error("the identifier `{identifier}` is that of line {first} already; give one of them another with `?id=`")]
    Duplicate { identifier: String, first: usize },
    #[error("the line is longer than {LONGEST_LINE} bytes")]
    LongLine,
}

/// Reads a crontab, whole or not at all.
///
/// Empty lines and those that begin with `#` are passed over. All wrong lines are told at once.
///
/// ```
/// let errors = taskbay::crontab::parse_crontab("0 4 * * * report\n61 * * * * mail\n* * * * mail").unwrap_err();
/// assert_eq!(
///     errors.to_string(),
///     "line 2, column 1: minute `61`: out of range; the minute goes from 0 to 59\n\
///      line 3, column 9: 4 of 5 time fields; a line begins with minute, hour, day of the month, month and day of the week, \
///      as `0 4 * * *`"
/// );
/// ```
pub fn parse_crontab(text: &str) -> Result<Vec<CronItem>, CrontabErrors> {
    let mut items: Vec<CronItem> = Vec::new();
    let mut errors = Vec::new();
    let mut lines_of_identifiers = HashMap::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some(item)) => match lines_of_identifiers.get(&item.identifier) {
                Some(first) => errors.push(CrontabError {
                    line: Some(number),
                    column: Some(1),
                    problem: Problem::Duplicate { identifier: item.identifier, first: *first },
                }),
                None => {
                    lines_of_identifiers.insert(item.identifier.clone(), number);
                    items.push(item);
                }
            },
            Err(error) => errors.push(CrontabError { line: Some(number), ..error }),
        }
    }
    if errors.is_empty() { Ok(items) } else { Err(CrontabErrors(errors)) }
}

/// Reads one line; nothing if it is empty or a comment.
pub fn parse_line(text: &str) -> Result<Option<CronItem>, CrontabError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() || text.trim_start().starts_with('#') {
        return Ok(None);
    }
    Words::of(text)?.item(None).map(Some)
}

/// Reads a schedule that is declared beside a task: a line without the task's name, as `0 4 * * * ?fill=1d {to: "all"}`.
pub fn parse_schedule(task: &str, text: &str) -> Result<CronItem, CrontabError> {
    if let Some(what) = wrong_in_task(task) {
        return Err(Problem::Task { name: shortened(task), what }.into());
    }
    Words::of(text)?.item(Some(task))
}

impl From<Problem> for CrontabError {
    fn from(problem: Problem) -> Self {
        Self { line: None, column: None, problem }
    }
}

/// A line that is read word by word.
struct Words<'text> {
    text: &'text str,
    /// The byte up to which it is read.
    at: usize,
}

impl<'text> Words<'text> {
    fn of(text: &'text str) -> Result<Self, CrontabError> {
        let text = text.trim_end();
        if text.len() > LONGEST_LINE {
            return Err(Problem::LongLine.into());
        }
        Ok(Self { text, at: 0 })
    }

    fn item(mut self, task: Option<&str>) -> Result<CronItem, CrontabError> {
        let pattern = self.pattern()?;
        let task = match task {
            Some(task) => task.to_owned(),
            None => self.task()?,
        };
        let (identifier, options) = match self.rest().strip_prefix('?') {
            None => (None, Default::default()),
            Some(_) => {
                let (start, word) = self.word();
                parse_options(&word[1..]).map_err(|(offset, error)| self.error(start + 1 + offset, error))?
            }
        };
        let rest = self.rest();
        let payload = match rest.chars().next() {
            None => Default::default(),
            Some('{') => parse_payload(rest).map_err(|(characters, error)| {
                let column = self.column(self.at) + characters;
                CrontabError { line: None, column: Some(column), problem: error.into() }
            })?,
            Some(first) => {
                let text = shortened(rest);
                return Err(self.error(self.at, Problem::Rest { text, hint: hint_on_rest(first) }));
            }
        };
        let identifier = identifier.unwrap_or_else(|| task.clone());
        Ok(CronItem { task, identifier, when: When::Pattern(pattern), options, payload })
    }

    fn pattern(&mut self) -> Result<Pattern, CrontabError> {
        let mut fields = [""; 5];
        let mut starts = [0; 5];
        for (found, kind) in FieldKind::ALL.into_iter().enumerate() {
            let (start, word) = self.word();
            if found == 0
                && let Some(problem) = of_another_crontab(word)
            {
                return Err(self.error(start, problem));
            }
            if word.is_empty() || !is_meant_as_field(kind, word) && starts_other_part(word) {
                return Err(self.error(start, Problem::TooFewFields { found }));
            }
            (starts[found], fields[found]) = (start, word);
        }
        Pattern::parse(fields).map_err(|(index, offset, error)| self.error(starts[index] + offset, error))
    }

    fn task(&mut self) -> Result<String, CrontabError> {
        let (start, name) = self.word();
        if name.is_empty() || name.starts_with(['?', '{', '#']) && name != "?" {
            return Err(self.error(start, Problem::NoTask));
        }
        if name.bytes().all(|byte| byte.is_ascii_digit() || b"*/,-?".contains(&byte)) {
            return Err(self.error(start, Problem::TooManyFields { text: shortened(name) }));
        }
        match wrong_in_task(name) {
            None => Ok(name.to_owned()),
            Some(what) => Err(self.error(start, Problem::Task { name: shortened(name), what })),
        }
    }

    /// What follows, after spaces.
    fn rest(&mut self) -> &'text str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    /// Up to the next space, with the byte at which it begins; empty at the end of the line.
    fn word(&mut self) -> (usize, &'text str) {
        let rest = self.rest();
        let start = self.at;
        let word = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
        self.at += word.len();
        (start, word)
    }

    fn column(&self, byte: usize) -> usize {
        self.text[..byte].chars().count() + 1
    }

    fn error(&self, byte: usize, problem: impl Into<Problem>) -> CrontabError {
        CrontabError { line: None, column: Some(self.column(byte)), problem: problem.into() }
    }
}

/// The name of a task, options or a payload rather than a field that is misspelt.
fn starts_other_part(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || "_?{#".contains(first))
}

fn wrong_in_task(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if let Some(other) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"_:-/".contains(*c)) {
        return Some(format!(
            "`{other}` is not allowed{}",
            if "?{".contains(other) { " without a space before" } else { "" }
        ));
    }
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return Some("it begins with neither a letter nor `_`".to_owned());
    }
    (name.len() > LONGEST_TASK).then(|| format!("it has {} characters", name.len()))
}

/// What other programs have in their crontabs instead of five fields.
fn of_another_crontab(word: &str) -> Option<Problem> {
    if word.starts_with('@') {
        let hint = match word.to_ascii_lowercase().as_str() {
            "@hourly" => "write `0 * * * *`",
            "@daily" | "@midnight" => "write `0 0 * * *`",
            "@weekly" => "write `0 0 * * 0`",
            "@monthly" => "write `0 0 1 * *`",
            "@yearly" | "@annually" => "write `0 0 1 1 *`",
            "@reboot" => "a start cannot be a schedule",
            _ => "write five time fields, as `0 4 * * *`",
        };
        return Some(Problem::Shorthand { text: shortened(word), hint: hint.to_owned() });
    }
    let (name, _) = word.split_once('=')?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    is_name.then(|| Problem::Variable {
        text: shortened(word),
        hint: match name {
            "TZ" | "CRON_TZ" => "write the time zone behind the task, as `?tz=Europe/Berlin`",
            _ => "remove the line",
        },
    })
}

fn hint_on_rest(first: char) -> &'static str {
    match first {
        '#' => "a comment has a line of its own",
        '?' => "there is one `?`, with `&` between the options and no spaces",
        _ => "what follows is `?options` and then a `{payload}`",
    }
}

fn place(line: Option<usize>, column: Option<usize>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: "),
        (Some(line), None) => format!("line {line}: "),
        (None, Some(column)) => format!("column {column}: "),
        (None, None) => String::new(),
    }
}

fn listed(errors: &[CrontabError]) -> String {
    let mut lines: Vec<String> = errors.iter().take(PRINTED_ERRORS).map(ToString::to_string).collect();
    if errors.len() > PRINTED_ERRORS {
        lines.push(format!("and {} more", errors.len() - PRINTED_ERRORS));
    }
    lines.join("\n")
}
