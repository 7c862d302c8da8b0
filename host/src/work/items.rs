//! From the results of a payload's items to the job's verdict.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::execution::VerdictKind;
use crate::plugin::{FailedItem, ItemResults};

/// So many failed items are named in the job's error.
const NAMED: usize = 100;
/// So much is kept of what each has to say, in characters.
const LONGEST_REASON: usize = 500;

/// The job is done if all items are. Else it fails, and its payload shrinks to the items that are to be tried again or, if
/// the job fails for good, to all that failed; they are the bytes that were stored.
///
/// The error says why the results cannot be those of the payload's items.
pub(super) fn verdict(results: &ItemResults, payload: &str, last_attempt: bool) -> Result<VerdictKind, String> {
    let ItemResults { count, failed } = results;
    let told = || format!("the task reported on {}{}", number_of_items(*count), first_failure(failed));
    if !payload.trim_start().starts_with('[') {
        return Err(format!("{}, but the payload is no array", told()));
    }
    let items: Vec<&RawValue> = match serde_json::from_str(payload) {
        Ok(items) => items,
        // What Postgres takes for JSON should be read here, too. Should it not be, then nothing is lost.
        Err(error) => {
            let message = format!("{}, but the payload cannot be taken apart: {error}", told());
            return Ok(VerdictKind::Fail { message, permanent: last_attempt, payload: None });
        }
    };
    if items.len() != *count {
        return Err(format!("{}, but the payload has {}", told(), number_of_items(items.len())));
    }
    if failed.is_empty() {
        return Ok(VerdictKind::Complete);
    }
    let permanent = last_attempt || failed.iter().all(|item| item.discard);
    let kept: Vec<&str> =
        failed.iter().filter(|item| permanent || !item.discard).map(|item| items[item.index].get()).collect();
    let payload = (kept.len() < items.len()).then(|| format!("[{}]", kept.join(",")));
    Ok(VerdictKind::Fail { message: message(results), permanent, payload })
}

fn message(results: &ItemResults) -> String {
    let ItemResults { count, failed } = results;
    let mut message = format!("{} of {count} items failed", failed.len());
    for item in failed.iter().take(NAMED) {
        let for_good = if item.discard { ", for good" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(message, "\nitem {} of {count}{for_good}: {}", item.index + 1, reason(item));
    }
    if let Some(more @ 1..) = failed.len().checked_sub(NAMED) {
        let _ = write!(message, "\n… and {more} more");
    }
    message
}

fn number_of_items(count: usize) -> String {
    if count == 1 { "1 item".to_owned() } else { format!("{count} items") }
}

fn first_failure(failed: &[FailedItem]) -> String {
    let told = failed.first().map(|item| format!(" ({} failed, first: {})", failed.len(), reason(item)));
    told.unwrap_or_default()
}

/// One line, whatever the task wrote.
fn reason(item: &FailedItem) -> String {
    let text = item.message.as_deref().unwrap_or("it did not say why");
    let mut line: String = text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST_REASON).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(count: usize, failed: &[(usize, &str, bool)]) -> ItemResults {
        let item = |&(index, text, discard): &(usize, &str, bool)| FailedItem {
            index,
            message: Some(text.to_owned()),
            discard,
        };
        ItemResults { count, failed: failed.iter().map(item).collect() }
    }

    #[track_caller]
    fn failure(results: &ItemResults, payload: &str, last: bool) -> (String, bool, Option<String>) {
        match verdict(results, payload, last) {
            Ok(VerdictKind::Fail { message, permanent, payload }) => (message, permanent, payload),
            other => panic!("{other:?}"),
        }
    }

    const PAYLOAD: &str = r#" [ {"n": 12345678901234567890.10, "z": "\u0000"} , 2,[1,  2] ,"\u00e4" ]"#;

    #[test]
    fn the_failed_items_stay_byte_for_byte_and_in_order() {
        let (message, permanent, payload) =
            failure(&results(4, &[(0, "no", false), (2, "a\nb", false)]), PAYLOAD, false);
        assert_eq!(payload.unwrap(), r#"[{"n": 12345678901234567890.10, "z": "\u0000"},[1,  2]]"#);
        assert_eq!(message, "2 of 4 items failed\nitem 1 of 4: no\nitem 3 of 4: a b");
        assert!(!permanent);
    }

    #[test]
    fn a_payload_of_which_all_failed_is_left_alone() {
        let all = results(2, &[(0, "no", false), (1, "no", false)]);
        assert_eq!(failure(&all, "[ 1,\n2 ]", false).2, None);
    }

    #[test]
    fn what_failed_for_good_is_not_tried_again() {
        let some = results(3, &[(0, "gone", true), (2, "later", false)]);
        let (message, permanent, payload) = failure(&some, "[1,2,3]", false);
        assert_eq!((payload.as_deref(), permanent), (Some("[3]"), false));
        assert_eq!(message, "2 of 3 items failed\nitem 1 of 3, for good: gone\nitem 3 of 3: later");
        // Nothing is tried again after the last attempt, so that nothing is left out.
        let (_, permanent, payload) = failure(&some, "[1,2,3]", true);
        assert_eq!((payload.as_deref(), permanent), (Some("[1,3]"), true));
        let (_, permanent, payload) = failure(&results(3, &[(1, "gone", true)]), "[1,2,3]", false);
        assert_eq!((payload.as_deref(), permanent), (Some("[2]"), true));
    }

    #[test]
    fn results_that_are_not_those_of_the_items_are_refused() {
        for (payload, said) in
            [("{}", "is no array"), ("null", "is no array"), ("[]", "has 0 items"), ("[1]", "has 1 item")]
        {
            let error = verdict(&results(2, &[(1, "lost", false)]), payload, false).unwrap_err();
            assert!(
                error.starts_with("the task reported on 2 items (1 failed, first: lost), but the payload "),
                "{error}"
            );
            assert!(error.ends_with(said), "{error}");
        }
        assert!(matches!(verdict(&results(0, &[]), "[]", false), Ok(VerdictKind::Complete)));
    }

    #[test]
    fn the_message_stays_readable_however_many_items_fail() {
        let payload = format!("[{}1]", "1,".repeat(9_999));
        let long = "ä".repeat(10_000);
        let many: Vec<_> = (0..10_000).map(|index| (index, long.as_str(), false)).collect();
        let (message, ..) = failure(&results(10_000, &many), &payload, false);
        assert!(message.len() < 110_000 && message.lines().count() == 102, "{}", message.len());
        assert!(message.ends_with("\n… and 9900 more"));
    }

    #[test]
    fn deeply_nested_items_do_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let (.., payload) = failure(&results(2, &[(0, "no", false)]), &format!("[{deep},1]"), false);
        assert!(payload.unwrap() == format!("[{deep}]"));
    }
}
