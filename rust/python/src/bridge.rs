//! `pyprobe.transport`: light Schrödinger bridges.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArray3, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
};
use pyo3::prelude::*;
use pyprobe_core::random::Key;
use pyprobe_core::transport::bridge::{self, Components, Features, Normals, Wanted};

use crate::gate;

/// Kind of features, slopes (features, k) and offsets (k,).
type Logits<'py> = (String, PyReadonlyArray2<'py, f64>, PyReadonlyArray1<'py, f64>);

fn components<'a>(logits: &'a Logits<'_>) -> Components<'a> {
    let features = match logits.0.as_str() {
        "spherical" => Features::Spherical,
        "full" => Features::Full,
        _ => Features::Diagonal,
    };
    Components { features, slopes: logits.1.as_array(), offsets: logits.2.as_array() }
}

/// Nanoseconds, roughly, of a product of `n` rows with the slopes, and of its exponentials.
fn work(n: usize, components: Components<'_>) -> usize {
    n * (components.slopes.len() / 8 + 2 * components.offsets.len())
}

/// Weighted means of the log-sum-exp, of the responsibilities, of the features times them and of
/// their products in pairs; the last two empty unless `moments` and `gram`.
type Pass<'py> =
    (f64, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>);

/// One pass over a sample with weights that sum to one.
#[pyfunction]
pub fn bridge_pass<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    weights: PyReadonlyArray1<'py, f64>,
    logits: Logits<'py>,
    moments: bool,
    gram: bool,
) -> PyResult<Pass<'py>> {
    let (x, weights, components) = (x.as_array(), weights.as_array(), components(&logits));
    let wanted = Wanted { moments, gram };
    let found = gate::run(py, 2 * work(x.nrows(), components), |control| {
        bridge::pass(x, weights, components, wanted, control)
    })?;
    Ok((
        found.value,
        found.masses.into_pyarray(py),
        found.moments.into_pyarray(py),
        found.gram.into_pyarray(py),
    ))
}

/// Shapes (n,) and (n, k).
type Shares<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>);

/// The log-sum-exp of every row's logits, and the responsibilities.
#[pyfunction]
pub fn bridge_responsibilities<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    logits: Logits<'py>,
) -> PyResult<Shares<'py>> {
    let (x, components) = (x.as_array(), components(&logits));
    let (values, shares) = gate::run(py, work(x.nrows(), components), |control| {
        bridge::responsibilities(x, components, control)
    })?;
    Ok((values.into_pyarray(py), shares.into_pyarray(py)))
}

/// Maps and spreads of the components: diagonals (k, d), or matrices and Cholesky factors (k, d, d).
#[derive(FromPyObject)]
pub enum Spread<'py> {
    /// Diagonals
    Diagonal(PyReadonlyArray2<'py, f64>, PyReadonlyArray2<'py, f64>),
    /// Matrices
    Full(PyReadonlyArray3<'py, f64>, PyReadonlyArray3<'py, f64>),
}

/// Draws from the mixtures that the rows of `x` lead to, shape (`n_draws`, n, d).
#[pyfunction]
pub fn bridge_sample<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    logits: Logits<'py>,
    shifts: PyReadonlyArray2<'py, f64>,
    spread: Spread<'py>,
    n_draws: usize,
    key: u128,
) -> PyResult<Bound<'py, PyArray3<f64>>> {
    let (x, components, shifts) = (x.as_array(), components(&logits), shifts.as_array());
    let normals = match &spread {
        Spread::Diagonal(maps, spreads) => Normals::Diagonal(maps.as_array(), spreads.as_array()),
        Spread::Full(maps, factors) => Normals::Full(maps.as_array(), factors.as_array()),
    };
    let cost = work(x.nrows(), components) + 4 * x.len() * n_draws;
    let found = gate::run(py, cost, |control| {
        bridge::sample(x, components, shifts, normals, n_draws, Key::new(key), control)
    })?;
    Ok(found.into_pyarray(py))
}
