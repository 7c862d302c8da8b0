//! The options of `#[task(…)]`.

use crate::schedule;
use proc_macro2::Span;
use syn::{
    Ident, LitInt, LitStr, Token,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

/// The options of a task.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) max_attempts: Option<u32>,
    /// In the order of the source.
    pub(crate) schedules: Vec<String>,
}

const NAMES: [&str; 4] = ["name", "timeout", "max_attempts", "schedule"];

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        let mut seen = Vec::new();
        while !input.is_empty() {
            let option: Ident = input.parse()?;
            // A task may have several schedules.
            if option != "schedule" && seen.contains(&option) {
                return Err(syn::Error::new(option.span(), format!("`{option}` is given twice")));
            }
            if !NAMES.iter().any(|name| option == name) {
                return Err(unknown("option", &option, &NAMES));
            }
            input.parse::<Token![=]>()?;
            if option == "name" {
                options.name = Some(name(input)?);
            } else if option == "timeout" {
                options.timeout_ms = Some(timeout(input)?);
            } else if option == "schedule" {
                options.schedules.push(schedule::read(input, &options.schedules)?);
            } else {
                options.max_attempts = Some(max_attempts(input)?);
            }
            seen.push(option);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// An error that names the nearest valid word, or all of them if none is near.
pub(crate) fn unknown(what: &str, word: &Ident, valid: &[&str]) -> syn::Error {
    let text = word.to_string();
    let nearest = valid.iter().max_by(|a, b| strsim::jaro(a, &text).total_cmp(&strsim::jaro(b, &text)));
    let hint = match nearest {
        Some(name) if strsim::jaro(name, &text) > 0.7 => format!("did you mean `{name}`?"),
        _ => format!("there are {}", valid.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    syn::Error::new(word.span(), format!("there is no {what} `{word}`: {hint}"))
}

fn name(input: ParseStream<'_>) -> syn::Result<LitStr> {
    let literal: LitStr =
        input.parse().map_err(|error| syn::Error::new(error.span(), "write the name as text: name = \"mail/send\""))?;
    check_name(&literal.value(), literal.span())?;
    Ok(literal)
}

/// Checks a task's name. The database allows at most 128 characters; spaces are always a mistake.
pub(crate) fn check_name(name: &str, span: Span) -> syn::Result<()> {
    let wrong = if name.is_empty() {
        "a task's name cannot be empty".to_owned()
    } else if name.chars().count() > 128 {
        format!("a task's name has at most 128 characters, and this has {}", name.chars().count())
    } else if let Some(bad) = name.chars().find(|c| c.is_whitespace() || c.is_control()) {
        format!("a task's name has no spaces and no control characters, and this has {bad:?}")
    } else {
        return Ok(());
    };
    Err(syn::Error::new(span, wrong))
}

fn timeout(input: ParseStream<'_>) -> syn::Result<u64> {
    let literal: LitStr = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "write the timeout as text with a unit: timeout = \"30s\""))?;
    milliseconds(&literal.value()).map_err(|reason| syn::Error::new(literal.span(), reason))
}

/// Reads `30s`, `1m 30s`, `500ms`, `2h`.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err("the duration is empty: write for example \"30s\"".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if number.is_empty() {
            return Err(format!("`{text}` is not a duration: write for example \"30s\" or \"1m 30s\""));
        }
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "" => return Err(format!("`{number}` has no unit: write \"{number}s\" for seconds, or `ms`, `m`, `h`")),
            _ => return Err(format!("`{unit}` is no unit of time: there are `ms`, `s`, `m` and `h`")),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| format!("`{text}` is too long"))?;
        rest = after.trim_start();
    }
    if total == 0 {
        return Err("the timeout must be more than zero: leave `timeout` out if there is no limit".to_owned());
    }
    Ok(total)
}

fn max_attempts(input: ParseStream<'_>) -> syn::Result<u32> {
    let wrong = "write the attempts as a number from 1 to 32767: max_attempts = 5";
    let literal: LitInt = input.parse().map_err(|error| syn::Error::new(error.span(), wrong))?;
    match literal.base10_parse::<u32>() {
        // The database counts attempts in a smallint.
        Ok(attempts @ 1..=32_767) => Ok(attempts),
        _ => Err(syn::Error::new(literal.span(), wrong)),
    }
}

/// The span for an error about a whole item.
pub(crate) fn error_at(node: &impl Spanned, message: impl std::fmt::Display) -> syn::Error {
    syn::Error::new(node.span(), message)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn error(tokens: proc_macro2::TokenStream) -> String {
        syn::parse2::<Options>(tokens).err().expect("an error").to_string()
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(milliseconds("30s"), Ok(30_000));
        assert_eq!(milliseconds("1h 2m3s 4ms"), Ok(3_723_004));
        assert_eq!(milliseconds("5min"), Ok(300_000));
    }

    #[test]
    fn a_bad_duration_says_what_is_wrong() {
        assert_eq!(milliseconds("30").unwrap_err(), "`30` has no unit: write \"30s\" for seconds, or `ms`, `m`, `h`");
        assert_eq!(
            milliseconds("3 parsecs").unwrap_err(),
            "`3` has no unit: write \"3s\" for seconds, or `ms`, `m`, `h`"
        );
        assert_eq!(
            milliseconds("3parsecs").unwrap_err(),
            "`parsecs` is no unit of time: there are `ms`, `s`, `m` and `h`"
        );
        assert!(milliseconds("soon").unwrap_err().contains("`soon` is not a duration"));
        assert!(milliseconds("0s").unwrap_err().contains("leave `timeout` out"));
        assert!(milliseconds("99999999999999999999h").unwrap_err().contains("too long"));
    }

    #[test]
    fn an_unknown_option_names_the_nearest_one() {
        assert_eq!(error(quote!(time_out = "3s")), "there is no option `time_out`: did you mean `timeout`?");
        assert_eq!(
            error(quote!(zzz = 1)),
            "there is no option `zzz`: there are `name`, `timeout`, `max_attempts`, `schedule`"
        );
        assert_eq!(error(quote!(timeout = "3s", timeout = "4s")), "`timeout` is given twice");
    }

    #[test]
    fn values_of_the_wrong_kind_are_explained() {
        assert!(error(quote!(timeout = 30)).contains("timeout = \"30s\""));
        assert!(error(quote!(name = send)).contains("name = \"mail/send\""));
        assert!(error(quote!(max_attempts = "5")).contains("max_attempts = 5"));
        assert!(error(quote!(max_attempts = 0)).contains("from 1 to"));
    }

    #[test]
    fn names_may_hold_what_urls_hold_but_no_spaces() {
        assert!(syn::parse2::<Options>(quote!(name = "mail/send-now:v2")).is_ok());
        assert!(error(quote!(name = "")).contains("empty"));
        assert!(error(quote!(name = "send mail")).contains("' '"));
        let long = "x".repeat(129);
        assert!(error(quote!(name = #long)).contains("129"));
    }
}
