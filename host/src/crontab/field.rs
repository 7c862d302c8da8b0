//! One of the five time fields: how it is written, and the numbers that it stands for.

use std::{fmt, ops::RangeInclusive};

use super::shortened::shortened;

/// Which of the five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldKind {
    Minute,
    Hour,
    /// The day of the month.
    Date,
    Month,
    /// The day of the week.
    Weekday,
}

/// A list of numbers, `a-b`, `*` and `*/n`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// As they were written, to be printed so again.
    parts: Vec<Part>,
    /// Bit n is set where n belongs to the field; no field goes beyond 59.
    set: u64,
    full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    All,
    Step(u8),
    One(u8),
    Range(u8, u8),
}

/// Why a field is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("{kind} `{text}`: out of range; the {kind} goes from {} to {}", kind.range().start(), kind.range().end())]
    OutOfRange { kind: FieldKind, text: String },
    #[error("{kind} `{text}`: names are not understood; write {hint}")]
    Name { kind: FieldKind, text: String, hint: String },
    #[error("{kind} `{text}`: only `*` can have a step; write {hint}")]
    Step { kind: FieldKind, text: String, hint: String },
    #[error("{kind} `{text}`: the step of a `*` is a whole number of 1 and more, as in `*/5`")]
    BadStep { kind: FieldKind, text: String },
    #[error("{kind} `{text}`: a range goes up; write {hint}")]
    Backwards { kind: FieldKind, text: String, hint: String },
    #[error("{kind}: there is a comma with nothing before or behind it; write numbers with one comma between them")]
    Empty { kind: FieldKind },
    #[error(
        "{kind} `{text}`: not understood; write a number, `a-b`, `*` or `*/n`, or several of them with commas between"
    )]
    Foreign { kind: FieldKind, text: String },
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl FieldKind {
    pub(super) const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::Date, Self::Month, Self::Weekday];

    /// The numbers that may be written; 7 is Sunday, as 0 is.
    pub(super) fn range(self) -> RangeInclusive<u8> {
        match self {
            Self::Minute => 0..=59,
            Self::Hour => 0..=23,
            Self::Date => 1..=31,
            Self::Month => 1..=12,
            Self::Weekday => 0..=7,
        }
    }

    /// The bit of each number that is written.
    fn bit(self, number: u8) -> u64 {
        1 << if self == Self::Weekday && number == 7 { 0 } else { number }
    }

    fn every(self, step: u8) -> u64 {
        let last = if self == Self::Weekday { 6 } else { *self.range().end() };
        (*self.range().start()..=last).step_by(step.into()).fold(0, |set, number| set | self.bit(number))
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Date => "day of the month",
            Self::Month => "month",
            Self::Weekday => "day of the week",
        })
    }
}

impl Field {
    /// The error comes with the byte at which the wrong part begins.
    pub(super) fn parse(kind: FieldKind, text: &str) -> Result<Self, (usize, FieldError)> {
        let mut field = Self { parts: Vec::new(), set: 0, full: false };
        let mut offset = 0;
        for piece in text.split(',') {
            let part = Part::parse(kind, piece).map_err(|error| (offset, error))?;
            field.set |= part.set(kind);
            field.parts.push(part);
            offset += piece.len() + 1;
        }
        field.full = field.set == kind.every(1);
        Ok(field)
    }

    pub fn contains(&self, number: u8) -> bool {
        number < 64 && self.set >> number & 1 == 1
    }

    /// The smallest number of the field that is not below this one.
    pub(super) fn from(&self, number: u8) -> Option<u8> {
        let rest = self.set.checked_shr(number.into())?.checked_shl(number.into())?;
        (rest != 0).then(|| rest.trailing_zeros() as u8)
    }

    /// Whether it holds all numbers that there are.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether it says how often rather than when: it has `*` or `*/n`, or holds all numbers.
    pub fn is_recurring(&self) -> bool {
        self.full || self.parts.iter().any(|part| matches!(part, Part::All | Part::Step(_)))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match part {
                Part::All => f.write_str("*"),
                Part::Step(step) => write!(f, "*/{step}"),
                Part::One(number) => write!(f, "{number}"),
                Part::Range(first, last) => write!(f, "{first}-{last}"),
            }?;
        }
        Ok(())
    }
}

impl Part {
    fn parse(kind: FieldKind, piece: &str) -> Result<Self, FieldError> {
        let text = shortened(piece);
        if piece.is_empty() {
            return Err(FieldError::Empty { kind });
        }
        if let Some(hint) = written_in_numbers(kind, piece) {
            return Err(FieldError::Name { kind, text, hint });
        }
        if let Some((start, step)) = piece.split_once('/') {
            if start == "*" {
                return parse_step(step).map(Self::Step).ok_or(FieldError::BadStep { kind, text });
            }
            let hint = written_as_list(kind, start, step);
            return Err(FieldError::Step { kind, text, hint });
        }
        if piece == "*" {
            return Ok(Self::All);
        }
        if let Some((first, last)) = piece.split_once('-')
            && is_number(first)
            && is_number(last)
        {
            let (Some(first), Some(last)) = (parse_number(kind, first), parse_number(kind, last)) else {
                return Err(FieldError::OutOfRange { kind, text });
            };
            if first >= last {
                return Err(FieldError::Backwards { kind, text, hint: written_upwards(kind, first, last) });
            }
            return Ok(Self::Range(first, last));
        }
        if !is_number(piece) {
            return Err(FieldError::Foreign { kind, text });
        }
        parse_number(kind, piece).map(Self::One).ok_or(FieldError::OutOfRange { kind, text })
    }

    fn set(self, kind: FieldKind) -> u64 {
        match self {
            Self::All => kind.every(1),
            Self::Step(step) => kind.every(step),
            Self::One(number) => kind.bit(number),
            Self::Range(first, last) => (first..=last).fold(0, |set, number| set | kind.bit(number)),
        }
    }
}

/// Whether this word can only have been meant as a time field, as in other programs' crontabs.
pub(super) fn is_meant_as_field(kind: FieldKind, word: &str) -> bool {
    let quartz = ["?", "L", "W", "LW"].contains(&word);
    quartz || word.starts_with(|first: char| first.is_ascii_digit() || "*-,/".contains(first)) || {
        word.split([',', '-', '/', '#']).all(|piece| name_number(kind, piece).is_some() || is_number(piece))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_number(kind: FieldKind, text: &str) -> Option<u8> {
    let number = text.parse().ok()?;
    kind.range().contains(&number).then_some(number)
}

/// Steps beyond every range mean the same.
fn parse_step(text: &str) -> Option<u8> {
    let digits = text.trim_start_matches('0');
    (is_number(text) && !digits.is_empty()).then(|| digits.parse().unwrap_or(u8::MAX))
}

fn name_number(kind: FieldKind, name: &str) -> Option<u8> {
    let (names, first): (&[&str], u8) = match kind {
        FieldKind::Weekday => (&WEEKDAYS, 0),
        FieldKind::Month => (&MONTHS, 1),
        _ => return None,
    };
    let name = name.to_ascii_lowercase();
    let index = names.iter().position(|known| *known == name || known[..3] == name)?;
    Some(first + index as u8)
}

/// `mon-fri` as `1-5`; nothing if there are no names in it.
fn written_in_numbers(kind: FieldKind, piece: &str) -> Option<String> {
    let (first, last) = piece.split_once('-').map_or((piece, None), |(first, last)| (first, Some(last)));
    let number = |text: &str| name_number(kind, text).or_else(|| parse_number(kind, text));
    if !std::iter::once(first).chain(last).any(|text| name_number(kind, text).is_some()) {
        return None;
    }
    Some(match (number(first), last.map(number)) {
        (Some(first), None) => format!("`{first}`"),
        // Sunday ends the week here, or it would go backwards.
        (Some(first), Some(Some(0))) if first > 0 => format!("`{first}-7`"),
        (Some(first), Some(Some(last))) if first < last => format!("`{first}-{last}`"),
        _ => match kind {
            FieldKind::Weekday => "numbers: 0 is Sunday, 1 is Monday, 6 is Saturday".to_owned(),
            _ => "numbers: 1 is January, 12 is December".to_owned(),
        },
    })
}

/// `1-10/3` as `1,4,7,10`.
fn written_as_list(kind: FieldKind, start: &str, step: &str) -> String {
    let (first, last) = start.split_once('-').unwrap_or((start, ""));
    let last = if last.is_empty() { Some(*kind.range().end()) } else { parse_number(kind, last) };
    match (parse_number(kind, first), last, parse_step(step)) {
        (Some(first), Some(last), Some(step)) if first <= last => {
            let numbers: Vec<String> = (first..=last).step_by(step.into()).map(|number| number.to_string()).collect();
            format!("the numbers themselves: `{}`", numbers.join(","))
        }
        _ => "`*/n`, or the numbers themselves with commas between".to_owned(),
    }
}

/// `22-2` as `22-23,0-2`.
fn written_upwards(kind: FieldKind, first: u8, last: u8) -> String {
    let range = |first: u8, last: u8| if first == last { first.to_string() } else { format!("{first}-{last}") };
    if first == last {
        return format!("`{first}`");
    }
    let end = if kind == FieldKind::Weekday && last > 0 { 6 } else { *kind.range().end() };
    if kind == FieldKind::Weekday && last == 0 {
        return format!("`{}`", range(first, 7));
    }
    if first > end {
        return format!("`{}`", range(0, last));
    }
    format!("`{},{}`", range(first, end), range(*kind.range().start(), last))
}
