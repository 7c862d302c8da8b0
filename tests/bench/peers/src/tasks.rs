//! What the jobs do: nothing, sleep a millisecond, fail one in ten, or note the time at which they began.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::OnceLock,
    time::Duration,
};

use crate::clock;

/// Whether it succeeded.
pub async fn run(task: &str, n: i64) -> Result<(), String> {
    match task {
        "noop" => Ok(()),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(())
        }
        "fail" if n % 10 == 0 => Err("one in ten".to_owned()),
        "fail" => Ok(()),
        "stamp" => {
            stamp(n);
            Ok(())
        }
        other => Err(format!("no task {other}")),
    }
}

/// Writes the number and this moment to the file or pipe BENCH_STAMPS.
fn stamp(n: i64) {
    static FILE: OnceLock<File> = OnceLock::new();
    let now = clock::now();
    let mut file = FILE.get_or_init(|| {
        let path = std::env::var("BENCH_STAMPS").expect("BENCH_STAMPS names a file or pipe");
        OpenOptions::new().append(true).open(path).expect("open the file for the stamps")
    });
    file.write_all(format!("{n} {now}\n").as_bytes()).expect("write a stamp");
}
