//! How a job meets the build that it runs on, and how that build is replaced: `Execution::perform`, `LiveTaskMap::publish`,
//! `Generation::enter` and `Generation::end`, in their order.
//!
//! Those stand on `ArcSwap` and `TaskTracker`, whose insides no checker can drive. So this is the same order on the checker's
//! own atomics: the tracker is a number, which counts by two, and is odd when it is closed.

use shuttle::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// A build.
#[derive(Debug, Default)]
pub struct Generation {
    running: AtomicUsize,
    ended: AtomicBool,
}

/// Whether a job first counts itself in and then looks, as the host does it, or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    TokenFirst,
    LookFirst,
}

impl Generation {
    fn enter(&self, order: Order) -> bool {
        if order == Order::LookFirst && self.running.load(Ordering::SeqCst) & 1 == 1 {
            return false;
        }
        self.running.fetch_add(2, Ordering::SeqCst);
        if order == Order::TokenFirst && self.running.load(Ordering::SeqCst) & 1 == 1 {
            self.running.fetch_sub(2, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Runs a job; `false`: it takes none any more.
    pub fn run(&self, order: Order) -> bool {
        if !self.enter(order) {
            return false;
        }
        assert!(!self.ended.load(Ordering::SeqCst), "a job began on a build that had ended");
        shuttle::thread::yield_now();
        assert!(!self.ended.load(Ordering::SeqCst), "a build ended under its job");
        self.running.fetch_sub(2, Ordering::SeqCst);
        true
    }

    /// Takes no more jobs, waits for those that run, and ends.
    pub fn retire(&self) {
        self.running.fetch_or(1, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) > 1 {
            shuttle::thread::yield_now();
        }
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Which build is in force. The lock stands for the swap of one pointer.
#[derive(Debug)]
pub struct LiveMap {
    current: Mutex<Arc<Generation>>,
}

impl LiveMap {
    /// With a first build.
    pub fn new() -> Self {
        Self { current: Mutex::new(Arc::default()) }
    }

    /// The build as of now.
    pub fn load(&self) -> Arc<Generation> {
        Arc::clone(&self.current.lock().expect("nobody panics"))
    }

    /// Puts another one in its place, and gives the old one.
    pub fn publish(&self, new: Arc<Generation>) -> Arc<Generation> {
        std::mem::replace(&mut *self.current.lock().expect("nobody panics"), new)
    }

    /// `Execution::perform`: a build that was replaced at this very moment does not take the job, and then the next one does.
    /// `false`: the job is given back.
    pub fn perform(&self, order: Order) -> bool {
        let mut tried: Option<Arc<Generation>> = None;
        loop {
            let generation = self.load();
            if tried.as_ref().is_some_and(|last| Arc::ptr_eq(last, &generation)) {
                return false;
            }
            if generation.run(order) {
                return true;
            }
            tried = Some(generation);
        }
    }
}

impl Default for LiveMap {
    fn default() -> Self {
        Self::new()
    }
}
