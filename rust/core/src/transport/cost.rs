//! Where costs come from: a stored matrix, or the points of two clouds.

use ndarray::ArrayView2;

use crate::linalg::{Metric, Points};
use crate::simd::Instructions;
use crate::{Error, Real};

/// Columns whose costs are read at once: they stay in registers until what is made of them is written.
pub(super) const LANES: usize = Points::LANES;
/// Bytes between a cost that is read and one that is asked for: what is read while memory answers.
const AHEAD: usize = 4096;
/// Bytes of a line of the cache.
const LINE: usize = 64;

/// A cost matrix of shape (n, m), read row by row in panels of [`Points::LANES`] columns.
///
/// An entry of plus infinity forbids the pair; NaN and minus infinity are the caller's to refuse.
pub trait Cost: Sync {
    /// (n, m)
    fn shape(&self) -> (usize, usize);

    /// The costs of row `i` and the `n` columns from `start` on, a multiple of [`Points::LANES`], and
    /// any numbers behind them. Inlined into vectorised loops, where `n` is a constant:
    /// implementations are `#[inline(always)]`.
    fn panel(&self, i: usize, start: usize, n: usize) -> [f64; LANES];

    /// Asks for what a panel some way behind this one will be made of, without waiting for it.
    #[inline(always)]
    fn prefetch(&self, _on: Instructions, _i: usize, _start: usize) {}

    /// Writes `value(costs, others)` for the costs of row `i` and the numbers of `others` beside them,
    /// a panel at a time. Behind the last column costs are infinite, and the others 0.
    #[inline(always)]
    fn map(
        &self,
        on: Instructions,
        i: usize,
        others: &[f64],
        out: &mut [f64],
        mut value: impl FnMut([f64; LANES], [f64; LANES]) -> [f64; LANES],
    ) {
        let (out, out_rest) = out.as_chunks_mut();
        let (others, others_rest) = others.as_chunks();
        for (k, (out, others)) in out.iter_mut().zip(others).enumerate() {
            self.prefetch(on, i, k * LANES);
            *out = value(self.panel(i, k * LANES, LANES), *others);
        }
        let n = out_rest.len();
        if n > 0 {
            let (mut costs, mut last) = (self.panel(i, out.len() * LANES, n), [0.0; LANES]);
            costs[n..].fill(f64::INFINITY);
            last[..n].copy_from_slice(others_rest);
            out_rest.copy_from_slice(&value(costs, last)[..n]);
        }
    }

    /// Writes the costs of row `i`.
    #[inline(always)]
    fn fill(&self, i: usize, out: &mut [f64]) {
        let (out, rest) = out.as_chunks_mut();
        for (k, out) in out.iter_mut().enumerate() {
            *out = self.panel(i, k * LANES, LANES);
        }
        let n = rest.len();
        if n > 0 {
            rest.copy_from_slice(&self.panel(i, out.len() * LANES, n)[..n]);
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
    fn panel(&self, i: usize, start: usize, n: usize) -> [f64; LANES] {
        let row = &self.values[i * self.n_columns + start..][..n];
        let mut costs = [0.0; LANES];
        if let Some(whole) = row.first_chunk::<LANES>() {
            for l in 0..LANES {
                costs[l] = whole[l].into();
            }
        } else {
            for (cost, &value) in costs.iter_mut().zip(row) {
                *cost = value.into();
            }
        }
        costs
    }

    #[inline(always)]
    fn prefetch(&self, on: Instructions, i: usize, start: usize) {
        let at = i * self.n_columns + start + AHEAD / size_of::<T>();
        for l in (0..LANES).step_by(LINE / size_of::<T>()) {
            on.prefetch(self.values, at + l);
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
    fn panel(&self, i: usize, start: usize, _: usize) -> [f64; LANES] {
        let d = self.y.dim();
        self.y.panel_distances(self.metric, &self.x[i * d..(i + 1) * d], start / LANES)
    }
}
