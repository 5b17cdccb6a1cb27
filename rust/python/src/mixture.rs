//! `pyprobe.cluster` and `pyprobe.directional`: mixtures of von Mises-Fisher distributions.

use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyprobe_core::cluster;
use pyprobe_core::directional::mixture::{self, Assignment, Components};
use pyprobe_core::linalg::{Csr, Lanes, Rows};
use pyprobe_core::random::Key;

use crate::gate;

/// Samples, one a row, of either float type.
#[derive(FromPyObject)]
pub enum Samples<'py> {
    /// float64
    Double(Matrix<'py, f64>),
    /// float32
    Single(Matrix<'py, f32>),
}

/// A matrix, or a sparse one with its transpose where the call needs that.
#[derive(FromPyObject)]
pub enum Matrix<'py, T: Element> {
    /// C order.
    Dense(PyReadonlyArray2<'py, T>),
    /// Both row by row.
    Sparse(Compressed<'py, T>, Option<Compressed<'py, T>>),
}

/// `(indptr, indices, values, n_columns)`.
#[derive(FromPyObject)]
pub struct Compressed<'py, T: Element>(
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u32>,
    PyReadonlyArray1<'py, T>,
    usize,
);

impl<T: Lanes + Element> Compressed<'_, T> {
    fn csr(&self) -> PyResult<Csr<'_, T>> {
        Csr::new(self.0.as_slice()?, self.1.as_slice()?, self.2.as_slice()?, self.3)
            .map_err(gate::exception)
    }
}

impl<T: Lanes + Element> Matrix<'_, T> {
    /// What kernels read.
    ///
    /// # Errors
    /// Where a sparse matrix is not one.
    pub fn rows(&self) -> PyResult<Rows<'_, T>> {
        match self {
            Self::Dense(x) => Rows::dense(x.as_array()).map_err(gate::exception),
            Self::Sparse(x, _) => x.csr().map(Rows::Sparse),
        }
    }

    fn transposed(&self) -> PyResult<Option<Csr<'_, T>>> {
        match self {
            Self::Sparse(_, Some(transposed)) => transposed.csr().map(Some),
            _ => Ok(None),
        }
    }
}

/// `(directions, scale, offset)` of shapes (d, k), (k,) and (k,), float64.
type Parameters<'py> =
    (PyReadonlyArray2<'py, f64>, PyReadonlyArray1<'py, f64>, PyReadonlyArray1<'py, f64>);

fn components<'a>(parameters: &'a Parameters<'_>) -> Components<'a> {
    Components {
        directions: parameters.0.as_array(),
        scale: parameters.1.as_array(),
        offset: parameters.2.as_array(),
    }
}

/// Number of stored entries.
pub fn entries<T: Lanes>(x: Rows<'_, T>) -> usize {
    match x {
        Rows::Dense { values, .. } => values.len(),
        Rows::Sparse(x) => x.n_entries(),
    }
}

/// Nanoseconds, roughly, that it takes to multiply `x` with `k` columns.
fn work<T: Lanes>(x: Rows<'_, T>, k: usize) -> usize {
    entries(x) * k / 16 + 4 * x.n_rows() * k
}

/// Resultants (d, k), their squared norms, counts, squared counts (each (k,)), log-likelihood and
/// the row explained worst.
type Step<'py> = (
    Bound<'py, PyArray2<f64>>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<f64>>,
    f64,
    usize,
);

/// One EM iteration: the E-step with the given components, and the sums for the M-step.
#[pyfunction]
pub fn vmf_mixture_step<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    parameters: Parameters<'py>,
    hard: bool,
) -> PyResult<Step<'py>> {
    fn run<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'py, T>,
        parameters: &Parameters<'py>,
        hard: bool,
    ) -> PyResult<Step<'py>> {
        let (rows, transposed, model) = (x.rows()?, x.transposed()?, components(parameters));
        let assignment = if hard { Assignment::Hard } else { Assignment::Soft };
        let step = gate::run(py, 2 * work(rows, model.scale.len()), |control| {
            mixture::step(rows, transposed, model, assignment, control)
        })?;
        Ok((
            step.resultants.into_pyarray(py),
            step.squared_norms.into_pyarray(py),
            step.counts.into_pyarray(py),
            step.squared_counts.into_pyarray(py),
            step.log_likelihood,
            step.worst,
        ))
    }
    match x {
        Samples::Double(x) => run(py, &x, &parameters, hard),
        Samples::Single(x) => run(py, &x, &parameters, hard),
    }
}

/// Log-density of every row: shape (n,).
#[pyfunction]
pub fn vmf_mixture_log_prob<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    parameters: Parameters<'py>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn run<T: Lanes + Element>(
        py: Python<'_>,
        x: &Matrix<'_, T>,
        parameters: &Parameters<'_>,
    ) -> PyResult<Vec<f64>> {
        let (rows, model) = (x.rows()?, components(parameters));
        gate::run(py, work(rows, model.scale.len()), |control| {
            mixture::log_sum_exp(rows, model, control)
        })
    }
    match x {
        Samples::Double(x) => run(py, &x, &parameters),
        Samples::Single(x) => run(py, &x, &parameters),
    }
    .map(|values| values.into_pyarray(py))
}

/// Posterior probabilities of the components for every row: shape (n, k).
#[pyfunction]
pub fn vmf_mixture_responsibilities<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    parameters: Parameters<'py>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    fn run<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'py, T>,
        parameters: &Parameters<'py>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (rows, model) = (x.rows()?, components(parameters));
        let r = gate::run(py, work(rows, model.scale.len()), |control| {
            mixture::responsibilities(rows, model, control)
        })?;
        Ok(r.into_pyarray(py))
    }
    match x {
        Samples::Double(x) => run(py, &x, &parameters),
        Samples::Single(x) => run(py, &x, &parameters),
    }
}

/// The likeliest component of every row: shape (n,).
#[pyfunction]
pub fn vmf_mixture_labels<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    parameters: Parameters<'py>,
) -> PyResult<Bound<'py, PyArray1<usize>>> {
    fn run<T: Lanes + Element>(
        py: Python<'_>,
        x: &Matrix<'_, T>,
        parameters: &Parameters<'_>,
    ) -> PyResult<Vec<usize>> {
        let (rows, model) = (x.rows()?, components(parameters));
        gate::run(py, work(rows, model.scale.len()), |control| {
            mixture::labels(rows, model, control)
        })
    }
    match x {
        Samples::Double(x) => run(py, &x, &parameters),
        Samples::Single(x) => run(py, &x, &parameters),
    }
    .map(|labels| labels.into_pyarray(py))
}

/// Rows that seed a spherical clustering with `k` clusters: `k` or more indices.
#[pyfunction]
pub fn spherical_seeds(
    py: Python<'_>,
    x: Samples<'_>,
    k: usize,
    n_rounds: usize,
    key: u128,
) -> PyResult<Vec<usize>> {
    fn run<T: Lanes + Element>(
        py: Python<'_>,
        x: &Matrix<'_, T>,
        k: usize,
        n_rounds: usize,
        key: Key,
    ) -> PyResult<Vec<usize>> {
        let rows = x.rows()?;
        gate::run(py, n_rounds * work(rows, k), |control| {
            cluster::spherical_seeds(rows, k, n_rounds, key, control)
        })
    }
    match x {
        Samples::Double(x) => run(py, &x, k, n_rounds, Key::new(key)),
        Samples::Single(x) => run(py, &x, k, n_rounds, Key::new(key)),
    }
}

/// The cluster below `k` that each column of `resultants` (d, m) is merged into.
#[pyfunction]
pub fn merge_directions(
    py: Python<'_>,
    resultants: PyReadonlyArray2<'_, f64>,
    k: usize,
) -> PyResult<Vec<usize>> {
    let resultants = resultants.as_array();
    let (d, m) = resultants.dim();
    gate::run(py, m * m * (d / 16 + m), |control| cluster::merge_directions(resultants, k, control))
}

/// Checks that every row of `x` is a unit vector.
#[pyfunction]
pub fn check_unit_rows(py: Python<'_>, x: Samples<'_>) -> PyResult<()> {
    fn run<T: Lanes + Element>(py: Python<'_>, x: &Matrix<'_, T>) -> PyResult<()> {
        let rows = x.rows()?;
        gate::run(py, work(rows, 4), |control| rows.check_unit("x", control))
    }
    match x {
        Samples::Double(x) => run(py, &x),
        Samples::Single(x) => run(py, &x),
    }
}
