//! `pyprobe.directional`: the von Mises-Fisher distribution.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyprobe_core::Real;
use pyprobe_core::directional::vmf;
use pyprobe_core::random::Key;

use crate::gate;

/// Picoseconds an element that a pass over data costs on one thread.
const PASS: usize = 400;
/// Picoseconds an element of a draw.
const DRAW: usize = 2200;
/// Picoseconds a draw of the marginal law, and its derivative.
const MARGINAL: usize = 20_000;
const GRADIENT: usize = 170_000;

/// A matrix in either float type.
#[derive(FromPyObject)]
pub enum Matrix<'py> {
    /// float64
    Double(PyReadonlyArray2<'py, f64>),
    /// float32
    Single(PyReadonlyArray2<'py, f32>),
}

fn nanoseconds(count: usize, picoseconds: usize) -> usize {
    count.saturating_mul(picoseconds) / 1000
}

/// `n` draws from each row of `loc` and `concentration`, shape (n m, d), in the type of `loc`.
#[pyfunction]
pub fn vmf_sample<'py>(
    py: Python<'py>,
    loc: Matrix<'py>,
    concentration: PyReadonlyArray1<'py, f64>,
    n: usize,
    key: u128,
) -> PyResult<Bound<'py, PyAny>> {
    fn run<'py, T: Real + Element>(
        py: Python<'py>,
        loc: &PyReadonlyArray2<'py, T>,
        concentration: &PyReadonlyArray1<'py, f64>,
        n: usize,
        key: u128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (loc, concentration) = (loc.as_array(), concentration.as_array());
        let rows = loc.nrows().max(concentration.len());
        let elements = n.saturating_mul(rows).saturating_mul(loc.ncols());
        let draws = gate::run(py, nanoseconds(elements, DRAW), |control| {
            vmf::sample(loc, concentration, n, Key::new(key), control)
        })?;
        Ok(draws.into_pyarray(py).into_any())
    }
    match loc {
        Matrix::Double(loc) => run(py, &loc, &concentration, n, key),
        Matrix::Single(loc) => run(py, &loc, &concentration, n, key),
    }
}

/// 1 - w of the draws that `vmf_sample` makes with the same key, shape (n m,).
#[pyfunction]
pub fn vmf_sample_marginal<'py>(
    py: Python<'py>,
    dim: usize,
    concentration: PyReadonlyArray1<'py, f64>,
    n: usize,
    key: u128,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let concentration = concentration.as_array();
    let work = nanoseconds(n.saturating_mul(concentration.len()), MARGINAL);
    let complements = gate::run(py, work, |control| {
        vmf::sample_marginal(dim, concentration, n, Key::new(key), control)
    })?;
    Ok(complements.into_pyarray(py))
}

/// The derivative of w in the concentration; element i belongs to concentration i mod m.
#[pyfunction]
pub fn vmf_marginal_gradient<'py>(
    py: Python<'py>,
    dim: usize,
    concentration: PyReadonlyArray1<'py, f64>,
    complement: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (concentration, complement) = (concentration.as_array(), complement.as_array());
    let gradient = gate::run(py, nanoseconds(complement.len(), GRADIENT), |control| {
        vmf::marginal_gradient(dim, concentration, complement, control)
    })?;
    Ok(gradient.into_pyarray(py))
}

/// `(loc, R, 1 - R, total weight, effective number of rows)`.
type MeanDirection<'py> = (Bound<'py, PyArray1<f64>>, f64, f64, f64, f64);

/// The mean direction of the rows of `x` and their mean resultant length R.
#[pyfunction]
pub fn vmf_mean_direction<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    weights: Option<PyReadonlyArray1<'py, f64>>,
) -> PyResult<MeanDirection<'py>> {
    fn run<'py, T: Real + Element>(
        py: Python<'py>,
        x: &PyReadonlyArray2<'py, T>,
        weights: Option<&PyReadonlyArray1<'py, f64>>,
    ) -> PyResult<MeanDirection<'py>> {
        let (x, weights) = (x.as_array(), weights.map(|w| w.as_array()));
        let mean = gate::run(py, nanoseconds(x.len(), PASS), |control| {
            vmf::mean_direction(x, weights, control)
        })?;
        let loc = mean.loc.into_pyarray(py);
        Ok((loc, mean.length, mean.complement, mean.total_weight, mean.n_effective))
    }
    match x {
        Matrix::Double(x) => run(py, &x, weights.as_ref()),
        Matrix::Single(x) => run(py, &x, weights.as_ref()),
    }
}

/// 1 - x . loc for unit vectors, paired row i with row i mod m of `loc`, shape (n,).
#[pyfunction]
pub fn vmf_one_minus_dot<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    loc: Matrix<'py>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn run<'py, T: Real + Element, U: Real + Element>(
        py: Python<'py>,
        x: &PyReadonlyArray2<'py, T>,
        loc: &PyReadonlyArray2<'py, U>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (x, loc) = (x.as_array(), loc.as_array());
        let distances = gate::run(py, nanoseconds(x.len(), PASS), |control| {
            vmf::one_minus_dot(x, loc, control)
        })?;
        Ok(distances.into_pyarray(py))
    }
    match (x, loc) {
        (Matrix::Double(x), Matrix::Double(loc)) => run(py, &x, &loc),
        (Matrix::Double(x), Matrix::Single(loc)) => run(py, &x, &loc),
        (Matrix::Single(x), Matrix::Double(loc)) => run(py, &x, &loc),
        (Matrix::Single(x), Matrix::Single(loc)) => run(py, &x, &loc),
    }
}
