//! The conditions of a claim.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

/// Conditions that exclude waiting jobs from a claim.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Jobs with any of these flags stay.
    pub forbidden_flags: &'a [String],
    /// The current time; `None` for the database's clock. Locks always get the database's time, because other programs judge
    /// their age by it.
    pub now: Option<SystemTime>,
    /// Jobs with these ids stay. Each costs every claim something.
    pub left_out: &'a [i64],
}

impl<'a> Conditions<'a> {
    /// The parameters that the conditions add to a statement.
    pub(super) fn parameters(&'a self) -> impl Iterator<Item = (&'a (dyn ToSql + Sync), Type)> {
        let flags = (!self.forbidden_flags.is_empty())
            .then_some((&self.forbidden_flags as &'a (dyn ToSql + Sync), Type::TEXT_ARRAY));
        let now = self.now.as_ref().map(|now| (now as &'a (dyn ToSql + Sync), Type::TIMESTAMPTZ));
        let left_out =
            (!self.left_out.is_empty()).then_some((&self.left_out as &'a (dyn ToSql + Sync), Type::INT8_ARRAY));
        flags.into_iter().chain(now).chain(left_out)
    }
}
