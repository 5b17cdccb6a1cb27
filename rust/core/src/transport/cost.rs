//! Where costs come from: a stored matrix, or the points of two clouds.

use ndarray::ArrayView2;

use crate::linalg::{Metric, Points};
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

    /// Writes `value(cost, other)` for the costs of row `i` and the columns from `start` on, with the
    /// numbers of `others` beside them; in one pass where the costs are stored.
    #[inline(always)]
    fn map(
        &self,
        i: usize,
        start: usize,
        others: &[f64],
        out: &mut [f64],
        value: impl Fn(f64, f64) -> f64,
    ) {
        self.fill(i, start, out);
        for (out, &other) in out.iter_mut().zip(others) {
            *out = value(*out, other);
        }
    }
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
        for (out, &cost) in out.iter_mut().zip(row) {
            *out = cost.into();
        }
    }

    #[inline(always)]
    fn map(
        &self,
        i: usize,
        start: usize,
        others: &[f64],
        out: &mut [f64],
        value: impl Fn(f64, f64) -> f64,
    ) {
        let row = &self.values[i * self.n_columns + start..];
        for ((out, &cost), &other) in out.iter_mut().zip(row).zip(others) {
            *out = value(cost.into(), other);
        }
    }
}

/// Distances between the points of two clouds, made anew whenever they are read.
#[derive(Debug, Clone)]
pub struct Clouds {
    x: Vec<f64>,
    y: Points,
    metric: Metric,
}

impl Clouds {
    /// From points one a row: `x` of shape (n, d), `y` of shape (m, d).
    ///
    /// # Errors
    /// [`Error::Shape`] where the dimensions differ; [`Error::Memory`].
    pub fn new<T: Real>(
        x: ArrayView2<'_, T>,
        y: ArrayView2<'_, T>,
        metric: Metric,
    ) -> Result<Self, Error> {
        if x.ncols() != y.ncols() {
            return Err(Error::Shape {
                name: "y",
                expected: format!("(m, {})", x.ncols()),
                got: y.shape().to_vec(),
            });
        }
        let x = x.iter().map(|&value| value.into()).collect();
        Ok(Self { x, y: Points::new(y)?, metric })
    }
}

impl Cost for Clouds {
    fn shape(&self) -> (usize, usize) {
        (self.x.len() / self.y.dim().max(1), self.y.n())
    }

    #[inline(always)]
    fn fill(&self, i: usize, start: usize, out: &mut [f64]) {
        let d = self.y.dim();
        self.y.distances(self.metric, &self.x[i * d..(i + 1) * d], start, out);
    }
}
