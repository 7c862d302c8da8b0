//! Imports a file row by row: reports progress, adds follow-up jobs, stops when told to, and goes on where it was.

use std::path::{Path, PathBuf};

use taskbay_plugin::{
    prelude::*,
    tokio::{
        fs,
        io::{AsyncBufReadExt, BufReader},
        time::{Duration, sleep},
    },
};

/// How many rows lie between two notes of how far it is.
const NOTE_EVERY: u64 = 100;

#[derive(Deserialize)]
struct ImportCsv {
    file: PathBuf,
    /// The task that each row becomes a job of.
    row_task: String,
    /// A pause after each row, to go easy on what the rows are for.
    #[serde(default)]
    pause_ms: u64,
}

/// Turns each row of a CSV file into a job.
#[task(name = "import-csv")]
async fn import_csv(ctx: Context, import: ImportCsv) -> TaskResult {
    let note = note_file(&import.file);
    let done_before = fs::read_to_string(&note).await.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let file =
        fs::File::open(&import.file).await.map_err(|error| TaskError::from(error).context(import.file.display()))?;
    let mut lines = BufReader::new(file).lines();
    let header = lines.next_line().await?.ok_or_else(|| TaskError::discard("the file is empty"))?;
    let columns: Vec<&str> = header.split(',').collect();
    let mut row = 0;
    while let Some(line) = lines.next_line().await? {
        row += 1;
        if row <= done_before {
            continue;
        }
        // The key makes a row that is imported again after a crash the same job.
        let key = format!("{}:{row}", import.file.display());
        ctx.add_job(&import.row_task, object(&columns, &line)).key(key).await?;
        if row % NOTE_EVERY == 0 {
            fs::write(&note, row.to_string()).await?;
            info!(row, "progress");
        }
        if ctx.is_cancelled() {
            fs::write(&note, row.to_string()).await?;
            return Err(TaskError::new(format_args!("stopped after row {row}; the next attempt goes on from there")));
        }
        if import.pause_ms > 0 {
            sleep(Duration::from_millis(import.pause_ms)).await;
        }
    }
    let _ = fs::remove_file(&note).await;
    info!(rows = row, "imported");
    Ok(())
}

fn note_file(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.progress", file.display()))
}

/// A row as an object of its columns. Quoted fields are beyond this example; the `csv` crate knows them.
fn object(columns: &[&str], line: &str) -> std::collections::BTreeMap<String, String> {
    columns
        .iter()
        .zip(line.split(','))
        .map(|(column, value)| (column.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

plugin!(import_csv);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_an_object_of_its_columns() {
        let row = object(&["name", "city"], "Ada, London");
        assert_eq!(row["name"], "Ada");
        assert_eq!(row["city"], "London");
    }
}
