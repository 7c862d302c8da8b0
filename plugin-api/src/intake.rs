//! Where jobs wait for a thread of the plugin, and the hands that take them from there.
//!
//! A hand is a task of the runtime that begins one job after the other, so that a job which waits for nothing costs
//! neither a task of its own nor the waking of a thread. A job may keep its hand for long. Therefore, whenever jobs wait,
//! there is a hand that has been called and has not taken anything since.
//!
//! A job may even keep its thread, and the runtime leaves what that thread called last to this thread alone. Therefore
//! whoever offers jobs, from outside, calls as many hands as there are threads.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// So many jobs are begun by one hand before the other tasks of its thread get their turn.
const IN_A_ROW: usize = 32;

/// Jobs that nobody has begun.
pub(crate) struct Intake<T> {
    threads: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<T>,
    hands: Vec<Doing>,
    /// How many hands are called.
    called: usize,
    /// Which of the hands are idle.
    idle: Vec<usize>,
    /// How many jobs were taken so far.
    taken: u64,
}

/// What a hand does.
#[derive(Debug)]
enum Doing {
    /// Waits to be called.
    Idle(Waker),
    /// Is about to look for a job.
    Called,
    /// Was called and did not come: it is behind a job that keeps its thread. It may come later.
    Missing,
    /// Begins one.
    Working,
}

/// One who takes jobs. A new one has been called.
#[derive(Debug)]
pub(crate) struct Hand {
    number: usize,
    in_a_row: usize,
}

impl<T> Intake<T> {
    /// For a runtime of so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { waiting: VecDeque::new(), hands: Vec::new(), called: 0, idle: Vec::new(), taken: 0 };
        Self { threads, state: Mutex::new(state) }
    }

    /// Adds a job. If a hand is given back, it has to be put to work.
    #[must_use]
    pub(crate) fn offer(&self, job: T) -> Option<Hand> {
        let mut state = self.lock();
        state.waiting.push_back(job);
        let call = state.call(self.threads);
        drop(state);
        call.and_then(Call::make)
    }

    /// How many jobs were taken so far, if others wait. If that stays the same, those that were called do not come.
    pub(crate) fn taken_while_others_wait(&self) -> Option<u64> {
        let state = self.lock();
        (!state.waiting.is_empty()).then_some(state.taken)
    }

    /// Reckons no longer with the hands that are called, and calls another one for what waits. If it is given back, it has to
    /// be put to work, from outside.
    #[must_use]
    pub(crate) fn call_another(&self) -> Option<Hand> {
        let mut state = self.lock();
        for hand in state.hands.iter_mut().filter(|hand| matches!(hand, Doing::Called)) {
            *hand = Doing::Missing;
        }
        state.called = 0;
        let call = state.call(1);
        drop(state);
        call.and_then(Call::make)
    }

    /// Waits for a job. The hand that comes with it, if there is one, has to be put to work before the job is begun.
    pub(crate) async fn next(&self, hand: &mut Hand) -> (T, Option<Hand>) {
        hand.in_a_row += 1;
        if hand.in_a_row > IN_A_ROW {
            hand.in_a_row = 1;
            self.lock().come_back(hand.number);
            last_in_line().await;
        }
        let taken = poll_fn(|context| {
            let mut state = self.lock();
            match state.take(hand.number) {
                Some(taken) => Poll::Ready(taken),
                None => {
                    state.rest(hand.number, context.waker());
                    Poll::Pending
                }
            }
        });
        taken.await.make()
    }

    /// The hand has called another task, which must not have to wait for the next job: that one may keep the thread.
    pub(crate) fn has_called(&self, hand: &mut Hand) {
        hand.in_a_row = IN_A_ROW;
    }

    /// Takes out all that wait.
    pub(crate) fn clear(&self) -> VecDeque<T> {
        mem::take(&mut self.lock().waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The call for a hand, to be made without the lock.
enum Call {
    Wake(Waker),
    Hire(usize),
}

/// A job, and a call that is to be made before it begins.
struct Taken<T> {
    job: T,
    call: Option<Call>,
}

impl<T> Taken<T> {
    fn make(self) -> (T, Option<Hand>) {
        (self.job, self.call.and_then(Call::make))
    }
}

impl Call {
    fn make(self) -> Option<Hand> {
        match self {
            Self::Wake(waker) => {
                waker.wake();
                None
            }
            Self::Hire(number) => Some(Hand { number, in_a_row: 0 }),
        }
    }
}

impl<T> State<T> {
    /// Calls a hand if fewer than `most` are called for what waits.
    fn call(&mut self, most: usize) -> Option<Call> {
        if self.called >= most.min(self.waiting.len()) {
            return None;
        }
        self.called += 1;
        let Some(number) = self.idle.pop() else {
            self.hands.push(Doing::Called);
            return Some(Call::Hire(self.hands.len() - 1));
        };
        match mem::replace(&mut self.hands[number], Doing::Called) {
            Doing::Idle(waker) => Some(Call::Wake(waker)),
            Doing::Called | Doing::Missing | Doing::Working => None,
        }
    }

    /// The hand is on its way to the next job.
    fn come_back(&mut self, hand: usize) {
        if matches!(self.hands[hand], Doing::Working) {
            self.hands[hand] = Doing::Called;
            self.called += 1;
        }
    }

    fn take(&mut self, hand: usize) -> Option<Taken<T>> {
        let job = self.waiting.pop_front()?;
        self.taken += 1;
        self.leave(hand, Doing::Working);
        Some(Taken { job, call: self.call(1) })
    }

    fn rest(&mut self, hand: usize, waker: &Waker) {
        self.leave(hand, Doing::Idle(waker.clone()));
        self.idle.push(hand);
    }

    fn leave(&mut self, hand: usize, now: Doing) {
        match mem::replace(&mut self.hands[hand], now) {
            Doing::Called => self.called -= 1,
            // Woken by somebody else, such as what a job waited for that it began.
            Doing::Idle(_) => self.idle.retain(|idle| *idle != hand),
            Doing::Missing | Doing::Working => {}
        }
    }
}

/// Goes behind everything that the thread has to do. (tokio's own way to yield would stay with the thread, even where
/// that is kept by the next in line.)
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

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Intake").field("waiting", &state.waiting.len()).field("hands", &state.hands.len()).finish()
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

    /// What a hand gets when it looks now, and whether another one is to be hired.
    fn look(intake: &Intake<u32>, hand: &mut Hand, woken: &Arc<Woken>) -> Option<(u32, Option<Hand>)> {
        let waker = Waker::from(Arc::clone(woken));
        match pin!(intake.next(hand)).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_hand_is_hired_for_the_first_job_and_called_again_for_a_later_one() {
        let (intake, woken) = (Intake::new(1), Arc::new(Woken::default()));
        let mut hand = intake.offer(1).expect("there was none");
        assert!(intake.offer(2).is_none(), "one was called and has not come yet");
        let (first, second_hand) = look(&intake, &mut hand, &woken).expect("a job");
        assert_eq!(first, 1);
        assert!(second_hand.is_some(), "the first job may keep its hand while the second one waits");
        let (second, third_hand) = look(&intake, &mut hand, &woken).expect("a job");
        assert_eq!(second, 2);
        assert!(third_hand.is_none(), "nothing waits");
        assert!(look(&intake, &mut second_hand.unwrap(), &woken).is_none());
        assert!(look(&intake, &mut hand, &woken).is_none());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert!(intake.offer(3).is_none());
        assert!(intake.offer(4).is_none());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "one for both");
    }

    #[test]
    fn jobs_behind_one_that_keeps_its_hand_are_taken_by_others() {
        let (intake, woken) = (Intake::new(1), Arc::new(Woken::default()));
        let mut hands = vec![intake.offer(0).expect("a hand")];
        // None of the hands ever comes back.
        for job in 0..5 {
            let mut hand = hands.pop().expect("a hand was called for this job");
            assert_eq!(look(&intake, &mut hand, &woken).expect("the job").0, job);
            hands.extend(intake.offer(job + 1));
        }
    }

    #[test]
    fn there_is_a_hand_for_each_thread_from_the_start() {
        let intake = Intake::new(3);
        let hired = (0..10).filter_map(|job| intake.offer(job)).count();
        assert_eq!(hired, 3);
    }

    #[test]
    fn a_hand_that_is_woken_by_chance_takes_what_there_is_and_is_not_called_in_vain() {
        let (intake, woken) = (Intake::new(1), Arc::new(Woken::default()));
        let mut hand = intake.offer(1).expect("a hand");
        assert!(look(&intake, &mut hand, &woken).is_some());
        for _ in 0..3 {
            assert!(look(&intake, &mut hand, &woken).is_none());
        }
        assert!(intake.offer(2).is_none());
        assert_eq!(look(&intake, &mut hand, &woken).expect("the job").0, 2);
        assert!(intake.offer(3).is_some(), "the only hand works");
    }

    #[test]
    fn hands_that_do_not_come_are_replaced_and_may_come_later() {
        let (intake, woken) = (Intake::new(1), Arc::new(Woken::default()));
        let mut first = intake.offer(0).expect("a hand");
        assert!(intake.call_another().is_some_and(|mut second| look(&intake, &mut second, &woken).is_some()));
        assert_eq!(intake.taken_while_others_wait(), None);
        let mut third = intake.offer(1).expect("the first one is not counted on");
        assert!(intake.offer(2).is_none());
        assert_eq!(intake.taken_while_others_wait(), Some(1));
        assert_eq!(look(&intake, &mut first, &woken).expect("a job").0, 1);
        assert_eq!(look(&intake, &mut third, &woken).expect("a job").0, 2);
        assert!(intake.call_another().is_none(), "nothing waits");
    }

    #[test]
    fn after_many_jobs_in_a_row_the_other_tasks_get_their_turn() {
        let (intake, woken) = (Intake::new(1), Arc::new(Woken::default()));
        let mut hand = intake.offer(0).expect("a hand");
        let mut others: Vec<Hand> = (1..100).filter_map(|job| intake.offer(job)).collect();
        let mut taken = 0;
        while let Some((job, hired)) = look(&intake, &mut hand, &woken) {
            assert_eq!(job, taken);
            others.extend(hired);
            taken += 1;
        }
        assert_eq!(taken as usize, IN_A_ROW);
        assert_eq!(others.len(), 1);
    }

    #[test]
    fn what_was_not_begun_can_be_taken_out() {
        let intake = Intake::new(1);
        let _hand = intake.offer(7);
        assert_eq!(intake.clear(), [7]);
    }
}
