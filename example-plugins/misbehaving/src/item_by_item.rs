//! Tasks that work an array item by item, with the results that their items ask for.

use taskbay_plugin::prelude::*;

#[derive(Deserialize)]
pub(crate) struct Item {
    #[serde(default)]
    fail: Option<String>,
    #[serde(default)]
    discard: bool,
}

impl Item {
    fn result(self) -> TaskResult {
        match self.fail {
            Some(message) if self.discard => Err(TaskError::discard(message)),
            Some(message) => Err(TaskError::new(message)),
            None => Ok(()),
        }
    }
}

/// Fails for each item that says `fail`, for good if it says `discard`.
#[task]
pub(crate) async fn batch(items: Vec<Item>) -> BatchResult {
    Ok(items.into_iter().map(Item::result).collect())
}

/// The same in a plain function that returns its results as they are.
#[task]
pub(crate) fn batch_plain(items: Vec<Item>) -> Vec<TaskResult> {
    items.into_iter().map(Item::result).collect()
}

/// Takes an array and has no results for its items.
#[task]
pub(crate) async fn batch_silent(_items: Vec<Item>) {}

/// Fails as a whole.
#[task]
pub(crate) async fn batch_whole(_items: Vec<Item>) -> BatchResult {
    bail!("no connection")
}

/// Has a failed result for an item that its payload does not have.
#[task]
pub(crate) async fn batch_too_many(items: Vec<Item>) -> BatchResult {
    Ok(items.into_iter().map(Item::result).chain([Err(TaskError::new("one more"))]).collect())
}
