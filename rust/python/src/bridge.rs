//! `pyprobe.transport`: light Schrödinger bridges.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArray3, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyprobe_core::random::Key;
use pyprobe_core::transport::bridge::{self, Components, Features, Wanted};
use pyprobe_core::transport::density::{self, Bases};
use pyprobe_core::transport::motion::{self, Bridge};
use pyprobe_core::transport::potential;

use crate::gate;

/// Kind of features, slopes (features, k) and offsets (k,).
type Logits<'py> = (String, PyReadonlyArray2<'py, f64>, PyReadonlyArray1<'py, f64>);

fn components<'a>(logits: &'a Logits<'_>) -> PyResult<Components<'a>> {
    let features = match logits.0.as_str() {
        "spherical" => Features::Spherical,
        "diagonal" => Features::Diagonal,
        "full" => Features::Full,
        other => return Err(PyValueError::new_err(format!("no features are called {other:?}"))),
    };
    Ok(Components { features, slopes: logits.1.as_array(), offsets: logits.2.as_array() })
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
    let (x, weights, components) = (x.as_array(), weights.as_array(), components(&logits)?);
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

/// The log-sum-exp of every row's logits.
#[pyfunction]
pub fn bridge_log_sums<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    logits: Logits<'py>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (x, components) = (x.as_array(), components(&logits)?);
    let sums = gate::run(py, work(x.nrows(), components), |control| {
        bridge::log_sums(x, components, control)
    })?;
    Ok(sums.into_pyarray(py))
}

/// Log-weights (k,), shifts and scales (k, dim), epsilon, origin and velocity (dim,).
type Frame<'py> = (
    PyReadonlyArray1<'py, f64>,
    PyReadonlyArray2<'py, f64>,
    PyReadonlyArray2<'py, f64>,
    f64,
    PyReadonlyArray1<'py, f64>,
    PyReadonlyArray1<'py, f64>,
);

fn bridge_of<'a>(frame: &'a Frame<'_>) -> Bridge<'a> {
    let (log_weights, shifts, scales, epsilon, origin, velocity) = frame;
    Bridge {
        log_weights: log_weights.as_array(),
        shifts: shifts.as_array(),
        scales: scales.as_array(),
        epsilon: *epsilon,
        origin: origin.as_array(),
        velocity: velocity.as_array(),
    }
}

/// Nanoseconds, roughly, of the weights of `n` rows.
fn work_of(n: usize, bridge: Bridge<'_>) -> usize {
    n * (bridge.shifts.len() / 8 + 2 * bridge.log_weights.len()) + 8 * bridge.shifts.len()
}

/// Nanoseconds, roughly, of a turn of `n` rows.
fn turns(n: usize, bases: Bases<'_>) -> usize {
    bases.map_or(0, |bases| n * bases.len() / 16)
}

/// Shapes (n, k) and (n,).
type Weights<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>);

/// Normalized log-weights (n, k) at a time, and the logarithms of their sums before.
#[pyfunction]
pub fn bridge_log_weights<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    t: f64,
) -> PyResult<Weights<'py>> {
    let (x, bridge) = (x.as_array(), bridge_of(&frame));
    let (weights, sums) = gate::run(py, work_of(x.nrows(), bridge), |control| {
        motion::log_weights(x, bridge, t, control)
    })?;
    Ok((weights.into_pyarray(py), sums.into_pyarray(py)))
}

/// The drift (n, dim) at a time.
#[pyfunction]
#[pyo3(signature = (x, frame, bases, t))]
pub fn bridge_drift<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    bases: Option<PyReadonlyArray3<'py, f64>>,
    t: f64,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let (x, bridge) = (x.as_array(), bridge_of(&frame));
    let bases = bases.as_ref().map(|bases| bases.as_array());
    let work = 2 * (work_of(x.nrows(), bridge) + turns(x.nrows(), bases));
    let found = gate::run(py, work, |control| match bases {
        None => motion::drift(x, bridge, t, control),
        bases => density::drift(x, bridge, bases, t, control),
    })?;
    Ok(found.into_pyarray(py))
}

/// The drift (n, dim) at a time for each row.
#[pyfunction]
pub fn bridge_drift_at_times<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    times: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let (x, bridge, times) = (x.as_array(), bridge_of(&frame), times.as_array());
    let found = gate::run(py, 4 * work_of(x.nrows(), bridge), |control| {
        motion::drift_at_times(x, bridge, times, control)
    })?;
    Ok(found.into_pyarray(py))
}

/// Log-densities (n,) of places (n, dim) at a later time, given starts (m, dim), that of row i % m.
#[pyfunction]
#[pyo3(signature = (x, starts, frame, bases, times))]
pub fn bridge_log_density<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    starts: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    bases: Option<PyReadonlyArray3<'py, f64>>,
    times: (f64, f64),
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (x, starts, bridge) = (x.as_array(), starts.as_array(), bridge_of(&frame));
    let bases = bases.as_ref().map(|bases| bases.as_array());
    let work = 2 * (work_of(x.nrows(), bridge) + turns(x.nrows(), bases));
    let found = gate::run(py, work, |control| {
        density::log_density(x, starts, bridge, bases, times, control)
    })?;
    Ok(found.into_pyarray(py))
}

/// Shapes (n,) and (n, dim).
type Slopes<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>);

/// Log-densities as those of `bridge_log_density`, and their gradients in the places.
#[pyfunction]
#[pyo3(signature = (x, starts, frame, bases, times))]
pub fn bridge_log_density_slopes<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    starts: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    bases: Option<PyReadonlyArray3<'py, f64>>,
    times: (f64, f64),
) -> PyResult<Slopes<'py>> {
    let (x, starts, bridge) = (x.as_array(), starts.as_array(), bridge_of(&frame));
    let bases = bases.as_ref().map(|bases| bases.as_array());
    let work = 3 * (work_of(x.nrows(), bridge) + turns(x.nrows(), bases));
    let (values, slopes) = gate::run(py, work, |control| {
        density::log_density_slopes(x, starts, bridge, bases, times, control)
    })?;
    Ok((values.into_pyarray(py), slopes.into_pyarray(py)))
}

/// Logarithms (n,) of the sums of the weights at a time, in the frame.
#[pyfunction]
#[pyo3(signature = (x, frame, bases, t))]
pub fn bridge_log_sums_at<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    bases: Option<PyReadonlyArray3<'py, f64>>,
    t: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (x, bridge) = (x.as_array(), bridge_of(&frame));
    let bases = bases.as_ref().map(|bases| bases.as_array());
    let work = work_of(x.nrows(), bridge) + turns(x.nrows(), bases);
    let sums =
        gate::run(py, work, |control| potential::log_weight_sums(x, bridge, bases, t, control))?;
    Ok(sums.into_pyarray(py))
}

/// As `bridge_log_sums_at`, with a time for each row.
#[pyfunction]
#[pyo3(signature = (x, frame, bases, times))]
pub fn bridge_log_sums_at_times<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    bases: Option<PyReadonlyArray3<'py, f64>>,
    times: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (x, bridge, times) = (x.as_array(), bridge_of(&frame), times.as_array());
    let bases = bases.as_ref().map(|bases| bases.as_array());
    let work = 4 * work_of(x.nrows(), bridge) + turns(x.nrows(), bases);
    let sums = gate::run(py, work, |control| {
        potential::log_weight_sums_at_times(x, bridge, bases, times, control)
    })?;
    Ok(sums.into_pyarray(py))
}

/// Draws (draws, n, dim) of the places at a later time.
#[pyfunction]
pub fn bridge_sample<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
    frame: Frame<'py>,
    times: (f64, f64),
    n_draws: usize,
    key: u128,
) -> PyResult<Bound<'py, PyArray3<f64>>> {
    let (x, bridge) = (x.as_array(), bridge_of(&frame));
    let found = gate::run(py, work_of(x.nrows(), bridge) + 4 * x.len() * n_draws, |control| {
        motion::sample(x, bridge, times, n_draws, Key::new(key), control)
    })?;
    Ok(found.into_pyarray(py))
}

/// Places (draws n times dim,) of Brownian bridges from the starts to the ends (draws, n, dim).
#[pyfunction]
pub fn brownian_bridges<'py>(
    py: Python<'py>,
    starts: PyReadonlyArray2<'py, f64>,
    ends: PyReadonlyArray3<'py, f64>,
    times: PyReadonlyArray1<'py, f64>,
    epsilon: f64,
    key: u128,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (starts, ends, times) = (starts.as_array(), ends.as_array(), times.as_array().to_vec());
    let found = gate::run(py, 4 * ends.len() * times.len(), |control| {
        motion::brownian_bridges(starts, ends, &times, epsilon, Key::new(key), control)
    })?;
    Ok(found.into_pyarray(py))
}
