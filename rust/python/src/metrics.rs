//! `pyprobe.metrics`: sums over pairs of points.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyprobe_core::Real;
use pyprobe_core::metrics::{self, Kernel, Sample};

use crate::gate;

/// Picoseconds a coordinate of a pair, and a pair beyond them, on one thread.
const COORDINATE: usize = 150;
const PAIR: usize = 1000;

/// Two matrices of one float type.
#[derive(FromPyObject)]
pub enum Pair<'py> {
    /// float64
    Double(PyReadonlyArray2<'py, f64>, PyReadonlyArray2<'py, f64>),
    /// float32
    Single(PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>),
}

/// The weights of both.
type Weights<'py> = (PyReadonlyArray1<'py, f64>, PyReadonlyArray1<'py, f64>);

/// The kernels, in the order of the constants in `pyprobe/metrics/_pairs.py`.
fn kernel(number: u8, bandwidth: f64) -> Kernel {
    match number {
        0 => Kernel::Distance,
        1 => Kernel::Gaussian(bandwidth),
        2 => Kernel::Laplace(bandwidth),
        _ => Kernel::InverseMultiquadric(bandwidth),
    }
}

fn samples<'a, T: Real + Element>(
    x: &'a PyReadonlyArray2<'_, T>,
    y: &'a PyReadonlyArray2<'_, T>,
    weights: &'a Weights<'_>,
) -> [Sample<'a, T>; 2] {
    [
        Sample { points: x.as_array(), weights: weights.0.as_array() },
        Sample { points: y.as_array(), weights: weights.1.as_array() },
    ]
}

/// Nanoseconds that it takes to look at this many pairs.
fn work(pairs: usize, dim: usize) -> usize {
    pairs.saturating_mul(COORDINATE * dim + PAIR) / 1000
}

/// The sums of a kernel over the pairs of different rows of `x`, over those of `y`, and over all
/// pairs of a row of `x` and a row of `y`.
#[pyfunction]
pub fn pair_sums(
    py: Python<'_>,
    samples: Pair<'_>,
    weights: Weights<'_>,
    number: u8,
    bandwidth: f64,
) -> PyResult<(f64, f64, f64)> {
    fn run<T: Real + Element>(
        py: Python<'_>,
        [x, y]: [Sample<'_, T>; 2],
        kernel: Kernel,
    ) -> PyResult<(f64, f64, f64)> {
        let (n, m) = (x.points.nrows(), y.points.nrows());
        let pairs = n.saturating_mul(n) / 2 + m.saturating_mul(m) / 2 + n.saturating_mul(m);
        let sums = gate::run(py, work(pairs, x.points.ncols()), |control| {
            metrics::pair_sums(x, y, kernel, control)
        })?;
        Ok((sums.xx, sums.yy, sums.xy))
    }
    let kernel = kernel(number, bandwidth);
    match &samples {
        Pair::Double(x, y) => run(py, self::samples(x, y, &weights), kernel),
        Pair::Single(x, y) => run(py, self::samples(x, y, &weights), kernel),
    }
}

/// The derivative of `within xx + between xy` in the points of `x`, shape (n, d), and in its
/// weights, shape (n,).
#[pyfunction]
pub fn pair_sums_gradient<'py>(
    py: Python<'py>,
    samples: Pair<'py>,
    weights: Weights<'py>,
    number: u8,
    bandwidth: f64,
    within: f64,
    between: f64,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<f64>>)> {
    fn run<'py, T: Real + Element>(
        py: Python<'py>,
        [x, y]: [Sample<'_, T>; 2],
        kernel: Kernel,
        within: f64,
        between: f64,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<f64>>)> {
        let (n, m) = (x.points.nrows(), y.points.nrows());
        let pairs = n.saturating_mul(n).saturating_add(n.saturating_mul(m));
        let gradient = gate::run(py, 2 * work(pairs, x.points.ncols()), |control| {
            metrics::gradient(x, y, kernel, within, between, control)
        })?;
        Ok((gradient.points.into_pyarray(py).into_any(), gradient.weights.into_pyarray(py)))
    }
    let kernel = kernel(number, bandwidth);
    match &samples {
        Pair::Double(x, y) => run(py, self::samples(x, y, &weights), kernel, within, between),
        Pair::Single(x, y) => run(py, self::samples(x, y, &weights), kernel, within, between),
    }
}
