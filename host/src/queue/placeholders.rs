//! The placeholders that any statement may use, so that what they stand for is written once.

use super::claimed::STILL_CLAIMED;

/// Prefix of the ids of owners that hold such a lock while they live. Others are never judged by it.
pub const SHOWS_LIFE: &str = "taskbay-live-";

/// The most jobs that one statement claims.
pub(super) const BATCH_LIMIT: usize = 1000;

/// First key of the advisory locks by which owners show that they live. The second key is the hash of the owner's name.
const LIVENESS_LOCK: &str = "1952543595";

/// First key of the lock that hosts share for a while after they have lost their connections.
const OUTAGE_LOCK: &str = "1952543596";

/// Fills in the placeholders of a statement:
///
/// | placeholder | value |
/// |---|---|
/// | `@schema@` | the quoted name of the schema |
/// | `@jobs@` | the table of jobs, as a `regclass` |
/// | `@still_claimed@` | [`STILL_CLAIMED`] |
/// | `@liveness_lock@`, `@outage_lock@` | the first keys of these advisory locks |
/// | `@live_owners@` | the pattern of [`SHOWS_LIFE`] |
/// | `@batch_limit@` | [`BATCH_LIMIT`] |
pub(super) fn fill_in(sql: &str, schema: &str) -> String {
    let jobs = format!("'{}._private_jobs'::regclass", schema.replace('\'', "''"));
    sql.replace("@still_claimed@", STILL_CLAIMED)
        .replace("@liveness_lock@", LIVENESS_LOCK)
        .replace("@outage_lock@", OUTAGE_LOCK)
        .replace("@live_owners@", &format!("'{SHOWS_LIFE}%'"))
        .replace("@batch_limit@", &BATCH_LIMIT.to_string())
        .replace("@schema@", schema)
        .replace("@jobs@", &jobs)
}

/// Writes a name as SQL wants it, whatever is in it.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
