//! What is read off a plan, row by row: it is never formed unless it is asked for.

use ndarray::{Array2, ArrayView2};

use super::cost::Cost;
use super::rows::{Gibbs, Potentials, add_rows, block_size, exponentials, largest, sum_of};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::simd::vectorize;
use crate::{Control, Error, Real};

/// A plan by its cost, its epsilon and its scaled potentials.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a, C> {
    /// Costs, shape (n, m).
    pub cost: &'a C,
    /// Strength of the entropy.
    pub epsilon: f64,
    /// Where `P_ij = exp(phi_i + gamma_j - C_ij / epsilon)`.
    pub potentials: &'a Potentials,
}

/// Sums over a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// `P 1`, shape (n,).
    pub rows: Vec<f64>,
    /// `P' 1`, shape (m,).
    pub columns: Vec<f64>,
    /// `<P, C>`, forbidden pairs left out.
    pub cost: f64,
}

/// The entries of a plan that reach a threshold, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparsePlan {
    /// Where each row starts, and where the last ends: n + 1 numbers.
    pub indptr: Vec<usize>,
    /// Columns.
    pub indices: Vec<usize>,
    /// Values.
    pub values: Vec<f64>,
}

/// What turns a plan with small marginal errors into one without (Altschuler, Weed and Rigollet 2017,
/// algorithm 2): `diag(x) P diag(y) + u v'`.
#[derive(Debug, Clone, Copy)]
pub struct Rounding<'a> {
    /// At most 1, shape (n,).
    pub x: &'a [f64],
    /// At most 1, shape (m,).
    pub y: &'a [f64],
    /// Nonnegative, shape (n,).
    pub u: &'a [f64],
    /// Nonnegative, shape (m,).
    pub v: &'a [f64],
}

impl<C: Cost> Plan<'_, C> {
    /// Calls `visit(accumulator, i, row, row sum)` on every row; accumulators of blocks are merged in a
    /// fixed tree.
    fn fold<A: Send>(
        &self,
        start: impl Fn() -> A + Sync,
        visit: impl Fn(&mut A, usize, &[f64], f64) + Sync,
        merge: impl Fn(A, A) -> A + Sync,
        control: &Control,
    ) -> Result<A, Error> {
        let (n, m) = self.cost.shape();
        let found = reduce_blocks(
            n,
            block_size(n),
            control,
            |rows| {
                let (mut total, mut row) = (start(), vec![0.0; m]);
                for i in rows {
                    control.check()?;
                    let sum = self.fill(i, &mut row);
                    visit(&mut total, i, &row, sum);
                }
                Ok(total)
            },
            merge,
        )?;
        Ok(found.unwrap_or_else(start))
    }

    /// Writes row `i` and returns its sum.
    fn fill(&self, i: usize, row: &mut [f64]) -> f64 {
        let Potentials { phi, gamma } = self.potentials;
        let gibbs = Gibbs { cost: self.cost, scale: 1.0 / self.epsilon };
        vectorize(
            #[inline(always)]
            || exponentials(gibbs, i, phi[i], gamma, row),
        )
    }

    /// The plan itself.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::Cancelled`].
    pub fn dense<T: Real>(&self, control: &Control) -> Result<Array2<T>, Error> {
        let (n, m) = self.cost.shape();
        let mut out = zeros::<T>(&[n, m])?;
        for_each_chunk(&mut out, block_size(n) * m, control, |start, rows| {
            let mut row = vec![0.0; m];
            for (k, out) in rows.chunks_exact_mut(m).enumerate() {
                control.check()?;
                self.fill(start / m + k, &mut row);
                for (out, &value) in out.iter_mut().zip(&row) {
                    *out = T::from_f64(value);
                }
            }
            Ok(())
        })?;
        Ok(shaped((n, m), out))
    }

    /// The entries that are at least `threshold`, and positive.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn sparse(&self, threshold: f64, control: &Control) -> Result<SparsePlan, Error> {
        let mut found = self.fold(
            SparsePlan::default,
            |plan, _, row, _| {
                for (j, &p) in row.iter().enumerate() {
                    if p > 0.0 && p >= threshold {
                        plan.indices.push(j);
                        plan.values.push(p);
                    }
                }
                plan.indptr.push(plan.values.len());
            },
            |mut a, b| {
                let offset = a.values.len();
                a.indptr.extend(b.indptr.iter().map(|end| end + offset));
                a.indices.extend(b.indices);
                a.values.extend(b.values);
                a
            },
            control,
        )?;
        found.indptr.insert(0, 0);
        Ok(found)
    }

    /// Sums over rows, columns and costs.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn sums(&self, control: &Control) -> Result<Sums, Error> {
        let m = self.cost.shape().1;
        let (sums, _) = self.fold(
            || (Sums { rows: vec![], columns: vec![0.0; m], cost: 0.0 }, vec![0.0; m]),
            |(sums, costs), i, row, total| {
                sums.rows.push(total);
                sums.cost += vectorize(
                    #[inline(always)]
                    || {
                        add_rows(&mut sums.columns, &[1.0], row);
                        self.cost.map(
                            i,
                            0,
                            row,
                            costs,
                            #[inline(always)]
                            |cost, p| if p > 0.0 { p * cost } else { 0.0 },
                        );
                        sum_of(costs)
                    },
                );
            },
            |(mut a, buffer), (b, _)| {
                a.rows.extend(b.rows);
                a.columns.iter_mut().zip(&b.columns).for_each(|(a, b)| *a += b);
                a.cost += b.cost;
                (a, buffer)
            },
            control,
        )?;
        Ok(sums)
    }

    /// `P v` for `v` of shape (m, k).
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Cancelled`].
    pub fn apply(&self, v: ArrayView2<'_, f64>, control: &Control) -> Result<Array2<f64>, Error> {
        let ((n, m), k) = (self.cost.shape(), v.ncols());
        check_rows("v", v, m)?;
        let out = self.fold(
            Vec::new,
            |out: &mut Vec<f64>, _, row, _| {
                let start = out.len();
                out.resize(start + k, 0.0);
                let out = &mut out[start..];
                for (&p, v) in row.iter().zip(v.rows()) {
                    if p > 0.0 {
                        for (out, v) in out.iter_mut().zip(v) {
                            *out += p * v;
                        }
                    }
                }
            },
            |mut a, b| {
                a.extend(b);
                a
            },
            control,
        )?;
        Ok(shaped((n, k), out))
    }

    /// `P' u` for `u` of shape (n, k).
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Cancelled`].
    pub fn apply_transpose(
        &self,
        u: ArrayView2<'_, f64>,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        let ((n, m), k) = (self.cost.shape(), u.ncols());
        check_rows("u", u, n)?;
        let out = self.fold(
            || vec![0.0; m * k],
            |out: &mut Vec<f64>, i, row, _| {
                for (&p, out) in row.iter().zip(out.chunks_exact_mut(k.max(1))) {
                    if p > 0.0 {
                        for (out, u) in out.iter_mut().zip(u.row(i)) {
                            *out += p * u;
                        }
                    }
                }
            },
            |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                a
            },
            control,
        )?;
        Ok(shaped((m, k), out))
    }

    /// `<Q, C> + epsilon KL(Q | a b')` of the rounded plan `Q`.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn rounded_value(
        &self,
        a: &[f64],
        b: &[f64],
        rounding: Rounding<'_>,
        control: &Control,
    ) -> Result<f64, Error> {
        let Rounding { x, y, u, v } = rounding;
        let m = self.cost.shape().1;
        let value = self.fold(
            || 0.0,
            |total, i, row, _| {
                let mut costs = vec![0.0; m];
                vectorize(
                    #[inline(always)]
                    || self.cost.fill(i, 0, &mut costs),
                );
                for (j, (&p, &cost)) in row.iter().zip(&costs).enumerate() {
                    let (q, independent) = ((x[i] * p).mul_add(y[j], u[i] * v[j]), a[i] * b[j]);
                    if q > 0.0 {
                        *total += q * (cost + self.epsilon * ((q / independent).ln() - 1.0));
                    }
                    *total += self.epsilon * independent;
                }
            },
            |a, b| a + b,
            control,
        )?;
        Ok(value)
    }
}

/// `out[k, i] = log sum_j exp(v[k, j] - C_ij / epsilon)` for every row of `v`, shape (k, m): the product
/// with the kernel `exp(-C / epsilon)` in the log domain, minus infinity where nothing is reached.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Cancelled`].
pub fn log_kernel_sums<C: Cost>(
    cost: &C,
    epsilon: f64,
    v: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let ((n, m), k) = (cost.shape(), v.nrows());
    if v.ncols() != m {
        return Err(Error::Shape {
            name: "v",
            expected: format!("(k, {m})"),
            got: v.shape().to_vec(),
        });
    }
    let gibbs = Gibbs { cost, scale: 1.0 / epsilon };
    let v = v.as_standard_layout();
    let mut out = zeros::<f64>(&[n, k])?;
    for_each_chunk(&mut out, block_size(n) * k.max(1), control, |start, out| {
        let mut row = vec![0.0; m];
        for (r, out) in out.chunks_exact_mut(k).enumerate() {
            control.check()?;
            let i = start / k + r;
            for (out, v) in out.iter_mut().zip(v.rows()) {
                let v = v.to_slice().unwrap_or_default();
                vectorize(
                    #[inline(always)]
                    || {
                        let high = largest(gibbs, i, v, &mut row);
                        let shift = if high > f64::NEG_INFINITY { -high } else { 0.0 };
                        *out = high + exponentials(gibbs, i, shift, v, &mut row).ln();
                    },
                );
            }
        }
        Ok(())
    })?;
    Ok(shaped((n, k), out).reversed_axes())
}

fn check_rows(name: &'static str, array: ArrayView2<'_, f64>, n: usize) -> Result<(), Error> {
    if array.nrows() == n {
        return Ok(());
    }
    Err(Error::Shape { name, expected: format!("({n}, k)"), got: array.shape().to_vec() })
}
