//! Tall data made small: scores of rows, draws of them, and sketches.
//!
//! All passes go over a [`Frame`]: the rows of a dense or sparse matrix, in a basis in which they are
//! well conditioned. [`gram`] sums their products, [`squared_norms`] gives leverage scores from the
//! sum, and [`lewis_step`] both at once for the weights of another exponent. [`exact_sensitivities`] and
//! [`pair_power_sums`] bound the part that a row can have in a sum of powers. [`bernoulli`] and
//! [`pivotal`] draw rows by such scores.
//!
//! [`Srht`], [`SparseSign`] and [`Gaussian`] are sketches: random linear maps to few rows, which nearly
//! keep the products of columns. Each gives the part of a chunk of rows, and the parts add up.
//! [`residual`] sums what a step of least squares needs.

mod gaussian;
mod gram;
mod hadamard;
mod panel;
mod power;
mod regression;
mod sampling;
mod scores;
mod sensitivity;
mod sparse;
mod srht;

pub use gaussian::Gaussian;
pub use gram::gram;
pub use hadamard::walsh_hadamard;
pub use panel::{Frame, LEAF};
pub use regression::{Residual, normal_equations, residual};
pub use sampling::{bernoulli, pivotal, row_uniforms, water_level};
pub use scores::{lewis_step, squared_norms};
pub use sensitivity::{exact_sensitivities, pair_power_sums, power_sums};
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
    for value in values {
        *value *= factor;
    }
}

/// The shape of what a transposed sketch of `m` rows is multiplied with.
fn check_rows(y: ArrayView2<'_, f64>, m: usize) -> Result<(usize, usize), Error> {
    panel::check("y", m, y.nrows(), y.shape())?;
    Ok(y.dim())
}
