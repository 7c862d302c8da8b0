//! A statement over many rows that the database refuses because of some of them is run on parts of them, until those are found.

use std::ops::Range;

use super::QueueError;

/// What is left to run of so many rows.
#[derive(Debug)]
pub(crate) struct Bisection {
    left: Vec<Range<usize>>,
    refused: Vec<(usize, QueueError)>,
    /// How many more statements may be sent.
    tries: usize,
}

/// What has become of rows that were run part by part, by their places. The others went through.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) refused: Vec<(usize, QueueError)>,
    pub(crate) untried: Vec<usize>,
}

impl Apart {
    /// What was refused, by ids instead of places.
    pub(crate) fn refused_of<Id: Copy>(self, ids: &[Id]) -> impl Iterator<Item = (Id, QueueError)> {
        self.refused.into_iter().map(|(place, error)| (ids[place], error))
    }
}

impl Bisection {
    /// Of rows that were refused as a whole. `tries` bounds the statements: one bad row among a thousand takes about twenty.
    pub(crate) fn new(rows: usize, tries: usize) -> Self {
        let mut parts = Self { left: Vec::new(), refused: Vec::new(), tries };
        match rows {
            0 => {}
            1 => parts.left.push(0..1),
            rows => parts.split(0..rows),
        }
        parts
    }

    /// The next part to run. `None`: everything was run, or too much.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        self.tries = self.tries.checked_sub(1)?;
        self.left.pop()
    }

    /// The part was run. Any other error than a refusal ends it all.
    pub(crate) fn ran(&mut self, part: Range<usize>, result: Result<(), QueueError>) -> Result<(), QueueError> {
        match result {
            Err(error) if error.is_refusal() => {
                let row = self.refused_row(part);
                self.refused.extend(row.map(|row| (row, error)));
                Ok(())
            }
            other => other,
        }
    }

    /// What has become of all, once [`Bisection::next`] has given nothing.
    pub(crate) fn end(self) -> Apart {
        Apart { refused: self.refused, untried: self.left.into_iter().flatten().collect() }
    }

    /// The row, if the part is a single one; otherwise its halves are next.
    fn refused_row(&mut self, part: Range<usize>) -> Option<usize> {
        if part.len() == 1 {
            return Some(part.start);
        }
        self.split(part);
        None
    }

    fn split(&mut self, part: Range<usize>) {
        let middle = part.start + part.len() / 2;
        self.left.push(middle..part.end);
        self.left.push(part.start..middle);
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::error::SqlState;

    use super::*;

    fn refusal() -> QueueError {
        QueueError::Refused { what: "x", reason: String::new(), code: SqlState::CHECK_VIOLATION }
    }

    /// Which rows are found to be refused, which are not reached, and by how many statements.
    fn run(rows: usize, tries: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut parts = Bisection::new(rows, tries);
        let (mut passed, mut statements) = (0, 0);
        while let Some(part) = parts.next() {
            statements += 1;
            let refused = bad.iter().any(|row| part.contains(row));
            passed += if refused { 0 } else { part.len() };
            parts.ran(part, if refused { Err(refusal()) } else { Ok(()) }).unwrap();
        }
        let Apart { refused, untried } = parts.end();
        let found: Vec<usize> = refused.into_iter().map(|(row, _)| row).collect();
        assert_eq!(passed + found.len() + untried.len(), rows, "each row is run, refused or left");
        (found, untried, statements)
    }

    #[test]
    fn the_refused_rows_are_found_by_few_statements() {
        assert_eq!(run(1, 10, &[0]), (vec![0], vec![], 1));
        assert_eq!(run(0, 10, &[]), (vec![], vec![], 0));
        let (found, untried, statements) = run(1_000, 1_000, &[3, 700]);
        assert_eq!((found, untried), (vec![3, 700], vec![]));
        assert!(statements <= 40, "{statements}");
    }

    #[test]
    fn where_all_are_refused_the_rest_is_left() {
        let bad: Vec<usize> = (0..1_000).collect();
        let (found, untried, statements) = run(1_000, 100, &bad);
        assert_eq!(statements, 100);
        assert!(found.len() >= 40 && untried.len() == 1_000 - found.len(), "{}", found.len());
    }
}
