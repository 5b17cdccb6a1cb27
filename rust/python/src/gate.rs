//! The one gate between Python and the kernels.
//!
//! Small work runs on the calling thread. Long work runs on our pool while the caller, detached from
//! the interpreter, wakes every 50 ms to look for Ctrl-C and, where there is a callback, to report
//! progress. Ctrl-C cancels the kernel, which stops at its next chunk; the callback can ask it to end
//! with what it has.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::{create_exception, import_exception};
use pyprobe_core::{Control, Error};

use crate::pool;

import_exception!(pyprobe.errors, DomainError);
import_exception!(pyprobe.errors, NotFiniteError);
import_exception!(pyprobe.errors, NotPositiveDefiniteError);
import_exception!(pyprobe.errors, PyprobeError);
import_exception!(pyprobe.errors, ShapeError);
create_exception!(pyprobe._core, Cancelled, PyRuntimeError, "A callback stopped the kernel.");

const WAKE: Duration = Duration::from_millis(50);
/// Work, in nanoseconds, below which waking a pool costs more than it saves.
const INLINE: usize = 100_000;

/// Runs `job`, whose cost is about `work` nanoseconds on one thread.
///
/// # Errors
/// The kernel's error as a Python exception, or what a signal handler raised.
pub fn run<T: Send>(
    py: Python<'_>,
    work: usize,
    job: impl FnOnce(&Control) -> Result<T, Error> + Send,
) -> PyResult<T> {
    run_watched(py, work, job, |_, _, _| Ok(true))
}

/// Like [`run`]; `watch(py, done, value)` is called on every wake with the kernel's progress, and
/// answers whether to go on or to end with what has been found.
///
/// # Errors
/// As [`run`], or what `watch` raised.
pub fn run_watched<T: Send>(
    py: Python<'_>,
    work: usize,
    job: impl FnOnce(&Control) -> Result<T, Error> + Send,
    watch: impl Fn(Python<'_>, u64, f64) -> PyResult<bool> + Sync,
) -> PyResult<T> {
    if work < INLINE {
        return job(&Control::sequential()).map_err(exception);
    }
    let pool = pool::current().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    py.detach(|| {
        let control = Control::new();
        let (sender, receiver) = sync_channel(1);
        pool.rayon().in_place_scope(|scope| {
            let control = &control;
            // The receiver outlives the scope, so sending cannot fail.
            scope.spawn(move |_| drop(sender.send(job(control))));
            let mut interrupted = None;
            loop {
                match receiver.recv_timeout(WAKE) {
                    Ok(outcome) => {
                        return interrupted.map_or(outcome.map_err(exception), Err);
                    }
                    // The kernel panicked: leaving the scope resumes the panic.
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(PyRuntimeError::new_err("a kernel panicked"));
                    }
                    Err(RecvTimeoutError::Timeout) if interrupted.is_none() => {
                        let look = Python::attach(|py| {
                            py.check_signals()?;
                            watch(py, control.done(), control.value())
                        });
                        match look {
                            Ok(true) => {}
                            Ok(false) => control.stop(),
                            Err(error) => {
                                control.cancel();
                                interrupted = Some(error);
                            }
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        })
    })
}

/// The Python exception of a kernel's error.
pub fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Cancelled => Cancelled::new_err(message),
        Error::Memory { .. } => PyMemoryError::new_err(message),
        Error::Shape { .. } => ShapeError::new_err(message),
        Error::NotFinite { .. } => NotFiniteError::new_err(message),
        Error::NotPositiveDefinite { .. } => NotPositiveDefiniteError::new_err(message),
        Error::NotConverged { .. } => PyprobeError::new_err(message),
        _ => DomainError::new_err(message),
    }
}
