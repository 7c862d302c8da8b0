//! Work that blocks, off the threads that run everything else.

use std::{future::pending, panic::resume_unwind};

/// Does work that waits for files, or computes for long, on a thread of its own. Dropping the future does not end the work.
pub(crate) async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down, and whoever waits goes with it.
            Err(_) => pending().await,
        },
    }
}
