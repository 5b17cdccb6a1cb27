//! `pyprobe.sketching`: sketches of tall data, and the sums that least squares need.

use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyprobe_core::linalg::Lanes;
use pyprobe_core::random::Key;
use pyprobe_core::sketching::{self, Frame, Gaussian, SparseSign, Srht};

use crate::gate;
use crate::mixture::{Matrix, Samples, entries};

/// `(kind, n_rows, n_input, n_nonzeros, key, rows)`; `rows` are those that an SRHT keeps.
#[derive(FromPyObject)]
pub struct Sketch<'py>(String, usize, usize, usize, u128, Option<PyReadonlyArray1<'py, u64>>);

enum Kind<'a> {
    Srht(Srht<'a>),
    Sparse(SparseSign),
    Gaussian(Gaussian),
}

impl Sketch<'_> {
    fn kind(&self) -> PyResult<Kind<'_>> {
        let (n_rows, key) = (self.1, Key::new(self.4));
        Ok(match (&*self.0, &self.5) {
            ("srht", Some(rows)) => {
                Kind::Srht(Srht { rows: rows.as_slice()?, n_input: self.2, key })
            }
            ("gaussian", _) => Kind::Gaussian(Gaussian { n_rows, key }),
            _ => Kind::Sparse(SparseSign { n_rows, n_nonzeros: self.3, key }),
        })
    }

    /// Nanoseconds, roughly, for this many rows and entries.
    fn work(&self, rows: usize, entries: usize) -> usize {
        match &*self.0 {
            "srht" => entries.saturating_mul(3),
            "gaussian" => (rows * 3 + entries / 8).saturating_mul(self.1),
            _ => (rows * 4 + entries).saturating_mul(self.3),
        }
    }
}

/// What rows `start..` of the input, which are `x`, add to the sketch of all: shape (m, d).
#[pyfunction]
pub fn sketch_apply<'py>(
    py: Python<'py>,
    sketch: Sketch<'py>,
    x: Samples<'py>,
    start: usize,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    fn run<'py, T: Lanes + Element>(
        py: Python<'py>,
        sketch: &Sketch<'py>,
        x: &Matrix<'py, T>,
        start: usize,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (kind, rows) = (sketch.kind()?, x.rows()?);
        let work = sketch.work(rows.n_rows(), entries(rows));
        let found = gate::run(py, work, |control| match kind {
            Kind::Srht(sketch) => sketch.apply(rows, start, control),
            Kind::Sparse(sketch) => sketch.apply(rows, start, control),
            Kind::Gaussian(sketch) => sketch.apply(rows, start, control),
        })?;
        Ok(found.into_pyarray(py))
    }
    match x {
        Samples::Double(x) => run(py, &sketch, &x, start),
        Samples::Single(x) => run(py, &sketch, &x, start),
    }
}

/// The product of the transposed sketch with `y`, of shape (m, k): shape (n, k).
#[pyfunction]
pub fn sketch_apply_transpose<'py>(
    py: Python<'py>,
    sketch: Sketch<'py>,
    y: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let (kind, n, y) = (sketch.kind()?, sketch.2, y.as_array());
    let work = sketch.work(n, n.saturating_mul(y.ncols()));
    let found = gate::run(py, work, |control| match kind {
        Kind::Srht(sketch) => sketch.apply_transpose(y, control),
        Kind::Sparse(sketch) => sketch.apply_transpose(y, n, control),
        Kind::Gaussian(sketch) => sketch.apply_transpose(y, n, control),
    })?;
    Ok(found.into_pyarray(py))
}

/// The rows of the transform of `n` rows that an SRHT of `m` rows keeps, rising.
#[pyfunction]
pub fn sketch_srht_rows(
    py: Python<'_>,
    m: usize,
    n: usize,
    key: u128,
) -> PyResult<Bound<'_, PyArray1<u64>>> {
    let rows = gate::run(py, m.saturating_mul(200), |control| {
        sketching::srht_rows(m, n, Key::new(key), control)
    })?;
    Ok(rows.into_pyarray(py))
}

/// The signs of the `n` input rows of an SRHT.
#[pyfunction]
pub fn sketch_srht_signs(
    py: Python<'_>,
    n: usize,
    key: u128,
) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let signs = gate::run(py, n, |control| sketching::srht_signs(0..n, Key::new(key), control))?;
    Ok(signs.into_pyarray(py))
}

/// Places (columns, zeta), and the signs there.
type SparseColumns<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray2<f64>>);

/// Where the entries of some columns of a sparse sketch lie and their signs, shape (columns, zeta).
#[pyfunction]
pub fn sketch_sparse_columns<'py>(
    py: Python<'py>,
    sketch: Sketch<'py>,
    start: usize,
    stop: usize,
) -> PyResult<SparseColumns<'py>> {
    let sparse = SparseSign { n_rows: sketch.1, n_nonzeros: sketch.3, key: Key::new(sketch.4) };
    let columns = start..stop;
    let work = columns.len().saturating_mul(sketch.3).saturating_mul(8);
    let (rows, signs) = gate::run(py, work, |control| sparse.columns(columns, control))?;
    Ok((rows.into_pyarray(py), signs.into_pyarray(py)))
}

/// Some columns of a Gaussian sketch, transposed: shape (columns, m).
#[pyfunction]
pub fn sketch_gaussian_columns<'py>(
    py: Python<'py>,
    sketch: Sketch<'py>,
    start: usize,
    stop: usize,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let gaussian = Gaussian { n_rows: sketch.1, key: Key::new(sketch.4) };
    let columns = start..stop;
    let work = columns.len().saturating_mul(sketch.1).saturating_mul(3);
    let normals = gate::run(py, work, |control| gaussian.columns(columns, control))?;
    Ok(normals.into_pyarray(py))
}

/// The Walsh-Hadamard transform down the columns of `x`, whose rows are a power of two in number.
#[pyfunction]
pub fn sketch_walsh_hadamard<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let x = x.as_array();
    let found = gate::run(py, x.len().saturating_mul(3), |control| {
        let mut out = x.as_standard_layout().into_owned();
        let values = out.as_slice_mut().expect("a matrix of our own, in C order");
        sketching::walsh_hadamard(values, x.ncols(), control)?;
        Ok(out)
    })?;
    Ok(found.into_pyarray(py))
}

/// The gradient (d, k) and the squared norms (k,).
type Residual<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>);

/// `x' (b - x beta)`, shape (d, k), and the squared norms of the columns of `b - x beta`.
#[pyfunction]
pub fn sketch_residual<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    b: PyReadonlyArray2<'py, f64>,
    beta: PyReadonlyArray2<'py, f64>,
) -> PyResult<Residual<'py>> {
    fn run<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'py, T>,
        b: &PyReadonlyArray2<'py, f64>,
        beta: &PyReadonlyArray2<'py, f64>,
    ) -> PyResult<Residual<'py>> {
        let (rows, b, beta) = (x.rows()?, b.as_array(), beta.as_array());
        let work = entries(rows).saturating_mul(1 + b.ncols() / 4);
        let found = gate::run(py, work, |control| sketching::residual(rows, b, beta, control))?;
        Ok((found.gradient.into_pyarray(py), found.squared_norms.into_pyarray(py)))
    }
    match x {
        Samples::Double(x) => run(py, &x, &b, &beta),
        Samples::Single(x) => run(py, &x, &b, &beta),
    }
}

/// The Gram matrix of `x` times `scales`, with the products of `b` with it below: shape (d + k, d).
#[pyfunction]
pub fn sketch_normal_equations<'py>(
    py: Python<'py>,
    x: Samples<'py>,
    scales: Option<PyReadonlyArray1<'py, f64>>,
    b: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    fn run<'py, T: Lanes + Element>(
        py: Python<'py>,
        x: &Matrix<'py, T>,
        scales: Option<&[f64]>,
        b: &PyReadonlyArray2<'py, f64>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (rows, b) = (x.rows()?, b.as_array());
        let frame = match scales {
            None => Frame::plain(rows),
            Some(scales) => Frame::scaled(rows, scales).map_err(gate::exception)?,
        };
        let work = frame.n_rows() * (frame.width() + 8) * (frame.width() + 8) / 32;
        let gram = gate::run(py, work, |control| sketching::normal_equations(&frame, b, control))?;
        Ok(gram.into_pyarray(py))
    }
    let scales = scales.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    match x {
        Samples::Double(x) => run(py, &x, scales, &b),
        Samples::Single(x) => run(py, &x, scales, &b),
    }
}
