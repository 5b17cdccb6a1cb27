//! The thread pool: our own, sized by the user, and safe to use after `fork`.
//!
//! Threads do not survive a fork, so a child must not touch its parent's pool, not even to drop it.
//! The cell is lock-free: a fork in one thread while another replaces the pool cannot leave the
//! child with a lock that nobody releases.

use std::mem;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arc_swap::ArcSwapOption;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool, the process that made it, and its size.
pub struct Pool {
    process: u32,
    threads: usize,
    rayon: ThreadPool,
}

impl Pool {
    /// The rayon pool to run on.
    pub fn rayon(&self) -> &ThreadPool {
        &self.rayon
    }
}

static CURRENT: ArcSwapOption<Pool> = ArcSwapOption::const_empty();
/// What the user asked for; 0 means one thread a processor.
static WANTED: AtomicUsize = AtomicUsize::new(0);
/// Processors that this process may use; 0 until somebody asks.
static PROCESSORS: AtomicUsize = AtomicUsize::new(0);

/// Number of threads that the next kernel will use.
pub fn num_threads() -> usize {
    match WANTED.load(Ordering::Relaxed) {
        0 => processors(),
        n => n,
    }
}

/// Asked of the system once: it reads files, which takes longer than a short kernel.
fn processors() -> usize {
    match PROCESSORS.load(Ordering::Relaxed) {
        0 => {
            let n = thread::available_parallelism().map_or(1, usize::from);
            PROCESSORS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets the number of threads; 0 returns to one a processor.
pub fn set_num_threads(n: usize) {
    WANTED.store(n, Ordering::Relaxed);
}

/// The pool of this process, made anew after a fork or a change of size.
///
/// # Errors
/// Where the operating system refuses new threads.
pub fn current() -> Result<Arc<Pool>, rayon::ThreadPoolBuildError> {
    let (process, threads) = (process::id(), num_threads());
    if let Some(pool) = &*CURRENT.load()
        && pool.process == process
        && pool.threads == threads
    {
        return Ok(Arc::clone(pool));
    }
    let rayon = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("pyprobe-{index}"))
        .build()?;
    let pool = Arc::new(Pool { process, threads, rayon });
    if let Some(old) = CURRENT.swap(Some(Arc::clone(&pool)))
        && old.process != process
    {
        // The parent's threads are not here to be joined: dropping their pool could block.
        mem::forget(old);
    }
    Ok(pool)
}
