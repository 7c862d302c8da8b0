//! What row-level security and privileges keep from a role, and what its owner can do about it.

use std::fmt::Write as _;

use thiserror::Error;

use super::placeholders::quote_identifier;

/// The table that only the revision of the schema is read from.
pub(super) const MIGRATIONS: &str = "migrations";

/// What a role may not do with the private tables: row-level security keeps rows from it, or it lacks privileges. After the first
/// line, the message has the statements that change this, one on each line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", sentence(self))]
pub struct RowSecurityError {
    pub(super) role: String,
    pub(super) owner: String,
    /// The role is, or may act as, the owner.
    pub(super) owned: bool,
    pub(super) database: String,
    pub(super) schema: String,
    /// The role may use the schema.
    pub(super) usage: bool,
    pub(super) limits: Vec<Limit>,
}

/// A command on a table that the role may not use, or not for all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) table: String,
    pub(super) command: String,
    /// Row-level security does not certainly allow it for all rows.
    pub(super) secured: bool,
    /// A policy allows it for some rows, and perhaps for all: this program cannot tell.
    pub(super) some: bool,
    /// The role has the privilege, at least for some columns.
    pub(super) granted: bool,
}

impl RowSecurityError {
    /// There are rows that the role sees or may change: each command is allowed for some.
    pub fn is_partial(&self) -> bool {
        self.usage && self.limits.iter().all(|limit| limit.granted && limit.some)
    }

    /// The role cannot even read the revision of the schema.
    pub(crate) fn hides_migrations(&self) -> bool {
        !self.usage || self.limits.iter().any(|limit| limit.table == MIGRATIONS)
    }
}

fn sentence(error: &RowSecurityError) -> String {
    let RowSecurityError { role, owner, owned, database, schema, usage, limits } = error;
    let secured: Vec<&Limit> = limits.iter().filter(|limit| limit.secured).collect();
    let lacking: Vec<&Limit> = limits.iter().filter(|limit| !limit.granted).collect();
    let mut text = format!("role {role} ");
    match (secured.is_empty(), owned) {
        (true, _) => {
            let _ = write!(text, "lacks privileges in schema {schema} of {database}");
        }
        (false, true) => {
            let _ = write!(
                text,
                "owns the tables of schema {schema} in {database}, but row-level security is forced on them"
            );
        }
        (false, false) => {
            let _ =
                write!(text, "does not own the tables of schema {schema} in {database}, which have row-level security");
        }
    }
    if !secured.is_empty() {
        let certain = if error.is_partial() { "no policy is certain to allow it" } else { "no policy allows it" };
        let _ = write!(text, ", and {certain} to {}", commands_by_table(&secured, "all rows of "));
        if !error.is_partial() {
            text.push_str(", so that it would find no jobs, or could not change them");
        }
    } else if !usage {
        text.push_str(": it may not use the schema");
    } else {
        let _ = write!(text, ": it may not {}", commands_by_table(&lacking, ""));
    }
    match owned {
        true => {
            let _ = write!(text, ". As {role}, lift it:");
        }
        false => {
            let _ = write!(text, ". Connect as {owner}, or let {owner} allow it:");
        }
    }
    for statement in statements(error, &secured, &lacking) {
        let _ = write!(text, "\n{statement}");
    }
    text
}

/// What the owner can do about it.
fn statements(error: &RowSecurityError, secured: &[&Limit], lacking: &[&Limit]) -> Vec<String> {
    let RowSecurityError { role, owned, schema, usage, .. } = error;
    let (quoted, schema) = (quote_identifier(role), quote_identifier(schema));
    let mut statements = Vec::new();
    if !usage {
        statements.push(format!("grant usage on schema {schema} to {quoted};"));
    }
    for (commands, tables) in by_commands(lacking) {
        let tables: Vec<String> = tables.iter().map(|table| format!("{schema}.{table}")).collect();
        statements.push(format!("grant {} on {} to {quoted};", commands.join(", "), tables.join(", ")));
    }
    let mut tables: Vec<&str> = secured.iter().map(|limit| limit.table.as_str()).collect();
    tables.dedup();
    // A policy of its own for each role, because a table has one of a name.
    let policy = quote_identifier(&format!("taskbay_{role}"));
    statements.extend(tables.iter().map(|table| match owned {
        true => format!("alter table {schema}.{table} no force row level security;"),
        false => format!("create policy {policy} on {schema}.{table} to {quoted} using (true) with check (true);"),
    }));
    statements
}

/// `select, update and delete all rows of _private_jobs, and to select all rows of _private_tasks`
fn commands_by_table(limits: &[&Limit], rows: &str) -> String {
    let part = |(commands, tables): (Vec<&str>, Vec<&str>)| format!("{} {rows}{}", listed(&commands), listed(&tables));
    let parts: Vec<String> = by_commands(limits).into_iter().map(part).collect();
    parts.join(if rows.is_empty() { ", and not " } else { ", and to " })
}

/// The tables on which the same commands are limited.
fn by_commands<'a>(limits: &[&'a Limit]) -> Vec<(Vec<&'a str>, Vec<&'a str>)> {
    let mut parts: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for chunk in limits.chunk_by(|one, other| one.table == other.table) {
        let commands: Vec<&str> = chunk.iter().map(|limit| limit.command.as_str()).collect();
        match parts.iter_mut().find(|(known, _)| *known == commands) {
            Some((_, tables)) => tables.push(&chunk[0].table),
            None => parts.push((commands, vec![&chunk[0].table])),
        }
    }
    parts
}

/// `a, b and c`
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
