//! The queue of jobs that have not started, and the workers that start them.
//!
//! A worker is a task of the runtime that starts jobs one after the other. A job that never waits thus costs neither a task
//! of its own nor a wake-up of a thread. A job may occupy its worker for long. Therefore, as long as jobs are queued, at least
//! one worker is called, that is, about to take a job.
//!
//! A job may even occupy its thread, and the runtime does not let other threads steal the task that this thread woke last.
//! Therefore `push`, called from outside the runtime, calls as many workers as there are threads.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// The number of jobs that a worker starts before it yields to the other tasks of its thread.
const IN_A_ROW: usize = 32;

/// The jobs that have not started.
pub(crate) struct RunQueue<T> {
    threads: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<T>,
    workers: Vec<Activity>,
    /// The number of called workers.
    called: usize,
    /// The numbers of the idle workers.
    idle: Vec<usize>,
    /// The number of jobs taken so far.
    taken: u64,
}

/// The current activity of a worker.
#[derive(Debug)]
enum Activity {
    /// Waits to be called.
    Idle(Waker),
    /// Is about to take a job.
    Called,
    /// Was called and did not come, because a job blocks its thread. It may come later.
    Missing,
    /// Runs a job.
    Working,
}

/// A worker; a new one counts as called.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    in_a_row: usize,
}

impl<T> RunQueue<T> {
    /// A queue for a runtime with this number of threads.
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { waiting: VecDeque::new(), workers: Vec::new(), called: 0, idle: Vec::new(), taken: 0 };
        Self { threads, state: Mutex::new(state) }
    }

    /// Adds a job. The caller must run the returned worker.
    #[must_use]
    pub(crate) fn offer(&self, job: T) -> Option<Worker> {
        let mut state = self.lock();
        state.waiting.push_back(job);
        let call = state.call(self.threads);
        drop(state);
        call.and_then(Call::make)
    }

    /// The number of jobs taken so far, if others are queued. If it stays the same, the called workers are blocked.
    pub(crate) fn taken_while_others_wait(&self) -> Option<u64> {
        let state = self.lock();
        (!state.waiting.is_empty()).then_some(state.taken)
    }

    /// Marks the called workers as missing, and calls another one for the queued jobs. The caller must run the returned
    /// worker, from outside the runtime.
    #[must_use]
    pub(crate) fn call_another(&self) -> Option<Worker> {
        let mut state = self.lock();
        for worker in state.workers.iter_mut().filter(|worker| matches!(worker, Activity::Called)) {
            *worker = Activity::Missing;
        }
        state.called = 0;
        let call = state.call(1);
        drop(state);
        call.and_then(Call::make)
    }

    /// Waits for a job. The caller must run the returned worker before it starts the job.
    pub(crate) async fn next(&self, worker: &mut Worker) -> (T, Option<Worker>) {
        worker.in_a_row += 1;
        if worker.in_a_row > IN_A_ROW {
            worker.in_a_row = 1;
            self.lock().come_back(worker.number);
            last_in_line().await;
        }
        let taken = poll_fn(|context| {
            let mut state = self.lock();
            match state.take(worker.number) {
                Some(taken) => Poll::Ready(taken),
                None => {
                    state.rest(worker.number, context.waker());
                    Poll::Pending
                }
            }
        });
        taken.await.make()
    }

    /// Makes the worker yield before its next job, because it has woken a task that a blocking job must not delay.
    pub(crate) fn has_called(&self, worker: &mut Worker) {
        worker.in_a_row = IN_A_ROW;
    }

    /// Removes and returns all queued jobs.
    pub(crate) fn clear(&self) -> VecDeque<T> {
        mem::take(&mut self.lock().waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call for a worker, to be made without holding the lock.
enum Call {
    Wake(Waker),
    Spawn(usize),
}

/// A job, and a call to make before it starts.
struct Taken<T> {
    job: T,
    call: Option<Call>,
}

impl<T> Taken<T> {
    fn make(self) -> (T, Option<Worker>) {
        (self.job, self.call.and_then(Call::make))
    }
}

impl Call {
    fn make(self) -> Option<Worker> {
        match self {
            Self::Wake(waker) => {
                waker.wake();
                None
            }
            Self::Spawn(number) => Some(Worker { number, in_a_row: 0 }),
        }
    }
}

impl<T> State<T> {
    /// Calls a worker if fewer than `most` are called for the queued jobs.
    fn call(&mut self, most: usize) -> Option<Call> {
        if self.called >= most.min(self.waiting.len()) {
            return None;
        }
        self.called += 1;
        let Some(number) = self.idle.pop() else {
            self.workers.push(Activity::Called);
            return Some(Call::Spawn(self.workers.len() - 1));
        };
        match mem::replace(&mut self.workers[number], Activity::Called) {
            Activity::Idle(waker) => Some(Call::Wake(waker)),
            Activity::Called | Activity::Missing | Activity::Working => None,
        }
    }

    /// Marks a worker as about to take its next job.
    fn come_back(&mut self, worker: usize) {
        if matches!(self.workers[worker], Activity::Working) {
            self.workers[worker] = Activity::Called;
            self.called += 1;
        }
    }

    fn take(&mut self, worker: usize) -> Option<Taken<T>> {
        let job = self.waiting.pop_front()?;
        self.taken += 1;
        self.leave(worker, Activity::Working);
        Some(Taken { job, call: self.call(1) })
    }

    fn rest(&mut self, worker: usize, waker: &Waker) {
        self.leave(worker, Activity::Idle(waker.clone()));
        self.idle.push(worker);
    }

    fn leave(&mut self, worker: usize, now: Activity) {
        match mem::replace(&mut self.workers[worker], now) {
            Activity::Called => self.called -= 1,
            // Woken by something else, such as an event that a job it started was waiting for.
            Activity::Idle(_) => self.idle.retain(|idle| *idle != worker),
            Activity::Missing | Activity::Working => {}
        }
    }
}

/// Yields to all other tasks. `tokio::task::yield_now` would stay on this thread, even if the next task blocks it.
async fn last_in_line() {
    let mut been = false;
    poll_fn(|context| {
        if mem::replace(&mut been, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<T> fmt::Debug for RunQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("RunQueue")
            .field("waiting", &state.waiting.len())
            .field("workers", &state.workers.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The job that a worker gets now, and the worker to spawn with it.
    fn look(run_queue: &RunQueue<u32>, worker: &mut Worker, woken: &Arc<Woken>) -> Option<(u32, Option<Worker>)> {
        let waker = Waker::from(Arc::clone(woken));
        match pin!(run_queue.next(worker)).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_worker_is_spawned_for_the_first_job_and_called_again_for_a_later_one() {
        let (run_queue, woken) = (RunQueue::new(1), Arc::new(Woken::default()));
        let mut worker = run_queue.offer(1).expect("a worker to spawn");
        assert!(run_queue.offer(2).is_none(), "a worker is already called");
        let (first, second_worker) = look(&run_queue, &mut worker, &woken).expect("a job");
        assert_eq!(first, 1);
        assert!(second_worker.is_some(), "the first job may occupy its worker while the second one waits");
        let (second, third_worker) = look(&run_queue, &mut worker, &woken).expect("a job");
        assert_eq!(second, 2);
        assert!(third_worker.is_none(), "nothing waits");
        assert!(look(&run_queue, &mut second_worker.unwrap(), &woken).is_none());
        assert!(look(&run_queue, &mut worker, &woken).is_none());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert!(run_queue.offer(3).is_none());
        assert!(run_queue.offer(4).is_none());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "one for both");
    }

    #[test]
    fn jobs_behind_one_that_occupies_its_worker_are_taken_by_others() {
        let (run_queue, woken) = (RunQueue::new(1), Arc::new(Woken::default()));
        let mut workers = vec![run_queue.offer(0).expect("a worker")];
        // No worker comes back.
        for job in 0..5 {
            let mut worker = workers.pop().expect("a worker was called for this job");
            assert_eq!(look(&run_queue, &mut worker, &woken).expect("the job").0, job);
            workers.extend(run_queue.offer(job + 1));
        }
    }

    #[test]
    fn there_is_a_worker_for_each_thread_from_the_start() {
        let run_queue = RunQueue::new(3);
        let spawned = (0..10).filter_map(|job| run_queue.offer(job)).count();
        assert_eq!(spawned, 3);
    }

    #[test]
    fn a_worker_with_a_spurious_wake_up_takes_a_queued_job_and_is_not_called_in_vain() {
        let (run_queue, woken) = (RunQueue::new(1), Arc::new(Woken::default()));
        let mut worker = run_queue.offer(1).expect("a worker");
        assert!(look(&run_queue, &mut worker, &woken).is_some());
        for _ in 0..3 {
            assert!(look(&run_queue, &mut worker, &woken).is_none());
        }
        assert!(run_queue.offer(2).is_none());
        assert_eq!(look(&run_queue, &mut worker, &woken).expect("the job").0, 2);
        assert!(run_queue.offer(3).is_some(), "the only worker is busy");
    }

    #[test]
    fn missing_workers_are_replaced_and_may_come_later() {
        let (run_queue, woken) = (RunQueue::new(1), Arc::new(Woken::default()));
        let mut first = run_queue.offer(0).expect("a worker");
        assert!(run_queue.call_another().is_some_and(|mut second| look(&run_queue, &mut second, &woken).is_some()));
        assert_eq!(run_queue.taken_while_others_wait(), None);
        let mut third = run_queue.offer(1).expect("a worker in place of the missing one");
        assert!(run_queue.offer(2).is_none());
        assert_eq!(run_queue.taken_while_others_wait(), Some(1));
        assert_eq!(look(&run_queue, &mut first, &woken).expect("a job").0, 1);
        assert_eq!(look(&run_queue, &mut third, &woken).expect("a job").0, 2);
        assert!(run_queue.call_another().is_none(), "nothing waits");
    }

    #[test]
    fn after_many_jobs_in_a_row_the_other_tasks_get_their_turn() {
        let (run_queue, woken) = (RunQueue::new(1), Arc::new(Woken::default()));
        let mut worker = run_queue.offer(0).expect("a worker");
        let mut others: Vec<Worker> = (1..100).filter_map(|job| run_queue.offer(job)).collect();
        let mut taken = 0;
        while let Some((job, spawned)) = look(&run_queue, &mut worker, &woken) {
            assert_eq!(job, taken);
            others.extend(spawned);
            taken += 1;
        }
        assert_eq!(taken as usize, IN_A_ROW);
        assert_eq!(others.len(), 1);
    }

    #[test]
    fn jobs_that_have_not_started_can_be_removed() {
        let run_queue = RunQueue::new(1);
        let _hand = run_queue.offer(7);
        assert_eq!(run_queue.clear(), [7]);
    }
}
