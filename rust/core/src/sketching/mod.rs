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

mod deviations;
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
pub use sampling::{Level, bernoulli, pivotal, row_uniforms, water_level};
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

/// Most rows of an input: numbers of rows and of groups of them can be added.
const LONGEST: usize = usize::MAX / 2;

/// Fails where an input of `n_input` rows has no rows `start..`, as many as `shape` says.
fn check_part(
    name: &'static str,
    start: usize,
    shape: [usize; 2],
    n_input: usize,
) -> Result<(), Error> {
    let left = n_input.saturating_sub(start);
    if shape[0] <= left {
        return Ok(());
    }
    let expected = format!("(at most {left} from row {start} on, ...)");
    Err(Error::Shape { name, expected, got: shape.to_vec() })
}

/// Fails where a sketch has no rows.
fn check_n_rows(n_rows: usize) -> Result<(), Error> {
    if n_rows > 0 {
        return Ok(());
    }
    Err(Error::Domain { name: "n_rows", expected: "at least 1", got: 0.0 })
}

/// The shape of what a transposed sketch of `m` rows is multiplied with.
fn check_rows(y: ArrayView2<'_, f64>, m: usize) -> Result<(usize, usize), Error> {
    panel::check("y", m, y.nrows(), y.shape())?;
    Ok(y.dim())
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::Control;
    use crate::linalg::Rows;
    use crate::random::Key;

    const X: Rows<'_, f64> = Rows::Dense { values: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], n_columns: 2 };

    fn at_fault<T: core::fmt::Debug>(found: Result<T, Error>) -> &'static str {
        match found {
            Err(Error::Domain { name, .. } | Error::Shape { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sketches_that_cannot_be_are_refused() {
        let (control, key, y) = (Control::new(), Key::new(0), Array2::zeros((0, 2)));
        let none = Gaussian { n_rows: 0, key };
        assert_eq!(at_fault(none.apply(X, 0, &control)), "n_rows");
        assert_eq!(at_fault(none.apply_transpose(y.view(), 3, &control)), "n_rows");
        assert_eq!(at_fault(none.columns(0..3, &control)), "n_rows");
        for (n_rows, n_nonzeros, name) in
            [(0, 0, "n_rows"), (4, 0, "n_nonzeros"), (4, 5, "n_nonzeros"), (1 << 32, 1, "n_rows")]
        {
            let sparse = SparseSign { n_rows, n_nonzeros, key };
            assert_eq!(at_fault(sparse.apply(X, 0, &control)), name);
            assert_eq!(at_fault(sparse.apply_transpose(y.view(), 3, &control)), name);
            assert_eq!(at_fault(sparse.columns(0..3, &control)), name);
        }
        // Three rows are padded to four.
        for (rows, n_input, name) in [(&[1, 4][..], 3, "rows"), (&[0], usize::MAX, "n_input")] {
            let srht = Srht { rows, n_input, key };
            assert_eq!(at_fault(srht.apply(X, 0, &control)), name);
            assert_eq!(at_fault(srht.apply_transpose(y.view(), &control)), name);
        }
        assert_eq!(at_fault(srht_rows(5, 4, key, &control)), "m");
    }

    #[test]
    fn rows_beyond_the_input_are_refused() {
        let (control, key) = (Control::new(), Key::new(0));
        let (gaussian, sparse) =
            (Gaussian { n_rows: 2, key }, SparseSign { n_rows: 2, n_nonzeros: 1, key });
        let srht = Srht { rows: &[0, 2], n_input: 3, key };
        assert_eq!(at_fault(srht.apply(X, 1, &control)), "x");
        let last = usize::MAX - 1;
        assert_eq!(at_fault(srht.apply(X, last, &control)), "x");
        assert_eq!(at_fault(gaussian.apply(X, last, &control)), "x");
        assert_eq!(at_fault(sparse.apply(X, last, &control)), "x");
        assert_eq!(at_fault(gaussian.columns(last..usize::MAX, &control)), "range");
        assert_eq!(at_fault(sparse.columns(last..usize::MAX, &control)), "range");
        assert_eq!(at_fault(srht_signs(last..usize::MAX, key, &control)), "range");
        let y = Array2::zeros((3, 1));
        assert_eq!(at_fault(srht.apply_transpose(y.view(), &control)), "y");
        assert_eq!(at_fault(sparse.apply_transpose(y.view(), 3, &control)), "y");
        assert_eq!(at_fault(gaussian.apply_transpose(y.view(), 3, &control)), "y");
    }

    #[test]
    fn nothing_gives_nothing() {
        let (control, key) = (Control::new(), Key::new(0));
        let (gaussian, sparse) =
            (Gaussian { n_rows: 2, key }, SparseSign { n_rows: 2, n_nonzeros: 1, key });
        let srht = Srht { rows: &[0, 2], n_input: 3, key };
        let x: Rows<'_, f64> = Rows::Dense { values: &[], n_columns: 0 };
        for start in [0, 1] {
            assert_eq!(srht.apply(x, start, &control).unwrap().dim(), (2, 0));
            assert_eq!(sparse.apply(x, start, &control).unwrap().dim(), (2, 0));
            assert_eq!(gaussian.apply(x, start, &control).unwrap().dim(), (2, 0));
        }
        let y = Array2::zeros((2, 0));
        assert_eq!(srht.apply_transpose(y.view(), &control).unwrap().dim(), (3, 0));
        assert_eq!(sparse.apply_transpose(y.view(), 3, &control).unwrap().dim(), (3, 0));
        assert_eq!(gaussian.apply_transpose(y.view(), 3, &control).unwrap().dim(), (3, 0));
        #[allow(clippy::reversed_empty_ranges)] // as a caller may compute them
        let backwards = 5..2;
        assert_eq!(gaussian.columns(backwards.clone(), &control).unwrap().dim(), (0, 2));
        assert_eq!(sparse.columns(backwards.clone(), &control).unwrap().0.dim(), (0, 1));
        assert!(srht_signs(backwards, key, &control).unwrap().is_empty());
    }

    #[test]
    fn a_cancelled_control_ends_what_makes_columns() {
        let (control, key) = (Control::new(), Key::new(0));
        control.cancel();
        let (gaussian, sparse) =
            (Gaussian { n_rows: 2, key }, SparseSign { n_rows: 2, n_nonzeros: 1, key });
        assert_eq!(gaussian.columns(0..9, &control), Err(Error::Cancelled));
        assert_eq!(sparse.columns(0..9, &control), Err(Error::Cancelled));
        assert_eq!(srht_signs(0..9, key, &control), Err(Error::Cancelled));
        assert_eq!(srht_rows(4000, 4096, key, &control), Err(Error::Cancelled));
    }
}
