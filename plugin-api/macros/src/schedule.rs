//! `schedule = "…"`: a crontab line without the task's name.
//!
//! The host parses it when it loads the plugin. This module reports common mistakes already at compile time.

use syn::{LitStr, parse::ParseStream};

/// The time fields with their ranges.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("weekday", 0, 7)];

const OPTIONS: [&str; 8] = ["id", "fill", "max", "queue", "jobKey", "jobKeyMode", "priority", "tz"];

/// Reads a schedule of a task that already has the schedules with the ids `earlier`.
pub(crate) fn read(input: ParseStream<'_>, earlier: &[String]) -> syn::Result<String> {
    let literal: LitStr = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "write the schedule as text: schedule = \"0 4 * * *\""))?;
    let text = literal.value().trim().to_owned();
    let checked = check(&text).and_then(|id| differs(id, earlier));
    checked.map(|()| text).map_err(|reason| syn::Error::new(literal.span(), reason))
}

/// Checks a schedule, and returns its id if it has one.
fn check(text: &str) -> Result<Option<String>, String> {
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err("a schedule is one line: write `schedule` once for each of several".to_owned());
    }
    if text.starts_with('@') {
        return Err("a schedule has five fields, and no names such as @daily: write \"0 0 * * *\"".to_owned());
    }
    let mut rest = text;
    for (count, (name, least, most)) in FIELDS.into_iter().enumerate() {
        let (field, after) = next_word(rest);
        if field.is_empty() || field.starts_with(['?', '{']) {
            return Err(format!(
                "a schedule has five fields (minute, hour, day of the month, month, weekday), and this has {count}"
            ));
        }
        check_field(field, least, most).map_err(|reason| format!("the {name} `{field}` of the schedule {reason}"))?;
        rest = after;
    }
    let mut id = None;
    if rest.starts_with('?') {
        let (options, after) = next_word(rest);
        id = check_options(&options[1..])?;
        rest = after;
    }
    if rest.is_empty() || (rest.starts_with('{') && rest.ends_with('}')) {
        return Ok(id);
    }
    let (word, _) = next_word(rest);
    Err(match word.chars().next() {
        Some('{') => "the payload of the schedule is an object, which ends with `}`".to_owned(),
        Some('0'..='9' | '*') => "a schedule has five fields, and this has more: seconds are not among them".to_owned(),
        _ => format!(
            "`{word}` does not belong into a schedule: after the five fields come options (`?fill=1d`) and a payload \
             (`{{\"full\": true}}`), and the task is known"
        ),
    })
}

fn next_word(text: &str) -> (&str, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn check_field(field: &str, least: u32, most: u32) -> Result<(), String> {
    for part in field.split(',') {
        let number = |digits: &str| {
            let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten();
            number.ok_or("is none of `5`, `1-5`, `*`, `*/5`, or several of them with commas")
        };
        let in_range = |digits: &str| match number(digits)? {
            number if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("goes from {least} to {most}")),
        };
        if let Some(step) = part.strip_prefix("*/") {
            if number(step)? == 0 {
                return Err("steps by 0".to_owned());
            }
        } else if let Some((first, last)) = part.split_once('-') {
            if in_range(first)? >= in_range(last)? {
                return Err("ends before it begins".to_owned());
            }
        } else if part != "*" {
            in_range(part)?;
        }
    }
    Ok(())
}

fn check_options(options: &str) -> Result<Option<String>, String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut id = None;
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if !OPTIONS.contains(&name) {
            let near = OPTIONS.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
            let near = near.filter(|near| strsim::jaro(near, name) > 0.7);
            let hint = near
                .map_or_else(|| format!("there are {}", OPTIONS.join(", ")), |near| format!("did you mean `{near}`?"));
            return Err(format!("a schedule has no option `{name}`: {hint}"));
        }
        if seen.contains(&name) {
            return Err(format!("the option `{name}` of the schedule is given twice"));
        }
        seen.push(name);
        if name == "id" {
            id = Some(value.to_owned());
        }
    }
    Ok(id)
}

/// Checks that ids are unique. The database stores the last run of a schedule under its id, or under the task's name.
fn differs(id: Option<String>, earlier: &[String]) -> Result<(), String> {
    let taken = earlier.iter().any(|text| check(text) == Ok(id.clone()));
    if !taken {
        return Ok(());
    }
    Err(match id {
        Some(id) => format!("two schedules of this task have the id `{id}`"),
        None => "each further schedule of a task needs an id, by which its last run is remembered: \
                 \"0 4 * * * ?id=nightly\""
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::options::Options;

    #[test]
    fn schedules_as_people_write_them_are_taken() {
        for text in [
            "* * * * *",
            "0 4 * * *",
            "*/15 0,12 1-15 01 1-5",
            "0 4\t* * 7 ?fill=1d&tz=Europe/Berlin {\"full\": true}",
            "0 0 1 1 0 ?id=new_year&max=3&queue=q&jobKey=&jobKeyMode=replace&priority=-1",
            "0 4 * * * {a: 'json5', b: [1,],}",
        ] {
            check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, part) in [
            ("", "this has 0"),
            ("0 4 * *", "this has 4"),
            ("0 4 * * ?fill=1d", "this has 4"),
            ("0 0 4 * * *", "seconds are not among them"),
            ("60 4 * * *", "the minute `60` of the schedule goes from 0 to 59"),
            ("0 24 * * *", "the hour `24` of the schedule goes from 0 to 23"),
            ("0 4 0 * *", "the day of the month `0` of the schedule goes from 1 to 31"),
            ("0 4 * JAN *", "the month `JAN` of the schedule is none of"),
            ("0 4 * * 8", "the weekday `8`"),
            ("*/0 4 * * *", "steps by 0"),
            ("0 9-5 * * *", "ends before it begins"),
            ("1-10/2 * * * *", "is none of"),
            ("+5 * * * *", "is none of"),
            ("1, * * * *", "is none of"),
            ("99999999999 * * * *", "is none of"),
            ("@daily", "\"0 0 * * *\""),
            ("0 4 * * * clean_up", "`clean_up` does not belong"),
            ("0 4 * * * ?filll=1d", "no option `filll`: did you mean `fill`?"),
            ("0 4 * * * ?zzz=1", "there are id, fill"),
            ("0 4 * * * ?max=1&max=2", "`max` of the schedule is given twice"),
            ("0 4 * * * {\"a\": 1", "ends with `}`"),
            ("0 4 * * * [1]", "does not belong"),
            ("0 4 * * *\n0 5 * * *", "one line"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn several_schedules_differ_by_their_ids() {
        let error = |tokens| syn::parse2::<Options>(tokens).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error(quote!(schedule = "0 4 * * *", schedule = "0 5 * * * ?id=five")), "");
        assert!(error(quote!(schedule = "0 4 * * *", schedule = "0 5 * * *")).contains("?id=nightly"));
        assert!(error(quote!(schedule = "0 4 * * * ?id=a", schedule = "0 5 * * * ?id=a")).contains("have the id `a`"));
        assert!(error(quote!(schedule = 4)).contains("schedule = \"0 4 * * *\""));
    }
}
