//! `pyprobe.special`: elementwise kernels on broadcast arrays.

use ndarray::ArrayViewD;
use numpy::{Element, IntoPyArray, PyReadonlyArrayDyn};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyprobe_core::special::{self, Function, Real};

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
    if let (Ok(v), Ok(x)) = (v.extract(), x.extract()) {
        evaluate::<f64>(py, FUNCTIONS[function], mask, &v, &x)
    } else if let (Ok(v), Ok(x)) = (v.extract(), x.extract()) {
        evaluate::<f32>(py, FUNCTIONS[function], mask, &v, &x)
    } else {
        Err(PyTypeError::new_err("two arrays of one float dtype are expected"))
    }
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
    let arrays = gate::run(py, work(&[&v, &x]), |control| {
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

/// Elements of the broadcast result times their cost; too large only for shapes that do not fit.
fn work<T>(arrays: &[&ArrayViewD<'_, T>]) -> usize {
    let n = arrays.iter().map(|array| array.len()).max().unwrap_or(0);
    COST * n
}
