//! Symmetric positive definite systems, solved by faer on the pool that is current.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Conj, MatMut, MatRef, Par, Spec};
use ndarray::Array2;

use crate::{Control, Error};

fn parallelism(control: &Control) -> Par {
    #[cfg(feature = "parallel")]
    if !control.is_sequential() {
        return Par::rayon(0);
    }
    let _ = control;
    Par::Seq
}

fn view(matrix: &mut Array2<f64>) -> MatMut<'_, f64> {
    let (n, m) = matrix.dim();
    let values = matrix.as_slice_mut().expect("a matrix of our own, in C order");
    MatMut::from_row_major_slice_mut(values, n, m)
}

/// `lower(a) -= x' x` for `x` of `m` columns, row by row.
pub(crate) fn subtract_gram(a: &mut Array2<f64>, x: &[f64], m: usize, control: &Control) {
    add_gram(a, x, m, -1.0, control);
}

/// `lower(a) += factor x' x` for `x` of `m` columns, row by row.
pub(crate) fn add_gram(a: &mut Array2<f64>, x: &[f64], m: usize, factor: f64, control: &Control) {
    let x = MatRef::from_row_major_slice(x, x.len() / m, m);
    matmul(
        view(a),
        BlockStructure::TriangularLower,
        Accum::Add,
        x.transpose(),
        BlockStructure::Rectangular,
        x,
        BlockStructure::Rectangular,
        factor,
        parallelism(control),
    );
}

/// `c = x b` for `x` of rows of length `d` and `b` of rows of length `m`, on the calling thread.
pub(crate) fn multiply(x: &[f64], d: usize, b: &[f64], m: usize, c: &mut [f64]) {
    let n = x.len() / d;
    faer::linalg::matmul::matmul(
        MatMut::from_row_major_slice_mut(c, n, m),
        Accum::Replace,
        MatRef::from_row_major_slice(x, n, d),
        MatRef::from_row_major_slice(b, d, m),
        1.0,
        Par::Seq,
    );
}

/// The factor of a symmetric positive definite matrix.
pub(crate) struct Factor {
    lower: Array2<f64>,
}

impl Factor {
    /// Factors `a`, of which only the lower triangle is read.
    ///
    /// # Errors
    /// [`Error::NotPositiveDefinite`]
    pub(crate) fn new(mut a: Array2<f64>, control: &Control) -> Result<Self, Error> {
        let (n, par) = (a.nrows(), parallelism(control));
        let needs = llt::factor::cholesky_in_place_scratch::<f64>(n, par, Spec::default());
        let mut memory = MemBuffer::new(needs);
        llt::factor::cholesky_in_place(
            view(&mut a),
            llt::factor::LltRegularization::default(),
            par,
            MemStack::new(&mut memory),
            Spec::default(),
        )
        .map_err(|_| Error::NotPositiveDefinite { name: "the system" })?;
        Ok(Self { lower: a })
    }

    /// Replaces `right` by the solution of `a x = right`.
    pub(crate) fn solve(&self, right: &mut [f64], control: &Control) {
        let (n, par) = (right.len(), parallelism(control));
        let lower = self.lower.as_slice().expect("a matrix of our own, in C order");
        let needs = llt::solve::solve_in_place_scratch::<f64>(n, 1, par);
        let mut memory = MemBuffer::new(needs);
        llt::solve::solve_in_place_with_conj(
            MatRef::from_row_major_slice(lower, n, n),
            Conj::No,
            MatMut::from_column_major_slice_mut(right, n, 1),
            par,
            MemStack::new(&mut memory),
        );
    }
}

/// The solution of `a x = right`; only the lower triangle of `a` is read.
///
/// # Errors
/// [`Error::NotPositiveDefinite`]
pub(crate) fn solve(
    a: Array2<f64>,
    mut right: Vec<f64>,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    Factor::new(a, control)?.solve(&mut right, control);
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_of_the_size_of_rounding() {
        for n in [1, 2, 7, 100, 300] {
            let x: Vec<f64> =
                (0..(n + 3) * n).map(|i| ((i * 7919 % 101) as f64 - 50.0) / 50.0).collect();
            let mut a = Array2::from_diag_elem(n, 2.0);
            subtract_gram(&mut a, &[], n, &Control::new());
            let mut plus = Array2::<f64>::zeros((n, n));
            subtract_gram(&mut plus, &x, n, &Control::new());
            a = a - plus;
            let full = Array2::from_shape_fn((n, n), |(i, j)| a[[i.max(j), i.min(j)]]);
            let right: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
            let alone = solve(a.clone(), right.clone(), &Control::sequential()).unwrap();
            let found = solve(a, right.clone(), &Control::new()).unwrap();
            assert_eq!(alone, found, "the number of threads changes nothing");
            let found = ndarray::Array1::from(found);
            let norm = full.iter().map(|v| v.abs()).fold(0.0, f64::max) * n as f64;
            let residual = full.dot(&found) - ndarray::Array1::from(right);
            let scale = f64::EPSILON * norm * found.iter().map(|v| v.abs()).fold(0.0, f64::max);
            assert!(residual.iter().all(|r| r.abs() <= 4.0 * n as f64 * scale), "n = {n}");
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        let a = ndarray::array![[1.0, 0.0], [2.0, 1.0]];
        let refused = solve(a, vec![1.0, 1.0], &Control::sequential());
        assert!(matches!(refused, Err(Error::NotPositiveDefinite { .. })));
    }
}
