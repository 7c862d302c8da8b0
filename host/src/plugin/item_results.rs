//! What a task says of each item of its job's payload, and the rules that such a report must keep.

use serde::Deserialize;

/// How the items of a payload ended, as the task reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemResults {
    /// How many results there are; one for each item, if the task did right.
    pub count: usize,
    /// What failed, by ascending places that are below `count`.
    pub failed: Vec<FailedItem>,
}

/// An item that failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedItem {
    /// Its place in the payload, from 0.
    pub index: usize,
    /// Why, if the task said so; of very many items, only the first are explained.
    pub message: Option<String>,
    /// Trying it again is pointless.
    #[serde(default)]
    pub discard: bool,
}

/// The JSON object of [`taskbay_abi::ITEM_RESULTS`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    items: usize,
    failed: Vec<FailedItem>,
}

impl ItemResults {
    /// Reads a plugin's report, or says why it cannot be believed.
    pub(super) fn read(detail: Option<&str>) -> Result<Self, String> {
        let wrong = |what: &str| format!("the plugin reported the results of single items, but {what}");
        let detail = detail.ok_or_else(|| wrong("not in a form that can be read"))?;
        let Detail { items: count, failed } =
            serde_json::from_str(detail).map_err(|error| wrong(&format!("not as they should be: {error}")))?;
        for (before, item) in failed.iter().zip(failed.iter().skip(1)) {
            if item.index == before.index {
                return Err(wrong(&format!("item {} twice", item.index)));
            }
            if item.index < before.index {
                return Err(wrong(&format!("item {} after item {}", item.index, before.index)));
            }
        }
        match failed.last() {
            Some(last) if last.index >= count => Err(wrong(&format!("item {} of only {count}", last.index))),
            _ => Ok(Self { count, failed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_exactly_the_fields_of_the_binary_interface() {
        let [items, failed] = taskbay_abi::ITEM_RESULTS;
        let text = format!(r#"{{"{items}":3,"{failed}":[{{"index":1,"message":"no","discard":true}},{{"index":2}}]}}"#);
        let no = FailedItem { index: 1, message: Some("no".to_owned()), discard: true };
        let silent = FailedItem { index: 2, message: None, discard: false };
        assert_eq!(ItemResults::read(Some(&text)), Ok(ItemResults { count: 3, failed: vec![no, silent] }));
    }

    #[test]
    fn what_cannot_be_believed_is_refused_with_the_reason() {
        for (detail, part) in [
            (None, "not in a form that can be read"),
            (Some("no JSON"), "not as they should be"),
            (Some("[]"), "not as they should be"),
            (Some(r#"{"items":-1,"failed":[]}"#), "not as they should be"),
            (Some(r#"{"items":3,"failed":[{"index":1},{"index":1}]}"#), "item 1 twice"),
            (Some(r#"{"items":3,"failed":[{"index":2},{"index":1}]}"#), "item 1 after item 2"),
            (Some(r#"{"items":3,"failed":[{"index":3}]}"#), "item 3 of only 3"),
            (Some(r#"{"items":3,"failed":[{}]}"#), "missing field `index`"),
            (Some(r#"{"items":3}"#), "missing field `failed`"),
        ] {
            let error = ItemResults::read(detail).unwrap_err();
            assert!(error.starts_with("the plugin reported") && error.contains(part), "{error}");
        }
    }
}
