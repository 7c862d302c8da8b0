//! The tasks of the benchmark as a Taskbay plugin: the same as in `tasks.rs` of the peers.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::OnceLock,
    time::Duration,
};

use taskbay_plugin::{prelude::*, tokio};

#[derive(Deserialize)]
struct Number {
    n: i64,
}

#[task]
async fn noop(_number: Number) {}

#[task]
async fn sleep(_number: Number) {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[task]
async fn fail(number: Number) -> TaskResult {
    if number.n % 10 == 0 {
        bail!("one in ten");
    }
    Ok(())
}

#[task]
async fn stamp(number: Number) {
    static FILE: OnceLock<File> = OnceLock::new();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value that lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let mut file = FILE.get_or_init(|| {
        let path = std::env::var("BENCH_STAMPS").expect("BENCH_STAMPS names a file or pipe");
        OpenOptions::new().append(true).open(path).expect("open the file for the stamps")
    });
    let line = format!("{} {}\n", number.n, now.tv_sec * 1_000_000_000 + now.tv_nsec);
    file.write_all(line.as_bytes()).expect("write a stamp");
}

plugin!(noop, sleep, fail, stamp);
