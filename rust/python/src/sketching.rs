//! `pyprobe.sketching`: scores of rows, and draws of them.

use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyprobe_core::linalg::{Lanes, Rows};
use pyprobe_core::ndarray::ArrayView1;
use pyprobe_core::random::Key;
use pyprobe_core::sketching::{self, Frame, Level};

use crate::gate;
use crate::mixture::{Matrix, Samples};

/// Factors of the columns, or a matrix that rows are multiplied by.
#[derive(FromPyObject)]
pub enum Basis<'py> {
    /// (d,)
    Scales(PyReadonlyArray1<'py, f64>),
    /// (d, r)
    Matrix(PyReadonlyArray2<'py, f64>),
}

fn frame<'a, T: Lanes + Element>(
    x: &'a Matrix<'_, T>,
    basis: Option<&Basis<'_>>,
) -> PyResult<Frame<'a, T>> {
    let rows = x.rows()?;
    match basis {
        None => Ok(Frame::plain(rows)),
        Some(Basis::Scales(scales)) => {
            Frame::scaled(rows, scales.as_slice()?).map_err(gate::exception)
        }
        Some(Basis::Matrix(matrix)) => {
            Frame::transformed(rows, matrix.as_array()).map_err(gate::exception)
        }
    }
}

/// Nanoseconds, roughly, of a product of all rows with as many columns as the frame has.
fn work<T: Lanes>(frame: &Frame<'_, T>) -> usize {
    frame.n_rows() * (frame.width() + 8) * (frame.width() + 8) / 16
}

/// The Gram matrix (r, r) of the rows in a basis, with weights (n,) where they are given.
#[pyfunction]
#[pyo3(signature = (x, basis=None, weights=None))]
pub fn rows_gram<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    basis: Option<Basis<'py>>,
    weights: Option<PyReadonlyArray1<'py, f64>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'_, T>,
        basis: Option<&Basis<'_>>,
        weights: Option<&[f64]>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let frame = frame(x, basis)?;
        let sum = gate::run(py, work(&frame), |control| sketching::gram(&frame, weights, control))?;
        Ok(sum.into_pyarray(py))
    }
    let weights = weights.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    match &x {
        Samples::Double(x) => on(py, x, basis.as_ref(), weights),
        Samples::Single(x) => on(py, x, basis.as_ref(), weights),
    }
}

/// Rows that `rows_gram` and `lewis_step` sum up before they add the sums in pairs.
#[pyfunction]
pub fn rows_leaf() -> usize {
    sketching::LEAF
}

/// The largest modulus (d,) of every column; an error that names the first entry that is not finite.
#[pyfunction]
pub fn column_maxima<'py>(py: Python<'py>, x: Samples<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        rows: Rows<'_, T>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let work = rows.n_rows() * rows.n_columns() / 4;
        let maxima = gate::run(py, work, |control| rows.column_maxima("a", control))?;
        Ok(maxima.into_pyarray(py))
    }
    match &x {
        Samples::Double(x) => on(py, x.rows()?),
        Samples::Single(x) => on(py, x.rows()?),
    }
}

/// The squared norms (n,) of the rows times a matrix.
#[pyfunction]
pub fn rows_squared_norms<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    transform: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'_, T>,
        transform: &PyReadonlyArray2<'_, f64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (frame, transform) = (frame(x, None)?, transform.as_array());
        let norms = gate::run(py, work(&frame), |control| {
            sketching::squared_norms(&frame, transform, control)
        })?;
        Ok(norms.into_pyarray(py))
    }
    match &x {
        Samples::Double(x) => on(py, x, &transform),
        Samples::Single(x) => on(py, x, &transform),
    }
}

/// New logarithms (n,) of weights, the Gram matrix (r, r) for the next step, and the largest residual
/// before this one.
type Step<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>, f64);

/// One step of the iteration for Lewis weights.
#[pyfunction]
pub fn lewis_step<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    basis: Option<Basis<'py>>,
    transform: PyReadonlyArray2<'py, f64>,
    log_w: PyReadonlyArray1<'py, f64>,
    p: f64,
    c: f64,
) -> PyResult<Step<'py>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'_, T>,
        basis: Option<&Basis<'_>>,
        transform: &PyReadonlyArray2<'_, f64>,
        log_w: ArrayView1<'_, f64>,
        (p, c): (f64, f64),
    ) -> PyResult<Step<'py>> {
        let (frame, transform) = (frame(x, basis)?, transform.as_array());
        let (log_w, sum, worst) = gate::run(py, 2 * work(&frame), |control| {
            let mut log_w = log_w.to_vec();
            let (sum, worst) = sketching::lewis_step(&frame, transform, &mut log_w, p, c, control)?;
            Ok((log_w, sum, worst))
        })?;
        Ok((log_w.into_pyarray(py), sum.into_pyarray(py), worst))
    }
    let log_w = log_w.as_array();
    match &x {
        Samples::Double(x) => on(py, x, basis.as_ref(), &transform, log_w, (p, c)),
        Samples::Single(x) => on(py, x, basis.as_ref(), &transform, log_w, (p, c)),
    }
}

/// For every row (n,) times `transform`, the weighted sum of `|row . points_j|^p`.
#[pyfunction]
pub fn pair_power_sums<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    transform: PyReadonlyArray2<'py, f64>,
    points: PyReadonlyArray2<'py, f64>,
    weights: PyReadonlyArray1<'py, f64>,
    p: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'_, T>,
        transform: &PyReadonlyArray2<'_, f64>,
        (points, weights): (&PyReadonlyArray2<'_, f64>, &[f64]),
        p: f64,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (frame, transform) = (frame(x, None)?, transform.as_array());
        let points = points.as_array();
        let work = work(&frame) + frame.n_rows() * points.len() / 8;
        let sums = gate::run(py, work, |control| {
            sketching::pair_power_sums(&frame, transform, points, weights, p, control)
        })?;
        Ok(sums.into_pyarray(py))
    }
    let among = (&points, weights.as_slice()?);
    match &x {
        Samples::Double(x) => on(py, x, &transform, among, p),
        Samples::Single(x) => on(py, x, &transform, among, p),
    }
}

/// For every column (k,) of `directions`, the weighted sum of `|row . direction|^p` over the
/// rows.
#[pyfunction]
pub fn power_sums<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    directions: PyReadonlyArray2<'py, f64>,
    weights: Option<PyReadonlyArray1<'py, f64>>,
    p: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn on<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'_, T>,
        directions: &PyReadonlyArray2<'_, f64>,
        weights: Option<&[f64]>,
        p: f64,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (frame, directions) = (frame(x, None)?, directions.as_array());
        let work = frame.n_rows() * directions.len() / 8;
        let sums = gate::run(py, work, |control| {
            sketching::power_sums(&frame, directions, weights, p, control)
        })?;
        Ok(sums.into_pyarray(py))
    }
    let weights = weights.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    match &x {
        Samples::Double(x) => on(py, x, &directions, weights, p),
        Samples::Single(x) => on(py, x, &directions, weights, p),
    }
}

/// Bounds from below and from above.
type Bounds<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>);

/// Bounds (k,) of the sensitivities of `targets` (k, r) among `points` (m, r) of weights (m,).
#[pyfunction]
#[expect(clippy::too_many_arguments)] // those of the kernel
pub fn exact_sensitivities<'py>(
    py: Python<'py>,
    points: PyReadonlyArray2<'py, f64>,
    weights: PyReadonlyArray1<'py, f64>,
    targets: PyReadonlyArray2<'py, f64>,
    p: f64,
    tol: f64,
    max_iter: usize,
    callback: Option<Bound<'py, PyAny>>,
) -> PyResult<Bounds<'py>> {
    let (points, weights, targets) = (points.as_array(), weights.as_array(), targets.as_array());
    let work = 10 * targets.nrows() * points.len() * points.ncols() / 16;
    let callback = callback.map(Bound::unbind);
    let watch = |py: Python<'_>, done: u64, _: f64| -> PyResult<bool> {
        callback.as_ref().map_or(Ok(()), |call| call.call1(py, (done,)).map(|_| ()))?;
        Ok(true)
    };
    let (lower, upper) = gate::run_watched(
        py,
        work,
        |control| {
            sketching::exact_sensitivities(points, weights, targets, p, (tol, max_iter), control)
        },
        watch,
    )?;
    Ok((lower.into_pyarray(py), upper.into_pyarray(py)))
}

/// A uniform variate (n,) for each of the rows from `start`.
#[pyfunction]
pub fn row_uniforms(
    py: Python<'_>,
    key: u128,
    start: u64,
    n: usize,
) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let uniforms =
        gate::run(py, n, |control| sketching::row_uniforms(Key::new(key), start, n, control))?;
    Ok(uniforms.into_pyarray(py))
}

fn contiguous<'a>(scores: &'a PyReadonlyArray1<'_, f64>) -> PyResult<ArrayView1<'a, f64>> {
    Ok(ArrayView1::from(scores.as_slice()?))
}

/// The two factors of a level, a power of two first.
type Factors = (f64, f64);

/// The level that makes probabilities of scores (n,) add up to `size`, as two factors; `None` where no
/// more scores are positive.
#[pyfunction]
pub fn water_level(
    py: Python<'_>,
    scores: PyReadonlyArray1<'_, f64>,
    size: f64,
) -> PyResult<Option<Factors>> {
    let scores = contiguous(&scores)?;
    let level =
        gate::run(py, 4 * scores.len(), |control| sketching::water_level(scores, size, control))?;
    Ok(level.map(|level| (level.scale, level.factor)))
}

/// The probabilities (n,) of rows at a level.
#[pyfunction]
pub fn row_probabilities<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray1<'py, f64>,
    level: Factors,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let scores = contiguous(&scores)?;
    let level = Level { scale: level.0, factor: level.1 };
    let found = gate::run(py, scores.len(), |control| level.probabilities(scores, control))?;
    Ok(found.into_pyarray(py))
}

/// The numbers of the rows that are kept with their probabilities at a level.
#[pyfunction]
pub fn bernoulli_rows<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray1<'py, f64>,
    level: Factors,
    key: u128,
    start: u64,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let scores = contiguous(&scores)?;
    let level = Level { scale: level.0, factor: level.1 };
    let kept = gate::run(py, 2 * scores.len(), |control| {
        sketching::bernoulli(scores, level, Key::new(key), start, control)
    })?;
    Ok(kept.into_pyarray(py))
}

/// The numbers of the rows that the pivotal method keeps.
#[pyfunction]
pub fn pivotal_rows<'py>(
    py: Python<'py>,
    probabilities: PyReadonlyArray1<'py, f64>,
    key: u128,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let probabilities = contiguous(&probabilities)?;
    let kept = gate::run(py, 4 * probabilities.len(), |control| {
        sketching::pivotal(probabilities, Key::new(key), control)
    })?;
    Ok(kept.into_pyarray(py))
}
