//! Tables for people: aligned, one line per row, as wide as the terminal, and coloured only on one.

use std::io::{IsTerminal, stdout};

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::super::{
    moment::{age, relative},
    output::Text,
};
use crate::{
    escape,
    queue::{JobState, StoredJob},
};

/// The most of a payload or an error that a line shows where nothing limits its width.
const LONGEST_CELL: usize = 120;

/// The same for all columns but the last, on a terminal.
const LONGEST_ON_TERMINAL: usize = 32;
/// What is left for the last column even if the line then is wider than the terminal.
const NARROWEST_DETAILS: u16 = 12;
/// Between two columns.
const GAP: u16 = 2;

/// A column: its title, and what it says of a job; it is left out where it says nothing of any.
type Column = (&'static str, fn(&StoredJob) -> String);

const COLUMNS: [Column; 9] = [
    ("ID", |job| job.id.to_string()),
    ("STATE", |job| job.state.to_string()),
    ("TASK", |job| if job.task_identifier.is_empty() { "?".to_owned() } else { job.task_identifier.clone() }),
    ("RUNS", |job| match job.state {
        JobState::Running => job.locked_at.map(|since| format!("since {}", age(since))).unwrap_or_default(),
        JobState::Failed => "never".to_owned(),
        _ => relative(job.run_at),
    }),
    // A job that fails for good loses the attempts that it has left, and they count as used.
    ("TRIED", |job| match job.state {
        JobState::Failed => format!("-/{}", job.max_attempts),
        _ => format!("{}/{}", job.attempts, job.max_attempts),
    }),
    ("PRIO", |job| if job.priority == 0 { String::new() } else { job.priority.to_string() }),
    ("QUEUE", |job| job.queue_name.clone().unwrap_or_default()),
    ("KEY", |job| job.key.clone().unwrap_or_default()),
    ("DETAILS", details),
];

/// The job with no more of its texts than a line shows, so that a long list of large jobs fits into the memory.
pub(super) fn shorten(mut job: StoredJob) -> StoredJob {
    for text in [Some(&mut job.payload), job.last_error.as_mut()].into_iter().flatten() {
        if let Some((end, _)) = text.char_indices().nth(LONGEST_CELL + 1) {
            text.truncate(end);
            text.shrink_to_fit();
        }
    }
    job
}

/// One line per job.
pub(super) fn job_table(jobs: &[StoredJob]) -> Text {
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|(_, cell)| jobs.iter().any(|job| !cell(job).is_empty())).collect();
    let rows = jobs.iter().map(|job| columns.iter().map(|(_, cell)| cell(job)).collect()).collect();
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let text = lines_of(&titles, rows);
    if !is_coloured() {
        return Text::escaped(text);
    }
    let mut lines = text.lines();
    let mut painted = lines.next().map_or_else(String::new, |title| format!("\x1b[1m{title}\x1b[0m\n"));
    for (line, job) in lines.zip(jobs) {
        // The first column is a number, so the first place where the state's name stands is its own.
        let state = job.state.as_str();
        painted.push_str(&line.replacen(state, &format!("\x1b[{}m{state}\x1b[0m", colour_of(job.state)), 1));
        painted.push('\n');
    }
    Text::escaped(painted)
}

/// What is most worth knowing of a job in its state.
fn details(job: &StoredJob) -> String {
    match (job.state, &job.locked_by, &job.last_error) {
        (JobState::Running, Some(worker), _) => format!("by {worker}"),
        (JobState::Failed | JobState::Retrying, _, Some(error)) => error.clone(),
        _ => job.payload.clone(),
    }
}

/// Rows below titles.
pub(super) fn table(titles: &[&str], rows: Vec<Vec<String>>) -> Text {
    Text::escaped(lines_of(titles, rows))
}

/// Rows below titles, with everything escaped that is not visible. On a terminal the last column is cut to what is left of the width, and says so by three dots.
fn lines_of(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let terminal = terminal_size::terminal_size_of(stdout()).map(|(width, _)| width.0);
    let last = titles.len().saturating_sub(1);
    let longest = |column: usize| if column < last && terminal.is_some() { LONGEST_ON_TERMINAL } else { LONGEST_CELL };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().enumerate().map(|(column, text)| cut(text, longest(column))).collect())
        .collect();
    let numeric = |column: usize| {
        rows.iter().all(|row| row[column].chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '/' | '~' | '<')))
    };
    let aligned = |column: usize, text: &str| {
        Cell::new(text).set_alignment(if numeric(column) { CellAlignment::Right } else { CellAlignment::Left })
    };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(titles.iter().enumerate().map(|(column, title)| aligned(column, title)));
    for row in &rows {
        let mut row = Row::from(row.iter().enumerate().map(|(column, text)| aligned(column, text)));
        row.max_height(1);
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
        if column.index < last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if let Some(width) = terminal {
        let widths = table.column_max_content_widths();
        let before_last: u16 = widths.iter().take(last).map(|width| width + GAP).sum();
        table.set_width(width.max(before_last + NARROWEST_DETAILS));
    }
    table.trim_fmt() + "\n"
}

fn cut(text: &str, longest: usize) -> String {
    let line = escape::line(text);
    if line.chars().count() <= longest {
        return line.into_owned();
    }
    line.chars().take(longest).chain("...".chars()).collect()
}

fn is_coloured() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn colour_of(state: JobState) -> &'static str {
    match state {
        JobState::Ready => "32",
        JobState::Scheduled => "34",
        JobState::Running => "36",
        JobState::Retrying => "33",
        JobState::Failed => "31",
    }
}
