//! `schedule = "0 4 * * *"`: what can be said against it while compiling. The host knows the rest of the rules.

use syn::{LitStr, parse::ParseStream};

/// The fields of a schedule, with the smallest and the largest number.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7)];

/// Reads the text of one schedule.
pub(crate) fn read(input: ParseStream<'_>) -> syn::Result<String> {
    let wrong = "write the schedule as text: schedule = \"0 4 * * *\"";
    let literal: LitStr = input.parse().map_err(|error| syn::Error::new(error.span(), wrong))?;
    check(&literal.value()).map_err(|reason| syn::Error::new(literal.span(), reason))?;
    Ok(literal.value().trim().to_owned())
}

/// Five fields; behind them options, which begin with `?`, and a payload, which begins with `{`.
fn check(text: &str) -> Result<(), String> {
    if text.contains(['\n', '\r', '\0']) {
        return Err("a schedule is one line: give another one by another `schedule`".to_owned());
    }
    let mut words = text.split_whitespace();
    for (what, least, most) in FIELDS {
        let Some(field) = words.next() else {
            return Err("a schedule has five fields: minute, hour, day of the month, month, day of the week".to_owned());
        };
        if field.contains(|c: char| !c.is_ascii_digit() && !"*/,-".contains(c)) {
            return Err(format!("`{field}` is no {what}: there are numbers, `*`, `*/5`, `1-5`, and lists of these"));
        }
        let numbers = field.split(',').filter(|part| !part.starts_with("*/")).flat_map(|part| part.split('-'));
        for number in numbers.filter(|part| *part != "*") {
            if !number.parse().is_ok_and(|number: u32| (least..=most).contains(&number)) {
                return Err(format!("`{number}` in `{field}` is no {what}: it is a number from {least} to {most}"));
            }
        }
    }
    match words.next() {
        Some(word) if !word.starts_with(['?', '{']) => Err(format!(
            "`{word}` stands where only options (`?fill=1d`) or a payload (`{{…}}`) can: the task's name is not repeated"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_as_people_write_them_are_accepted() {
        for text in [
            "0 4 * * *",
            "*/15 9-17 * * 1-5",
            "0,30 0 1,15 */3 7",
            "0 4 * * * ?fill=1d&tz=Europe/Berlin {full: true}",
            "0 4 * * * {\"a\": [1, 2]}",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("0 4 * *", "five fields"),
            ("", "five fields"),
            ("60 4 * * *", "`60` in `60` is no minute"),
            ("0 4 0 * *", "is no day of the month: it is a number from 1 to 31"),
            ("0 4 * * mon", "`mon` is no day of the week"),
            ("0 4 1- * *", "`` in `1-`"),
            ("0 4 * * * send_report", "the task's name is not repeated"),
            ("0 4 * * *\n0 5 * * *", "one line"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
