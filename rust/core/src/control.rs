//! Cancellation, early stop and progress of a running kernel.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Error;

/// What a caller shares with a running kernel: a flag to cancel it, one to end it early, a count of
/// the work done, and the number that an iteration watches.
///
/// Kernels poll the first flag once a chunk (well under a millisecond of work) and return
/// [`Error::Cancelled`]; an iteration polls the second once a step, and returns what it has.
///
/// ```
/// use pyprobe_core::{Control, Error};
/// let control = Control::new();
/// assert_eq!(control.check(), Ok(()));
/// control.cancel();
/// assert_eq!(control.check(), Err(Error::Cancelled));
/// ```
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    stopped: AtomicBool,
    done: AtomicU64,
    value: AtomicU64,
    sequential: bool,
}

impl Control {
    /// A control that lets the kernel use the current rayon pool.
    pub const fn new() -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            done: AtomicU64::new(0),
            value: AtomicU64::new(0),
            sequential: false,
        }
    }

    /// A control that keeps the kernel on the calling thread; the result has the same bits.
    pub const fn sequential() -> Self {
        Self { sequential: true, ..Self::new() }
    }

    /// Whether the kernel must stay on the calling thread.
    pub const fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Asks the kernel to stop; it returns [`Error::Cancelled`] at its next chunk.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Fails with [`Error::Cancelled`] once [`cancel`](Self::cancel) was called.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Asks an iteration to end after the current step, with what it has found so far.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Adds finished units of work (elements, rows or iterations: the kernel says which).
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Units of work finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Finishes a step of an iteration, and shows what it watches: an error, a likelihood.
    pub fn report(&self, value: f64) {
        self.value.store(value.to_bits(), Ordering::Relaxed);
        self.advance(1);
    }

    /// What the iteration reported last; 0 before its first step.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }
}
