//! `pyprobe.special`: elementwise kernels on broadcast arrays.

use std::collections::HashMap;

use numpy::{Element, IntoPyArray, PyReadonlyArrayDyn};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyprobe_core::Real;
use pyprobe_core::special::{self, Function};

use crate::gate;

/// Nanoseconds an element, roughly: decides whether a call is worth waking the pool for.
const COST: usize = 40;

/// The functions, in the order of the constants in `pyprobe/special/_kernels.py`.
const FUNCTIONS: [Function; 8] = [
    Function::LogIv,
    Function::LogIve,
    Function::LogKv,
    Function::LogKve,
    Function::BesselRatio,
    Function::BesselRatioComplement,
    Function::LogHyp0f1,
    Function::LogMatern,
];

/// Orders of differentiation in (v, x), one a bit of the mask that Python passes.
const DERIVATIVES: [(u8, u8); 6] = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)];

/// Evaluates function number `function` at `(v, x)`, broadcast: one array for each bit of `mask`
/// (see `DERIVATIVES`); the array itself where only one bit is set.
#[pyfunction]
pub fn bessel<'py>(
    py: Python<'py>,
    function: usize,
    mask: u8,
    v: &Bound<'py, PyAny>,
    x: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    type Wide<'py> = PyReadonlyArrayDyn<'py, f64>;
    type Narrow<'py> = PyReadonlyArrayDyn<'py, f32>;
    if let (Ok(v), Ok(x)) = (v.extract::<Wide<'_>>(), x.extract::<Wide<'_>>()) {
        evaluate(py, FUNCTIONS[function], mask, &v, &x)
    } else if let (Ok(v), Ok(x)) = (v.extract::<Narrow<'_>>(), x.extract::<Narrow<'_>>()) {
        evaluate(py, FUNCTIONS[function], mask, &v, &x)
    } else {
        Err(PyTypeError::new_err("two arrays of one float dtype are expected"))
    }
}

/// As `bessel` for one point and one bit: numbers cross at a fraction of what arrays cost.
#[pyfunction]
pub fn bessel_at(function: usize, mask: u8, v: f64, x: f64) -> PyResult<f64> {
    let derivative = DERIVATIVES[mask.trailing_zeros() as usize];
    special::evaluate_at(FUNCTIONS[function], derivative, v, x).map_err(gate::exception)
}

fn evaluate<'py, T: Real + Element>(
    py: Python<'py>,
    function: Function,
    mask: u8,
    v: &PyReadonlyArrayDyn<'py, T>,
    x: &PyReadonlyArrayDyn<'py, T>,
) -> PyResult<Bound<'py, PyAny>> {
    let (v, x) = (v.as_array(), x.as_array());
    let wanted: Vec<_> =
        (0..6).filter(|bit| mask >> bit & 1 == 1).map(|bit| DERIVATIVES[bit]).collect();
    let arrays = gate::run(py, work(&[v.shape(), x.shape()]), |control| {
        special::evaluate(function, &wanted, v, x, control)
    })?;
    let mut arrays = arrays.into_iter().map(|array| array.into_pyarray(py));
    match (arrays.next(), wanted.len()) {
        (Some(first), 1) => Ok(first.into_any()),
        (first, _) => {
            Ok(PyTuple::new(py, first.into_iter().chain(arrays).collect::<Vec<_>>())?.into_any())
        }
    }
}

/// The x with `bessel_ratio(v, x) = r`; `complement` is 1 - r, which counts where r is near 1.
#[pyfunction]
#[pyo3(signature = (v, r, complement=None))]
pub fn bessel_ratio_inverse<'py>(
    py: Python<'py>,
    v: &Bound<'py, PyAny>,
    r: &Bound<'py, PyAny>,
    complement: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    if v.extract::<PyReadonlyArrayDyn<'py, f64>>().is_ok() {
        invert::<f64>(py, v, r, complement)
    } else {
        invert::<f32>(py, v, r, complement)
    }
}

fn invert<'py, T: Real + Element>(
    py: Python<'py>,
    v: &Bound<'py, PyAny>,
    r: &Bound<'py, PyAny>,
    complement: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let array = |value: &Bound<'py, PyAny>| value.extract::<PyReadonlyArrayDyn<'py, T>>();
    let (v, r, complement) = (array(v)?, array(r)?, complement.map(array).transpose()?);
    let (v, r) = (v.as_array(), r.as_array());
    let complement = complement.as_ref().map(PyReadonlyArrayDyn::as_array);
    // A few evaluations an element.
    let cost = 6 * work(&[v.shape(), r.shape(), complement.as_ref().map_or(&[], |c| c.shape())]);
    let result = gate::run(py, cost, |control| special::invert_ratio(v, r, complement, control))?;
    Ok(result.into_pyarray(py).into_any())
}

/// The tables of coefficients behind the kernels, for the torch twin.
#[pyfunction]
pub fn special_tables() -> HashMap<&'static str, &'static [f64]> {
    HashMap::from(special::tables())
}

/// Nanoseconds for the broadcast result: elements times their cost.
fn work(shapes: &[&[usize]]) -> usize {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    // Axes are aligned at the last one; where lengths do not fit, the kernel will say so.
    let length = |axis: usize| {
        let lengths = shapes.iter().map(|shape| shape.iter().rev().nth(axis).copied().unwrap_or(1));
        lengths.reduce(|a, b| if a == 1 { b } else { a }).unwrap_or(1)
    };
    (0..rank).map(length).fold(COST, usize::saturating_mul)
}
