//! The options after `?` in a line: `fill=1d&max=5`.

use std::{borrow::Cow, time::Duration};

use jiff::tz::{self, TimeZone, TimeZoneDatabase};
use percent_encoding::percent_decode_str;

use super::{CronOptions, KeyMode, shortened::shortened};

/// In the order of graphile-worker's messages, and then ours.
pub(super) const KEYS: [&str; 8] = ["id", "fill", "max", "queue", "jobKey", "jobKeyMode", "priority", "tz"];

/// The longest backfill, in seconds: a hundred years.
const LONGEST_BACKFILL: u64 = 100 * 365 * 86_400;
/// The database takes no longer ones.
const LONGEST_NAME: usize = 128;
const LONGEST_KEY: usize = 512;

/// The reason why an option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("options: there is none behind the `?`; write `?fill=1d`, or leave the `?` out")]
    None,
    #[error("options: unknown `{key}`{}; known are {}", did_you_mean(nearest), KEYS.join(", "))]
    Unknown { key: String, nearest: Option<&'static str> },
    #[error("options: `{key}` is there twice; leave one of them")]
    Repeated { key: &'static str },
    #[error("options: `{key}` has %-escapes that are not UTF-8")]
    NotUtf8 { key: String },
    #[error("option id=`{value}`: an identifier is a letter or `_`, and then letters, digits, `_` and `-`")]
    Identifier { value: String },
    #[error(
        "option fill=`{value}`: a period is written as `30s`, `5m`, `4h`, `1d`, `2w`, or several of them as `1d12h`"
    )]
    Backfill { value: String },
    #[error("option fill=`{value}`: at most 100 years (36500d)")]
    LongBackfill { value: String },
    #[error("option max=`{value}`: the number of attempts is a whole number from 1 to 32767")]
    MaxAttempts { value: String },
    #[error("option queue=`{value}`: the name of a queue is 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `:`")]
    Queue { value: String },
    #[error("option jobKey is empty, which the database refuses; give it a value, or leave it out")]
    EmptyJobKey,
    #[error("option jobKey=`{value}`: at most {LONGEST_KEY} characters and no NUL, which the database refuses")]
    JobKey { value: String },
    #[error("option jobKeyMode=`{value}`: it is `replace` or `preserve_run_at`")]
    JobKeyMode { value: String },
    #[error("option priority=`{value}`: the priority is a whole number from -32768 to 32767")]
    Priority { value: String },
    #[error(
        "option tz=`{value}`: no such time zone{}; write a name of the IANA database, as Europe/Berlin",
        did_you_mean(nearest)
    )]
    TimeZone { value: String, nearest: Option<String> },
}

/// The identifier, if there is one, and the other options. The error comes with the byte at which the wrong option begins.
pub(super) fn parse_options(text: &str) -> Result<(Option<String>, CronOptions), (usize, OptionError)> {
    let mut identifier = None;
    let mut options = CronOptions::default();
    let mut seen = Vec::new();
    let mut offset = 0;
    for pair in text.split('&') {
        if !pair.is_empty() {
            parse_option(pair, &mut seen, &mut identifier, &mut options).map_err(|error| (offset, error))?;
        }
        offset += pair.len() + 1;
    }
    if seen.is_empty() { Err((0, OptionError::None)) } else { Ok((identifier, options)) }
}

fn parse_option(
    pair: &str,
    seen: &mut Vec<&'static str>,
    identifier: &mut Option<String>,
    options: &mut CronOptions,
) -> Result<(), OptionError> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let not_utf8 = || OptionError::NotUtf8 { key: shortened(key) };
    let (key, value) = (decode(key).ok_or_else(not_utf8)?, decode(value).ok_or_else(not_utf8)?);
    let Some(known) = KEYS.into_iter().find(|known| *known == key) else {
        return Err(OptionError::Unknown { nearest: nearest_key(&key), key: shortened(&key) });
    };
    if seen.contains(&known) {
        return Err(OptionError::Repeated { key: known });
    }
    seen.push(known);
    match known {
        "id" => *identifier = Some(checked_identifier(&value)?),
        "fill" => options.backfill = checked_backfill(parse_period(&value)?)?,
        "max" => options.max_attempts = Some(parse_max_attempts(&value)?),
        "queue" => options.queue_name = Some(checked_queue(&value)?),
        "jobKey" => options.job_key = Some(checked_job_key(&value)?),
        "jobKeyMode" => options.job_key_mode = Some(parse_job_key_mode(&value)?),
        "priority" => options.priority = Some(parse_priority(&value)?),
        _ => options.time_zone = Some(find_time_zone(&value)?),
    }
    Ok(())
}

pub(super) fn checked_identifier(value: &str) -> Result<String, OptionError> {
    let good = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if good { Ok(value.to_owned()) } else { Err(OptionError::Identifier { value: shortened(value) }) }
}

/// Parts of a second are dropped.
pub(super) fn checked_backfill(period: Duration) -> Result<Duration, OptionError> {
    let seconds = period.as_secs();
    if seconds > LONGEST_BACKFILL {
        return Err(OptionError::LongBackfill { value: format!("{seconds}s") });
    }
    Ok(Duration::from_secs(seconds))
}

pub(super) fn checked_max_attempts(attempts: i16) -> Result<i16, OptionError> {
    if attempts >= 1 { Ok(attempts) } else { Err(OptionError::MaxAttempts { value: attempts.to_string() }) }
}

pub(super) fn checked_queue(value: &str) -> Result<String, OptionError> {
    let good = !value.is_empty()
        && value.len() <= LONGEST_NAME
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte));
    if good { Ok(value.to_owned()) } else { Err(OptionError::Queue { value: shortened(value) }) }
}

pub(super) fn checked_job_key(value: &str) -> Result<String, OptionError> {
    if value.is_empty() {
        return Err(OptionError::EmptyJobKey);
    }
    if value.contains('\0') || value.chars().nth(LONGEST_KEY).is_some() {
        return Err(OptionError::JobKey { value: shortened(value) });
    }
    Ok(value.to_owned())
}

/// The system's database first, which may be newer, and then the one in this program: containers often have none.
pub(super) fn find_time_zone(value: &str) -> Result<TimeZone, OptionError> {
    // A plus sign means a space in this encoding, and no zone has a space in its name: `Etc/GMT+5`.
    let name = value.replace(' ', "+");
    let known =
        (name != "Etc/Unknown").then(|| tz::db().get(&name).or_else(|_| TimeZoneDatabase::bundled().get(&name)));
    match known {
        Some(Ok(zone)) if zone.iana_name().is_some() => Ok(zone),
        _ => Err(OptionError::TimeZone { nearest: nearest_time_zone(&name), value: shortened(value) }),
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

/// `1d12h`: whole numbers, each with a unit.
fn parse_period(value: &str) -> Result<Duration, OptionError> {
    let wrong = || OptionError::Backfill { value: shortened(value) };
    let long = || OptionError::LongBackfill { value: shortened(value) };
    let mut seconds: u64 = 0;
    let mut rest = value;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match rest.as_bytes().get(digits) {
            _ if digits == 0 => return Err(wrong()),
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            _ => return Err(wrong()),
        };
        let number: u64 = rest[..digits].parse().map_err(|_| long())?;
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(long)?;
        rest = &rest[digits + 1..];
    }
    if value.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

fn parse_max_attempts(value: &str) -> Result<i16, OptionError> {
    let wrong = || OptionError::MaxAttempts { value: shortened(value) };
    if value.starts_with('+') {
        return Err(wrong());
    }
    value.parse().map_err(|_| wrong()).and_then(|attempts| checked_max_attempts(attempts).map_err(|_| wrong()))
}

fn parse_priority(value: &str) -> Result<i16, OptionError> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let wrong = || OptionError::Priority { value: shortened(value) };
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().map_err(|_| wrong()) } else { Err(wrong()) }
}

fn parse_job_key_mode(value: &str) -> Result<KeyMode, OptionError> {
    match value {
        "replace" => Ok(KeyMode::Replace),
        "preserve_run_at" => Ok(KeyMode::PreserveRunAt),
        _ => Err(OptionError::JobKeyMode { value: shortened(value) }),
    }
}

fn did_you_mean(nearest: &Option<impl AsRef<str>>) -> String {
    nearest.as_ref().map(|nearest| format!(", did you mean `{}`?", nearest.as_ref())).unwrap_or_default()
}

/// Keys of other programs that mean one of ours, and misspellings.
fn nearest_key(key: &str) -> Option<&'static str> {
    let plain = key.chars().take(40).filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    let meant = match plain.as_str() {
        "identifier" | "name" => "id",
        "backfill" | "backfillperiod" => "fill",
        "maxattempts" | "attempts" => "max",
        "queuename" => "queue",
        "key" => "jobKey",
        "mode" => "jobKeyMode",
        "timezone" | "crontz" | "zone" => "tz",
        _ => {
            let distance = |known: &str| strsim::damerau_levenshtein(&plain, &known.to_ascii_lowercase());
            return KEYS
                .into_iter()
                .min_by_key(|known| distance(known))
                .filter(|known| distance(known) <= known.len() / 3);
        }
    };
    Some(meant)
}

fn nearest_time_zone(name: &str) -> Option<String> {
    let wanted = name.chars().take(40).collect::<String>().to_ascii_lowercase();
    let zones: Vec<String> = TimeZoneDatabase::bundled().available().map(|zone| zone.to_string()).collect();
    // `Berlin` alone, which is farther from Europe/Berlin than from some short names.
    let by_city = |zone: &&String| {
        zone.rsplit_once('/').is_some_and(|(_, city)| city.to_ascii_lowercase() == wanted.replace(['+', '-'], "_"))
    };
    let distance = |zone: &String| strsim::damerau_levenshtein(&wanted, &zone.to_ascii_lowercase());
    let found = zones.iter().find(by_city).or_else(|| {
        zones.iter().min_by_key(|zone| distance(zone)).filter(|zone| distance(zone) <= wanted.chars().count() / 4)
    });
    found.cloned()
}
