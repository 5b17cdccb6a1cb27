//! The Gaussian sketch: independent normal entries of variance 1/m, one stream an input row.

use core::ops::Range;

use ndarray::{Array2, ArrayView2};

use crate::linalg::{Lanes, Rows, skinny};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Input rows whose normals are held at a time.
const BLOCK: usize = 64;
/// Least input rows whose contributions are summed before they are added up.
const ROWS: usize = 4096;

/// A matrix of independent normal entries.
#[derive(Debug, Clone, Copy)]
pub struct Gaussian {
    /// Number of rows of the result.
    pub n_rows: usize,
    /// The key of the normals.
    pub key: Key,
}

impl Gaussian {
    /// The columns of the sketch in `range` times the root of m, one after the other, `stride` apart.
    fn normals(&self, range: Range<usize>, stride: usize) -> Result<Vec<f64>, Error> {
        let mut normals: Vec<f64> = zeros(&[range.len(), stride])?;
        for (j, column) in range.zip(normals.chunks_exact_mut(stride)) {
            Stream::new(self.key, j as u64).fill_normal(&mut column[..self.n_rows]);
        }
        Ok(normals)
    }

    fn scale(&self) -> f64 {
        (self.n_rows as f64).sqrt().recip()
    }

    /// The columns of the sketch in `range`, transposed: shape (columns, m).
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn columns(&self, range: Range<usize>, control: &Control) -> Result<Array2<f64>, Error> {
        let (n, m, scale) = (range.len(), self.n_rows, self.scale());
        super::check_n_rows(m)?;
        super::check_part("range", range.start, [n, m], super::LONGEST)?;
        let mut out = zeros(&[n, m])?;
        for_each_chunk(&mut out, BLOCK * m, control, |at, columns| {
            let first = range.start + at / m;
            for (j, column) in (first..).zip(columns.chunks_exact_mut(m)) {
                Stream::new(self.key, j as u64).fill_normal(column);
            }
            super::scale(columns, scale);
            Ok(())
        })?;
        Ok(shaped((n, m), out))
    }

    /// What rows `start..` of the input, which are `x`, add to the product of the sketch with it.
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply<T: Lanes>(
        &self,
        x: Rows<'_, T>,
        start: usize,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        let (m, n, d) = (self.n_rows, x.n_rows(), x.n_columns());
        super::check_n_rows(m)?;
        super::check_part("x", start, [n, d], super::LONGEST)?;
        if d == 0 {
            return Ok(Array2::zeros((m, 0)));
        }
        let stride = skinny::padded::<f64>(m);
        // The transposed product, (d, m): rows of `x` may be short, and those of the sketch are not.
        let part = |range: Range<usize>| {
            let mut sums = zeros(&[d, stride])?;
            for first in range.clone().step_by(BLOCK) {
                control.check()?;
                let rows = first..(first + BLOCK).min(range.end);
                let normals = self.normals(start + rows.start..start + rows.end, stride)?;
                add_block(&mut sums, x, rows, &normals, stride);
            }
            Ok(sums)
        };
        let found = reduce_blocks(n, ROWS.max(d.saturating_mul(8)), control, part, super::add)?;
        let sums = found.map_or_else(|| zeros(&[d, stride]), Ok)?;
        let scale = self.scale();
        Ok(Array2::from_shape_fn((m, d), |(i, j)| scale * sums[j * stride + i]))
    }

    /// The product of the transposed sketch of `n` input rows with `y`, of shape (m, k).
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply_transpose(
        &self,
        y: ArrayView2<'_, f64>,
        n: usize,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        super::check_n_rows(self.n_rows)?;
        let (m, k) = super::check_rows(y, self.n_rows)?;
        if k == 0 {
            return Ok(Array2::zeros((n, 0)));
        }
        let stride = skinny::padded::<f64>(k);
        let mut padded: Vec<f64> = zeros(&[m, stride])?;
        for (out, y) in padded.chunks_exact_mut(stride).zip(y.rows()) {
            out.iter_mut().zip(y).for_each(|(out, y)| *out = self.scale() * y);
        }
        let mut out = zeros(&[n, k])?;
        for_each_chunk(&mut out, BLOCK * k.max(1), control, |at, chunk| {
            let rows = at / k..at / k + chunk.len() / k;
            let normals = self.normals(rows.clone(), m)?;
            let mut products = zeros(&[rows.len(), stride])?;
            skinny::multiply_add(&normals, m, &padded, stride, &mut products);
            for (out, products) in chunk.chunks_exact_mut(k).zip(products.chunks_exact(stride)) {
                out.copy_from_slice(&products[..k]);
            }
            Ok(())
        })?;
        Ok(shaped((n, k), out))
    }
}

/// Adds `x[rows]' normals` to `sums`, of shape (d, stride).
fn add_block<T: Lanes>(
    sums: &mut [f64],
    x: Rows<'_, T>,
    rows: Range<usize>,
    normals: &[f64],
    stride: usize,
) {
    match x {
        Rows::Dense { n_columns: d, .. } => {
            let values = x.in_double(rows, |_| 1.0);
            skinny::transpose_multiply_add(&values, d, normals, stride, sums);
        }
        Rows::Sparse(csr) => vectorize(
            #[inline(always)]
            || {
                for (i, normals) in rows.clone().zip(normals.chunks_exact(stride)) {
                    let (columns, values) = csr.row(i);
                    for (&column, &value) in columns.iter().zip(values) {
                        let value: f64 = value.into();
                        let at = column as usize * stride;
                        for (sum, normal) in sums[at..at + stride].iter_mut().zip(normals) {
                            *sum = value.mul_add(*normal, *sum);
                        }
                    }
                }
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::Csr;

    #[test]
    fn the_product_is_that_with_the_columns_whole_in_parts_and_sparse() {
        for (n, d, m) in [(200, 3, 5), (5000, 1, 70), (1, 1, 1)] {
            let sketch = Gaussian { n_rows: m, key: Key::new(4) };
            let x: Vec<f64> = (0..n * d).map(|i| ((i * 31 + 5) % 11) as f64 - 5.0).collect();
            let columns = sketch.columns(0..n, &Control::new()).unwrap();
            let dense = ArrayView2::from_shape((n, d), &x).unwrap();
            let expected = columns.t().dot(&dense);
            let close = |found: &Array2<f64>| {
                assert!((found - &expected).iter().all(|e| e.abs() < 1e-11 * (n as f64).sqrt()));
            };
            let view = Rows::Dense { values: &x[..], n_columns: d };
            let whole = sketch.apply(view, 0, &Control::new()).unwrap();
            assert_eq!(whole, sketch.apply(view, 0, &Control::sequential()).unwrap());
            close(&whole);
            let half = n / 2;
            let halves = [(0, &x[..half * d]), (half, &x[half * d..])].map(|(start, values)| {
                let rows = Rows::Dense { values, n_columns: d };
                sketch.apply(rows, start, &Control::new()).unwrap()
            });
            close(&(&halves[0] + &halves[1]));
            let indptr: Vec<u64> = (0..=n).map(|i| (i * d) as u64).collect();
            let indices: Vec<u32> = (0..n * d).map(|i| (i % d) as u32).collect();
            let csr = Csr::new(&indptr, &indices, &x, d).unwrap();
            close(&sketch.apply(Rows::Sparse(csr), 0, &Control::new()).unwrap());
            let y = Array2::from_shape_fn((m, 2), |(i, j)| (i + 3 * j) as f64);
            let back = sketch.apply_transpose(y.view(), n, &Control::new()).unwrap();
            assert!((back - columns.dot(&y)).iter().all(|e| e.abs() < 1e-10));
        }
    }
}
