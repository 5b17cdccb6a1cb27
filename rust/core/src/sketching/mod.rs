//! Tall data made small: scores of rows, draws of them, and sketches.

mod gaussian;
mod hadamard;
mod regression;
mod sparse;
mod srht;

pub use gaussian::Gaussian;
pub use hadamard::walsh_hadamard;
pub use regression::{Residual, normal_equations, residual};
pub use sparse::SparseSign;
pub use srht::{Srht, srht_rows, srht_signs};

use ndarray::ArrayView2;

use crate::Error;

/// The sum of two arrays of one length, in the first.
fn add(mut a: Vec<f64>, b: Vec<f64>) -> Vec<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

fn scale(values: &mut [f64], factor: f64) {
    values.iter_mut().for_each(|value| *value *= factor);
}

/// The shape of what a transposed sketch of `m` rows is multiplied with.
fn check_rows(y: ArrayView2<'_, f64>, m: usize) -> Result<(usize, usize), Error> {
    if y.nrows() == m {
        return Ok(y.dim());
    }
    Err(Error::Shape { name: "y", expected: format!("({m}, k)"), got: y.shape().to_vec() })
}
