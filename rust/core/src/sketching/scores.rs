//! Leverage scores, and the iteration for Lewis weights.

use ndarray::{Array2, ArrayView2};

use super::gram::{SKINNY, Sum};
use super::panel::{Frame, LEAF, check, padded};
use crate::linalg::{Lanes, cholesky, skinny};
use crate::parallel::{for_each_chunk, reduce_chunks};
use crate::simd::{self, vectorize};
use crate::special::math;
use crate::{Control, Error};

/// Rows whose norms are a task.
const NORMS: usize = 1024;

/// The squared norms of the rows of `F transform`.
///
/// With `transform` the inverse of the Cholesky factor of the Gram matrix these are the leverage
/// scores. O(n d^2); the control counts rows.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`].
pub fn squared_norms<T: Lanes>(
    frame: &Frame<'_, T>,
    transform: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let transform = Transform::new(frame, transform)?;
    let mut out = vec![0.0; frame.n_rows()];
    for_each_chunk(&mut out, NORMS, control, |start, out| {
        let mut buffer = Vec::new();
        let x = frame.rows(start..start + out.len(), &mut buffer);
        transform.squared_norms(x, out);
        Ok(())
    })?;
    Ok(out)
}

/// One step for Lewis weights: `log_w += c log(tau / w)`, where `tau` are the leverage scores of
/// `W^(1/2 - 1/p) F` by the inverse Cholesky factor of its Gram matrix.
///
/// Returns the Gram matrix for the next step, made in the same pass over the rows, and the largest
/// `|log(tau / w)|` before this one. The weight of a row of zeros becomes 0, and its logarithm minus
/// infinity.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`].
pub fn lewis_step<T: Lanes>(
    frame: &Frame<'_, T>,
    transform: ArrayView2<'_, f64>,
    log_w: &mut [f64],
    p: f64,
    c: f64,
    control: &Control,
) -> Result<(Array2<f64>, f64), Error> {
    check("log_w", frame.n_rows(), log_w.len(), &[log_w.len()])?;
    let transform = Transform::new(frame, transform)?;
    let leaf = |start: usize, log_w: &mut [f64]| {
        let (mut sum, mut worst) = (Sum::new(frame), 0.0_f64);
        let (mut buffer, mut q) = (Vec::new(), Vec::new());
        for panel in frame.panels(start..start + log_w.len()) {
            let log_w = &mut log_w[panel.start - start..panel.end - start];
            let x = frame.rows(panel, &mut buffer);
            q.resize(log_w.len(), 0.0);
            transform.squared_norms(x, &mut q);
            worst = worst.max(update(log_w, &mut q, p, c));
            sum.add(x, Some(&q));
        }
        Ok((sum, worst))
    };
    let merge = |(a, x): (Sum, f64), (b, y): (Sum, f64)| (a.merge(b), x.max(y));
    let found = reduce_chunks(log_w, LEAF, control, leaf, merge)?;
    let (sum, worst) = found.unwrap_or_else(|| (Sum::new(frame), 0.0));
    Ok((sum.symmetric(), worst))
}

/// `log_w += c (log q - (2/p) log_w)`, and `q = w^(1 - 2/p)` of the new weights, 0 for those that are;
/// returns the largest step before the factor.
fn update(log_w: &mut [f64], q: &mut [f64], p: f64, c: f64) -> f64 {
    let mut worst = [0.0; 8];
    let (logs, qs) = (log_w.as_chunks_mut::<8>(), q.as_chunks_mut::<8>());
    vectorize(
        #[inline(always)]
        || {
            for (log_w, q) in logs.0.iter_mut().zip(qs.0.iter_mut()) {
                update_eight(log_w, q, p, c, &mut worst);
            }
            let (mut last_logs, mut last_qs) = ([f64::NEG_INFINITY; 8], [0.0; 8]);
            let n = logs.1.len();
            last_logs[..n].copy_from_slice(logs.1);
            last_qs[..n].copy_from_slice(qs.1);
            update_eight(&mut last_logs, &mut last_qs, p, c, &mut worst);
            logs.1.copy_from_slice(&last_logs[..n]);
            qs.1.copy_from_slice(&last_qs[..n]);
        },
    );
    worst.into_iter().fold(0.0, f64::max)
}

#[inline(always)]
fn update_eight(log_w: &mut [f64; 8], q: &mut [f64; 8], p: f64, c: f64, worst: &mut [f64; 8]) {
    for i in 0..8 {
        let live = log_w[i] > f64::NEG_INFINITY && q[i] > 0.0;
        let step = (-2.0 / p).mul_add(log_w[i], math::ln(q[i]));
        let step = if live { step } else { 0.0 };
        worst[i] = simd::larger(step.abs(), worst[i]);
        let next = c.mul_add(step, log_w[i]);
        let factor = math::exp((1.0 - 2.0 / p) * next);
        log_w[i] = if live { next } else { f64::NEG_INFINITY };
        q[i] = if live { factor } else { 0.0 };
    }
}

/// A matrix that rows of a frame are multiplied by.
pub(super) struct Transform {
    values: Vec<f64>,
    /// The length of rows before, and the distance of rows after.
    pub(super) strides: (usize, usize),
    /// Whether all below the diagonal is zero.
    upper: bool,
}

impl Transform {
    pub(super) fn new<T: Lanes>(
        frame: &Frame<'_, T>,
        matrix: ArrayView2<'_, f64>,
    ) -> Result<Self, Error> {
        check("transform", frame.width(), matrix.nrows(), matrix.shape())?;
        let strides = (frame.length(), skinny::padded::<f64>(matrix.ncols()));
        let upper = matrix.indexed_iter().all(|((i, j), &value)| i <= j || value == 0.0);
        let mut values = padded(matrix);
        values.resize(strides.0 * strides.1, 0.0); // for the zeros after the rows of a panel
        Ok(Self { values, strides, upper })
    }

    /// The rows `x` times the matrix.
    pub(super) fn apply(&self, x: &[f64], out: &mut Vec<f64>) {
        let (before, after) = self.strides;
        out.clear();
        out.resize(x.len() / before * after, 0.0);
        if after > SKINNY {
            cholesky::multiply(x, before, &self.values, after, out);
        } else {
            skinny::multiply_add(x, before, &self.values, after, out);
        }
    }

    /// The squared norms of the rows `x` times the matrix.
    fn squared_norms(&self, x: &[f64], out: &mut [f64]) {
        let (before, after) = self.strides;
        if after <= SKINNY {
            skinny::squared_norms(x, before, &self.values, after, self.upper, out);
            return;
        }
        let mut y = Vec::new();
        self.apply(x, &mut y);
        for (row, out) in y.chunks_exact(after).zip(out) {
            *out = vectorize(
                #[inline(always)]
                || {
                    let mut sums = [0.0; 8];
                    for chunk in row.as_chunks::<8>().0 {
                        for i in 0..8 {
                            sums[i] = chunk[i].mul_add(chunk[i], sums[i]);
                        }
                    }
                    simd::fold(sums, |a, b| a + b)
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, arr2};

    use super::*;
    use crate::linalg::Rows;
    use crate::random::{Key, Stream};
    use crate::sketching::gram;

    fn normals(n: usize, d: usize) -> Array2<f64> {
        let mut values = vec![0.0; n * d];
        Stream::new(Key::new(7), 0).fill_normal(&mut values);
        Array2::from_shape_vec((n, d), values).unwrap()
    }

    #[test]
    fn gram_matrices_are_those_of_the_definition() {
        for (n, d) in [(1, 1), (40, 3), (20_000, 9), (600, 270)] {
            let (a, control) = (normals(n, d), Control::new());
            let frame = Frame::plain(Rows::dense(a.view()).unwrap());
            let weights: Vec<f64> = (0..n).map(|i| (i % 3) as f64).collect();
            let found = gram(&frame, Some(&weights), &control).unwrap();
            let weighted = Array2::from_shape_fn((n, d), |(i, j)| weights[i] * a[[i, j]]);
            let expected = weighted.t().dot(&a);
            assert!((found - expected).iter().all(|x| x.abs() < 1e-10 * n as f64));
            let alone = gram(&frame, None, &Control::sequential()).unwrap();
            assert_eq!(alone, gram(&frame, None, &control).unwrap());
        }
    }

    #[test]
    fn orthonormal_columns_have_their_own_norms_as_scores() {
        // The columns of the identity and of a row of zeros: scores 1 and 0.
        let a = arr2(&[[2.0, 0.0], [0.0, 0.5], [0.0, 0.0]]);
        let frame = Frame::scaled(Rows::dense(a.view()).unwrap(), &[0.5, 2.0]).unwrap();
        let found = squared_norms(&frame, Array2::eye(2).view(), &Control::new()).unwrap();
        assert_eq!(found, [1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_step_for_lewis_weights_is_that_of_the_definition() {
        let (n, d, p, c) = (3000, 5, 1.0, 0.7);
        let (mut a, control) = (normals(n, d), Control::new());
        a.row_mut(17).fill(0.0);
        let frame = Frame::plain(Rows::dense(a.view()).unwrap());
        let mut transform = Array2::<f64>::eye(d);
        transform[[0, 3]] = 0.5;
        let start: Vec<f64> = (0..n).map(|i| -2.0 - (i % 7) as f64).collect();
        let mut log_w = start.clone();
        let (found, worst) =
            lewis_step(&frame, transform.view(), &mut log_w, p, c, &control).unwrap();
        let q: Array1<f64> = a.dot(&transform).map_axis(ndarray::Axis(1), |row| row.dot(&row));
        let mut expected_worst = 0.0_f64;
        let mut scaled = a.clone();
        for i in (0..n).filter(|&i| i != 17) {
            let step = q[i].ln() - 2.0 / p * start[i];
            expected_worst = expected_worst.max(step.abs());
            assert!((log_w[i] - (start[i] + c * step)).abs() < 1e-13);
            scaled.row_mut(i).map_inplace(|x| *x *= ((0.5 - 1.0 / p) * log_w[i]).exp());
        }
        assert!(log_w[17].is_infinite() && log_w[17] < 0.0);
        assert!((worst - expected_worst).abs() < 1e-12);
        let expected = scaled.t().dot(&scaled);
        assert!((&found - &expected).iter().all(|x| x.abs() < 1e-9 * expected[[0, 0]].abs()));
    }
}
