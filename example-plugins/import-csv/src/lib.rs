//! Imports a table row by row: adds a job for each, reports progress, and stops between rows when told to.

use std::{collections::BTreeMap, fs, path::PathBuf};

use taskbay_plugin::{prelude::*, serde_json};

#[derive(Deserialize)]
struct ImportCsv {
    /// The table; its first line has the names of the columns.
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct ImportRow {
    folder: PathBuf,
    line: u64,
    row: BTreeMap<String, String>,
}

/// How many rows lie between two lines of progress in the log.
const REPORT_EVERY: u64 = 100;

/// Adds a job for each row of a CSV file.
#[task(max_attempts = 3)]
fn import_csv(ctx: Context, import: ImportCsv) -> TaskResult {
    let path = import.path.display();
    let size = fs::metadata(&import.path).or_fail(format_args!("cannot read {path}"))?.len().max(1);
    let mut table = csv::Reader::from_path(&import.path).or_fail(format_args!("cannot read {path}"))?;
    let columns = table.headers().or_fail(format_args!("cannot read the columns of {path}"))?.clone();
    let folder = rows_folder(&import.path);
    fs::create_dir_all(&folder).or_fail(format_args!("cannot make {}", folder.display()))?;

    let mut record = csv::StringRecord::new();
    let mut rows = 0;
    while table.read_record(&mut record).or_discard(format_args!("{path} is not a table"))? {
        if ctx.is_cancelled() {
            bail!("cancelled after {rows} rows of {path}");
        }
        let line = record.position().map_or(0, csv::Position::line);
        let row = columns.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect();
        // The key keeps another attempt from adding a row that still waits; one that is done already does no harm when
        // it is done again.
        let key = format!("import:{}:{line}", ctx.id());
        ctx.add_job("import_row", &ImportRow { folder: folder.clone(), line, row }).key(key).wait()?;
        rows += 1;
        if rows % REPORT_EVERY == 0 {
            info!(rows, percent = 100 * table.position().byte() / size, %path, "importing");
        }
    }
    info!(rows, percent = 100, %path, "imported");
    Ok(())
}

/// Stores one row, as a file that is named after its line in the table.
#[task(timeout = "10s")]
fn import_row(row: ImportRow) -> TaskResult {
    let file = row.folder.join(format!("{}.json", row.line));
    fs::write(&file, serde_json::to_vec(&row.row)?).or_fail(format_args!("cannot write {}", file.display()))
}

fn rows_folder(path: &std::path::Path) -> PathBuf {
    let mut folder = path.to_owned().into_os_string();
    folder.push(".rows");
    folder.into()
}

plugin!(import_csv, import_row);

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::TestJob;

    use super::*;

    #[test]
    fn each_row_becomes_a_job_which_stores_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.csv");
        fs::write(&path, "name,city\nAda,London\n\"Bob, jr\",Łódź\n").unwrap();
        let job = TestJob::new().id(9);
        import_csv(job.context(), ImportCsv { path }).unwrap();
        let added = job.added();
        assert_eq!(added.len(), 2);
        assert_eq!(added[1]["job_key"], "import:9:3");
        assert_eq!(added[1]["payload"]["row"], json!({ "name": "Bob, jr", "city": "Łódź" }));

        import_row(serde_json::from_value(added[1]["payload"].clone()).unwrap()).unwrap();
        let stored = fs::read_to_string(folder.path().join("people.csv.rows/3.json")).unwrap();
        assert_eq!(stored, r#"{"city":"Łódź","name":"Bob, jr"}"#);
    }

    #[test]
    fn it_stops_between_rows_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.csv");
        fs::write(&path, "name\nAda\nBob\n").unwrap();
        let job = TestJob::new();
        job.cancel();
        let error = import_csv(job.context(), ImportCsv { path }).unwrap_err();
        assert!(error.to_string().starts_with("cancelled after 0 rows"));
        assert!(job.added().is_empty());
    }

    #[test]
    fn a_file_that_is_no_table_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.csv");
        fs::write(&path, "name,city\nAda\n").unwrap();
        assert!(import_csv(TestJob::new().context(), ImportCsv { path }).unwrap_err().is_discard());
    }
}
