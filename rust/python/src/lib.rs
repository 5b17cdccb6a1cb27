//! Python binding of `pyprobe-core`: check, view, call, wrap. No mathematics lives here.

mod gate;
mod pool;

/// Compiled kernels of pyprobe; private, see the public functions above it.
#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::gate::Cancelled;

    /// Number of threads that the next kernel will use.
    #[pyfunction]
    fn num_threads() -> usize {
        crate::pool::num_threads()
    }

    /// Sets the number of threads; 0 returns to one a processor.
    #[pyfunction]
    fn set_num_threads(n: usize) {
        crate::pool::set_num_threads(n);
    }
}
