//! The thread that starts all processes of plugins and executables.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError, mpsc},
};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

/// Starts a process from a dedicated thread: the kernel treats the end of the thread that started a process as the end of
/// its parent.
pub(super) async fn spawn(command: Command) -> std::io::Result<Child> {
    let (sender, reply) = oneshot::channel();
    let not_started = || std::io::Error::other("the thread that starts processes could not start this one");
    spawner()?.send((command, Handle::current(), sender)).map_err(|_| not_started())?;
    reply.await.map_err(|_| not_started())?
}

type SpawnRequest = (Command, Handle, oneshot::Sender<std::io::Result<Child>>);

/// The channel to the thread, which is started on first use.
fn spawner() -> std::io::Result<mpsc::Sender<SpawnRequest>> {
    static THREAD: Mutex<Option<mpsc::Sender<SpawnRequest>>> = Mutex::new(None);
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = &*thread {
        return Ok(thread.clone());
    }
    let (sender, requests) = mpsc::channel::<SpawnRequest>();
    let work = move || {
        for (mut command, runtime, reply) in requests {
            // tokio panics while its runtime shuts down, and the end of this thread would kill all children.
            let spawned = catch_unwind(AssertUnwindSafe(|| {
                let _inside = runtime.enter();
                command.spawn()
            }));
            // If the receiver is gone, the child is dropped and thus killed.
            if let Ok(spawned) = spawned {
                let _ = reply.send(spawned);
            }
        }
    };
    std::thread::Builder::new().name("taskbay-spawner".to_owned()).spawn(work)?;
    Ok(thread.insert(sender).clone())
}
