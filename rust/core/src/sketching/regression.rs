//! What least squares need of tall data: sums over its rows, in fixed blocks, and nothing as tall.

use core::ops::Range;
use std::borrow::Cow;

use ndarray::{Array2, ArrayView2};

use super::gram::Sum;
use super::panel::{Frame, LEAF, check, padded};
use crate::linalg::{Csr, Lanes, Rows, column, narrow, skinny};
use crate::memory::zeros;
use crate::parallel::reduce_blocks;
use crate::{Control, Error};

/// Least rows whose sums are made before they are added up.
const PART: usize = 16_384;
/// Doubles of the rows at hand: they stay in the second cache.
const BLOCK: usize = 1 << 15;

/// The Gram matrix of a frame of width d, and below it the products `b' F` of `b`, of shape (n, k): the
/// normal equations of least squares, shape (d + k, d), in one pass.
///
/// # Errors
/// [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
pub fn normal_equations<T: Lanes>(
    frame: &Frame<'_, T>,
    b: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let (n, d, k) = (frame.n_rows(), frame.width(), b.ncols());
    check("b", n, b.nrows(), b.shape())?;
    let targets = Targets::new(b);
    let single = k == 1;
    if single && (1..narrow::STRIDE).contains(&frame.length()) {
        return narrow_normal_equations(frame, &targets.values, control);
    }
    let stride = if single { 1 } else { skinny::padded::<f64>(k) };
    let length = if single { column::padded(d) } else { d };
    let part = |range: Range<usize>| {
        let mut gram = Sum::new(frame);
        let mut cross = zeros(&[length, stride])?;
        let (mut buffer, mut left) = (Vec::new(), Vec::new());
        for panel in frame.panels(range) {
            control.check()?;
            left.clear();
            left.resize(panel.len() * stride, 0.0);
            targets.copy(panel.clone(), &mut left, stride);
            let x = frame.rows(panel, &mut buffer);
            gram.add(x, None);
            if single {
                column::transpose_multiply_add(x, d, &left, &mut cross);
            } else {
                skinny::transpose_multiply_add(x, d, &left, stride, &mut cross);
            }
        }
        Ok((gram, cross))
    };
    let merge =
        |(gram, cross): (Sum, _), (other, more)| (gram.merge(other), super::add(cross, more));
    let found = reduce_blocks(n, LEAF, control, part, merge)?;
    let (gram, cross) = match found {
        Some((gram, cross)) => (gram, cross),
        None => (Sum::new(frame), zeros(&[length, stride])?),
    };
    let gram = gram.symmetric();
    let at = |i: usize, j: usize| if i < d { gram[[i, j]] } else { cross[j * stride + i - d] };
    Ok(Array2::from_shape_fn((d + k, d), |(i, j)| at(i, j)))
}

/// The normal equations of a few columns and one target.
fn narrow_normal_equations<T: Lanes>(
    frame: &Frame<'_, T>,
    b: &[f64],
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let d = frame.width();
    let part = |range: Range<usize>| {
        let (mut sums, mut buffer) = (vec![0.0; (d + 1) * narrow::STRIDE], Vec::new());
        for panel in frame.panels(range) {
            control.check()?;
            let x = frame.rows(panel.clone(), &mut buffer);
            narrow::add_normal_equations(x, d, &b[panel], &mut sums);
        }
        Ok(sums)
    };
    let sums = reduce_blocks(frame.n_rows(), LEAF, control, part, super::add)?;
    let sums = sums.unwrap_or_else(|| vec![0.0; (d + 1) * narrow::STRIDE]);
    Ok(Array2::from_shape_fn((d + 1, d), |(i, j)| sums[i * narrow::STRIDE + j]))
}

/// What is left of targets by a linear model, and what it needs for the next step.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    /// `x' (b - x beta)`, shape (d, k).
    pub gradient: Array2<f64>,
    /// The squared norm of each column of `b - x beta`.
    pub squared_norms: Vec<f64>,
}

/// The residual `b - x beta`, of shape (n, k), in sums: one pass over `x`, O(n d k).
///
/// # Errors
/// [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
pub fn residual<T: Lanes>(
    x: Rows<'_, T>,
    b: ArrayView2<'_, f64>,
    beta: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Residual, Error> {
    let (n, d, k) = (x.n_rows(), x.n_columns(), b.ncols());
    check("b", n, b.nrows(), b.shape())?;
    if beta.dim() != (d, k) {
        let expected = format!("({d}, {k})");
        return Err(Error::Shape { name: "beta", expected, got: beta.shape().to_vec() });
    }
    let (targets, frame) = (Targets::new(b), Frame::plain(x));
    if k == 1 && (1..narrow::STRIDE).contains(&d) && matches!(x, Rows::Dense { .. }) {
        return narrow_residual(&frame, &targets.values, beta, control);
    }
    let single = k == 1 && matches!(x, Rows::Dense { .. });
    let stride = if single { 1 } else { skinny::padded::<f64>(k) };
    // One column is padded along, several are padded across.
    let length = if single { column::padded(d) } else { d };
    let mut minus = if single { padded(beta.t()) } else { padded(beta) };
    minus.truncate(length * stride);
    for value in &mut minus {
        *value = -*value;
    }
    let size = (BLOCK / (d + stride)).clamp(16, 512);
    let part = |range: Range<usize>| {
        // The gradient, and the squared norms as its last row.
        let mut sums: Vec<f64> = zeros(&[length + 1, stride])?;
        let mut left = vec![0.0; size * stride];
        let mut buffer = Vec::new();
        for first in range.clone().step_by(size) {
            control.check()?;
            let rows = first..(first + size).min(range.end);
            let left = &mut left[..rows.len() * stride];
            targets.copy(rows.clone(), left, stride);
            let (gradient, norms) = sums.split_at_mut(length * stride);
            match x {
                Rows::Dense { .. } => {
                    let values = frame.rows(rows, &mut buffer);
                    if single {
                        column::residual_add(values, d, &minus, left, gradient);
                    } else {
                        skinny::multiply_add(values, d, &minus, stride, left);
                        skinny::transpose_multiply_add(values, d, left, stride, gradient);
                    }
                }
                Rows::Sparse(csr) => {
                    x.multiply_in_double(rows.clone(), |_| 1.0, &minus, stride, left);
                    add_sparse_transpose(csr, rows, left, stride, gradient);
                }
            }
            for row in left.chunks_exact(stride) {
                norms.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * value);
            }
        }
        Ok(sums)
    };
    let found = reduce_blocks(n, PART, control, part, super::add)?;
    let sums = found.map_or_else(|| zeros(&[length + 1, stride]), Ok)?;
    Ok(Residual {
        gradient: Array2::from_shape_fn((d, k), |(j, c)| sums[j * stride + c]),
        squared_norms: sums[length * stride..length * stride + k].to_vec(),
    })
}

/// The residual of a few columns and one target.
fn narrow_residual<T: Lanes>(
    frame: &Frame<'_, T>,
    b: &[f64],
    beta: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Residual, Error> {
    let beta: Vec<f64> = beta.iter().copied().collect();
    let part = |range: Range<usize>| {
        let (mut gradient, mut squares, mut buffer) = ([0.0; narrow::STRIDE], 0.0, Vec::new());
        for panel in frame.panels(range) {
            control.check()?;
            let x = frame.rows(panel.clone(), &mut buffer);
            squares += narrow::add_residual(x, &beta, &b[panel], &mut gradient);
        }
        Ok((gradient, squares))
    };
    let merge = |(mut gradient, squares): ([f64; narrow::STRIDE], f64), (other, more)| {
        gradient.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        (gradient, squares + more)
    };
    let found = reduce_blocks(frame.n_rows(), LEAF, control, part, merge)?;
    let (gradient, squares) = found.unwrap_or_default();
    let gradient = Array2::from_shape_fn((beta.len(), 1), |(j, _)| gradient[j]);
    Ok(Residual { gradient, squared_norms: vec![squares] })
}

/// Targets row by row, in one piece.
struct Targets<'a> {
    values: Cow<'a, [f64]>,
    k: usize,
}

impl<'a> Targets<'a> {
    fn new(b: ArrayView2<'a, f64>) -> Self {
        let k = b.ncols();
        let values =
            b.to_slice().map_or_else(|| Cow::Owned(b.iter().copied().collect()), Cow::from);
        Self { values, k }
    }

    /// Writes some rows into `out`, `stride` apart.
    fn copy(&self, rows: Range<usize>, out: &mut [f64], stride: usize) {
        let values = &self.values[rows.start * self.k..rows.end * self.k];
        if stride == self.k {
            out.copy_from_slice(values);
            return;
        }
        for (out, row) in out.chunks_exact_mut(stride).zip(values.chunks_exact(self.k)) {
            out[..self.k].copy_from_slice(row);
        }
    }
}

/// `out += x' left` for some rows of a sparse matrix.
fn add_sparse_transpose<T: Lanes>(
    x: Csr<'_, T>,
    rows: Range<usize>,
    left: &[f64],
    stride: usize,
    out: &mut [f64],
) {
    for (i, left) in rows.zip(left.chunks_exact(stride)) {
        let (columns, values) = x.row(i);
        for (&column, &value) in columns.iter().zip(values) {
            let value: f64 = value.into();
            let out = &mut out[column as usize * stride..(column as usize + 1) * stride];
            out.iter_mut().zip(left).for_each(|(out, left)| *out += value * left);
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // sums of small integers are exact
mod tests {
    use super::*;

    fn integers(n: usize, d: usize, seed: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, d), |(i, j)| (((i * d + j) * 7919 + seed) % 7) as f64 - 3.0)
    }

    #[test]
    fn sums_are_those_of_the_matrices_dense_single_and_sparse() {
        for (n, d, k) in [
            (0, 2, 1),
            (5, 1, 1),
            (1, 3, 1),
            (9, 4, 1),
            (300, 5, 1),
            (11, 6, 1),
            (1000, 7, 1),
            (2000, 8, 1),
            (700, 20, 3),
            (40_000, 2, 1),
            (90, 70, 2),
        ] {
            let (x, b, beta) = (integers(n, d, 1), integers(n, k, 2), integers(d, k, 3));
            let single: Vec<f32> = x.iter().map(|&value| value as f32).collect();
            let indptr: Vec<u64> = (0..=n).map(|i| (i * d) as u64).collect();
            let indices: Vec<u32> = (0..n * d).map(|i| (i % d) as u32).collect();
            let csr = Csr::new(&indptr, &indices, x.as_slice().unwrap(), d).unwrap();
            let left = &b - x.dot(&beta);
            let expected = Residual {
                gradient: x.t().dot(&left),
                squared_norms: left.columns().into_iter().map(|c| c.dot(&c)).collect(),
            };
            let control = Control::new();
            let check = |rows: Rows<'_, f64>| {
                assert_eq!(residual(rows, b.view(), beta.view(), &control).unwrap(), expected);
            };
            let twice = vec![2.0; d];
            for (rows, scale) in [
                (Frame::plain(Rows::dense(x.view()).unwrap()), 1.0),
                (Frame::scaled(Rows::Sparse(csr), &twice).unwrap(), 2.0),
            ] {
                let found = normal_equations(&rows, b.view(), &control).unwrap();
                let scaled = &x * scale;
                assert_eq!(
                    found.slice_axis(ndarray::Axis(0), (0..d).into()),
                    scaled.t().dot(&scaled)
                );
                assert_eq!(found.slice_axis(ndarray::Axis(0), (d..).into()), b.t().dot(&scaled));
            }
            check(Rows::dense(x.view()).unwrap());
            check(Rows::Sparse(csr));
            let rows = Rows::Dense { values: &single, n_columns: d };
            assert_eq!(residual(rows, b.view(), beta.view(), &control).unwrap(), expected);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x = integers(50_000, 9, 1).mapv(|value| value / 7.0);
        let b = integers(50_000, 1, 2).mapv(|value| value / 3.0);
        let (rows, beta) = (Rows::dense(x.view()).unwrap(), Array2::from_elem((9, 1), 0.3));
        let both = [Control::sequential(), Control::new()]
            .map(|control| residual(rows, b.view(), beta.view(), &control).unwrap());
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn targets_of_another_length_are_refused() {
        let x = integers(5, 2, 1);
        let b = integers(4, 1, 1);
        let rows = Rows::dense(x.view()).unwrap();
        let beta = Array2::zeros((2, 1));
        let refused = residual(rows, b.view(), beta.view(), &Control::new());
        assert!(matches!(refused, Err(Error::Shape { name: "b", .. })));
    }
}
