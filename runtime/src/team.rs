//! Threads that compute the pieces of one job together, again and again.
//!
//! A job is a number of pieces that do not depend on each other. Whoever has nothing to do takes the next one, the caller
//! from the low end and the workers from the high end: with two threads each has one contiguous part, which stays in its
//! cache from job to job, and a worker that the system does not let run holds nobody up. Nothing is allocated and no lock
//! is taken for a job. Workers spin for a while after a job, as the next one mostly follows within microseconds, then they
//! sleep.

use crate::memory::AlignedBytes;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// How often a thread looks again with a pause between, which takes some 20 microseconds in all.
const SPINS: usize = 1000;
/// How often it looks after that, letting other threads run in between, before it sleeps.
const YIELDS: usize = 200;

/// Computes a piece, with the scratch memory of the thread that does.
type Job<'a> = dyn Fn(usize, *mut u8) + Sync + 'a;

/// Workers, and what they share with the thread that calls them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Pieces that nobody has taken: the first in the low half, one more than the last in the high half.
    open: AtomicU64,
    /// Pieces that are computed.
    done: AtomicUsize,
    /// The job. Written by who holds `busy` while no piece is open or under way, read by who has taken a piece.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Whether somebody calls the team.
    busy: AtomicBool,
    /// Whether a piece of this job panicked.
    panicked: AtomicBool,
    /// One a worker: whether it sleeps, or is about to.
    asleep: Vec<AtomicBool>,
    quit: AtomicBool,
}

// SAFETY: `job` is written and read as it says there; the closure behind it is `Sync` and outlives its job.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

fn pack(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn unpack(open: u64) -> (u32, u32) {
    (open as u32, (open >> 32) as u32)
}

/// Looks again and again until `ready`, for as long as a thread stays awake for nothing.
fn wait(mut ready: impl FnMut() -> bool) -> bool {
    for i in 0..SPINS + YIELDS {
        if ready() {
            return true;
        }
        if i < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
    }
    false
}

impl Shared {
    /// Takes the first open piece, or the last.
    fn take(&self, first: bool) -> Option<usize> {
        let mut open = self.open.load(Ordering::Relaxed);
        loop {
            let (low, high) = unpack(open);
            if low >= high {
                return None;
            }
            let (rest, piece) = if first { (pack(low + 1, high), low) } else { (pack(low, high - 1), high - 1) };
            // Who succeeds sees the job that the piece is of: it was written before its pieces were opened, and stays until
            // all of them are done.
            match self.open.compare_exchange_weak(open, rest, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(piece as usize),
                Err(now) => open = now,
            }
        }
    }

    fn is_open(&self) -> bool {
        let (low, high) = unpack(self.open.load(Ordering::SeqCst));
        low < high
    }

    /// Computes a piece that was taken, and counts it even if it panics.
    fn compute(&self, piece: usize, scratch: *mut u8) {
        // SAFETY: nobody writes the job before the piece is counted.
        let job = unsafe { *self.job.get() };
        let run = || {
            if let Some(job) = job {
                // SAFETY: the closure lives until all pieces are counted (`Team::run`).
                unsafe { (*job)(piece, scratch) }
            }
        };
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Release);
    }

    /// The life of a worker.
    fn work(&self, worker: usize, mut scratch: AlignedBytes) {
        while !self.quit.load(Ordering::SeqCst) {
            while let Some(piece) = self.take(false) {
                self.compute(piece, scratch.as_mut_ptr());
            }
            let ready = || self.is_open() || self.quit.load(Ordering::SeqCst);
            if !wait(ready) {
                self.asleep[worker].store(true, Ordering::SeqCst);
                // Who opens pieces from here on sees that it sleeps.
                if !ready() {
                    thread::park();
                }
                self.asleep[worker].store(false, Ordering::SeqCst);
            }
        }
    }
}

impl Team {
    /// The calling thread and `workers` more, each with so many bytes of scratch memory.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn new(workers: usize, scratch_bytes: usize) -> std::io::Result<Team> {
        let shared = Arc::new(Shared {
            open: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            quit: AtomicBool::new(false),
        });
        let mut team = Team { shared, workers: Vec::with_capacity(workers) };
        for worker in 0..workers {
            let (shared, scratch) = (team.shared.clone(), AlignedBytes::zeroed(scratch_bytes));
            let thread = thread::Builder::new().name(format!("mcc-{worker}"));
            // Those that were started end when the team is dropped.
            team.workers.push(thread.spawn(move || shared.work(worker, scratch))?);
        }
        Ok(team)
    }

    /// Computes pieces `0..pieces` of a job, on all threads; the caller's takes `scratch`. Returns when all are computed.
    ///
    /// # Panics
    /// Where a piece panics, after all of them have ended.
    pub fn run(&self, pieces: u32, scratch: *mut u8, job: &Job<'_>) {
        let shared = &*self.shared;
        if pieces <= 1 || shared.busy.swap(true, Ordering::Acquire) {
            // Another thread calls the team, or a piece of its own job does.
            return (0..pieces as usize).for_each(|piece| job(piece, scratch));
        }
        // SAFETY: the lifetime is forgotten only until this function returns, when all pieces are done and nobody has
        // the job any more: a panic of a piece is caught, and nothing else here panics.
        let job: *const Job<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(job)) };
        // SAFETY: this thread holds `busy`, and all pieces of the job before are counted.
        unsafe { *shared.job.get() = Some(job) };
        shared.done.store(0, Ordering::Relaxed);
        shared.open.store(pack(0, pieces), Ordering::SeqCst);
        for (asleep, worker) in shared.asleep.iter().zip(&self.workers) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        while let Some(piece) = shared.take(true) {
            shared.compute(piece, scratch);
        }
        while !wait(|| shared.done.load(Ordering::Acquire) == pieces as usize) {}
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        shared.busy.store(false, Ordering::Release);
        assert!(!panicked, "a piece of a job of several threads panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches panics of jobs, and has none of its own.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Every piece is computed once, whatever the number of threads and pieces, job after job.
    #[test]
    fn each_piece_once() {
        for workers in [0, 1, 2, 6] {
            let team = Team::new(workers, 64).unwrap();
            for round in 0..300u32 {
                let pieces = round % 40;
                let seen: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                team.run(pieces, std::ptr::null_mut(), &|piece, _| {
                    seen[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{workers} {pieces}");
            }
        }
    }

    #[test]
    fn workers_wake_up() {
        let team = Team::new(2, 0).unwrap();
        for _ in 0..3 {
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while !team.shared.asleep.iter().all(|a| a.load(Ordering::SeqCst)) {
                assert!(std::time::Instant::now() < deadline, "workers without work sleep");
                thread::sleep(Duration::from_millis(1));
            }
            // Each piece waits for the others, so that three threads must be there.
            let here = AtomicUsize::new(0);
            team.run(3, std::ptr::null_mut(), &|_, _| {
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < 3 {
                    thread::yield_now();
                }
            });
        }
    }

    /// Scratch memory is the thread's own: aligned, long enough, and nobody else's during a piece.
    #[test]
    fn scratch_memory_is_not_shared() {
        let team = Team::new(2, 64).unwrap();
        let mut own = AlignedBytes::zeroed(64);
        team.run(60, own.as_mut_ptr(), &|piece, scratch| {
            assert_eq!(scratch.align_offset(AlignedBytes::ALIGNMENT), 0);
            // SAFETY: 64 bytes that only this thread uses.
            unsafe {
                scratch.write_bytes(piece as u8, 64);
                thread::yield_now();
                assert_eq!(std::slice::from_raw_parts(scratch, 64), [piece as u8; 64]);
            }
        });
    }

    /// A panic reaches the caller, whoever's piece it was, and the team goes on.
    #[test]
    fn panics_reach_the_caller() {
        let team = Team::new(1, 0).unwrap();
        for bad in [0, 7] {
            let run = |bad: usize| {
                let run = || team.run(8, std::ptr::null_mut(), &|piece, _| assert!(piece != bad, "on purpose"));
                catch_unwind(AssertUnwindSafe(run))
            };
            assert!(run(bad).is_err());
            assert!(run(8).is_ok());
        }
    }

    #[test]
    fn a_job_may_call_the_team() {
        let team = Team::new(1, 0).unwrap();
        let sum = AtomicUsize::new(0);
        team.run(4, std::ptr::null_mut(), &|_, _| {
            team.run(5, std::ptr::null_mut(), &|piece, _| {
                sum.fetch_add(piece, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 40);
    }
}
