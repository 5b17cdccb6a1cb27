//! Where costs come from: a stored matrix.

use ndarray::ArrayView2;

use crate::{Error, Real};

/// A cost matrix of shape (n, m), read row by row in pieces.
///
/// An entry of plus infinity forbids the pair; NaN and minus infinity are the caller's to refuse.
pub trait Cost: Sync {
    /// (n, m)
    fn shape(&self) -> (usize, usize);

    /// Writes the costs of row `i` and the columns from `start` on. Inlined into vectorised loops:
    /// implementations are `#[inline(always)]`.
    fn fill(&self, i: usize, start: usize, out: &mut [f64]);
}

/// A stored matrix in C order.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a, T> {
    values: &'a [T],
    n_columns: usize,
}

impl<'a, T: Real> Dense<'a, T> {
    /// The matrix itself, not a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] where the rows do not lie one after the other.
    pub fn new(cost: ArrayView2<'a, T>) -> Result<Self, Error> {
        let values = cost.to_slice().ok_or_else(|| Error::Shape {
            name: "cost",
            expected: "a matrix in C order".into(),
            got: cost.shape().to_vec(),
        })?;
        Ok(Self { values, n_columns: cost.ncols() })
    }
}

impl<T: Real + Sync> Cost for Dense<'_, T> {
    fn shape(&self) -> (usize, usize) {
        (self.values.len() / self.n_columns.max(1), self.n_columns)
    }

    #[inline(always)]
    fn fill(&self, i: usize, start: usize, out: &mut [f64]) {
        let row = &self.values[i * self.n_columns + start..];
        for (out, &value) in out.iter_mut().zip(row) {
            *out = value.into();
        }
    }
}
