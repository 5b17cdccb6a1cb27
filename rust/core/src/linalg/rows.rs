//! Samples, one a row, dense or sparse.

use core::ops::Range;

use ndarray::ArrayView2;

use super::skinny::{self, Lanes};
use crate::parallel::reduce_blocks;
use crate::simd::vectorize;
use crate::{Control, Error};

/// A matrix in compressed sparse row form.
///
/// The entries of row i are `values[indptr[i]..indptr[i + 1]]`, in the columns that `indices` names
/// at the same places.
#[derive(Debug, Clone, Copy)]
pub struct Csr<'a, T> {
    indptr: &'a [u64],
    indices: &'a [u32],
    values: &'a [T],
    n_columns: usize,
}

impl<'a, T: Lanes> Csr<'a, T> {
    /// A matrix of `indptr.len() - 1` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] where the lengths do not fit, [`Error::Domain`] where `indptr` falls or a
    /// column lies outside.
    pub fn new(
        indptr: &'a [u64],
        indices: &'a [u32],
        values: &'a [T],
        n_columns: usize,
    ) -> Result<Self, Error> {
        if indices.len() != values.len() {
            return Err(Error::Shape {
                name: "indices",
                expected: format!("({},)", values.len()),
                got: vec![indices.len()],
            });
        }
        let ends = (indptr.first().copied(), indptr.last().copied());
        if ends != (Some(0), Some(values.len() as u64)) || !indptr.is_sorted() {
            return Err(Error::Domain {
                name: "indptr",
                expected: "a rising sequence from 0 to the number of entries",
                got: ends.1.unwrap_or(0) as f64,
            });
        }
        if let Some(&column) = indices.iter().find(|&&column| column as usize >= n_columns) {
            return Err(Error::Domain {
                name: "indices",
                expected: "below the number of columns",
                got: f64::from(column),
            });
        }
        Ok(Self { indptr, indices, values, n_columns })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// The columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&'a [u32], &'a [T]) {
        let range = self.indptr[i] as usize..self.indptr[i + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Number of stored entries.
    pub fn n_entries(&self) -> usize {
        self.values.len()
    }
}

/// Samples, one a row: what an EM loop reads.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a, T> {
    /// All entries, row by row.
    Dense {
        /// The entries.
        values: &'a [T],
        /// Number of columns.
        n_columns: usize,
    },
    /// The entries that are not zero.
    Sparse(Csr<'a, T>),
}

impl<'a, T: Lanes> Rows<'a, T> {
    /// The rows of a dense matrix in standard layout.
    ///
    /// # Errors
    /// [`Error::Shape`] where the rows do not lie one after the other.
    #[allow(clippy::needless_pass_by_value)] // a view is passed as what it is: two words
    pub fn dense(x: ArrayView2<'a, T>) -> Result<Self, Error> {
        let values = x.to_slice().ok_or_else(|| Error::Shape {
            name: "x",
            expected: "a matrix in C order".into(),
            got: x.shape().to_vec(),
        })?;
        Ok(Self::Dense { values, n_columns: x.ncols() })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        match self {
            // A dense matrix without columns is nobody's data.
            Self::Dense { values, n_columns } => values.len() / (*n_columns).max(1),
            Self::Sparse(x) => x.n_rows(),
        }
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        match self {
            Self::Dense { n_columns, .. } => *n_columns,
            Self::Sparse(x) => x.n_columns(),
        }
    }

    /// Checks that every row is a unit vector, to the tolerance of its float type.
    ///
    /// # Errors
    /// [`Error::NotFinite`] or else [`Error::NotUnit`] for the first bad row; [`Error::Cancelled`].
    pub fn check_unit(&self, name: &'static str, control: &Control) -> Result<(), Error> {
        let check = |range: Range<usize>| {
            for i in range {
                let norm = squared_norm(self.entries(i)).sqrt();
                let good = (norm - 1.0).abs() <= T::UNIT_TOLERANCE; // no NaN either
                if !good {
                    return Err(self.not_finite(name).unwrap_or(Error::NotUnit {
                        name,
                        row: i,
                        norm,
                    }));
                }
            }
            Ok(())
        };
        reduce_blocks(self.n_rows(), self.block(), control, check, |(), ()| ()).map(|_| ())
    }

    /// The stored entries of row `i`.
    fn entries(&self, i: usize) -> &'a [T] {
        match self {
            Self::Dense { values, n_columns: d } => &values[i * d..(i + 1) * d],
            Self::Sparse(x) => x.row(i).1,
        }
    }

    /// The largest modulus of every column.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Cancelled`].
    pub fn column_maxima(&self, name: &'static str, control: &Control) -> Result<Vec<f64>, Error> {
        let d = self.n_columns();
        let block = |range: Range<usize>| {
            let mut maxima = vec![0.0_f64; d];
            for i in range {
                let mut bad = false;
                let mut take = |value: f64, most: &mut f64| {
                    bad |= !value.is_finite();
                    *most = most.max(value.abs());
                };
                match self {
                    Self::Dense { .. } => {
                        self.entries(i)
                            .iter()
                            .zip(&mut maxima)
                            .for_each(|(&x, m)| take(x.into(), m));
                    }
                    Self::Sparse(x) => {
                        let (columns, values) = x.row(i);
                        for (&j, &value) in columns.iter().zip(values) {
                            take(value.into(), &mut maxima[j as usize]);
                        }
                    }
                }
                if bad && let Some(error) = self.not_finite(name) {
                    return Err(error);
                }
            }
            Ok(maxima)
        };
        let merge =
            |a: Vec<f64>, b: Vec<f64>| a.into_iter().zip(b).map(|(a, b)| a.max(b)).collect();
        let maxima = reduce_blocks(self.n_rows(), 4096, control, block, merge)?;
        Ok(maxima.unwrap_or_else(|| vec![0.0; d]))
    }

    /// Where and how many entries are infinite or NaN, if any are.
    fn not_finite(&self, name: &'static str) -> Option<Error> {
        let bad = |row: usize| {
            let entries = self.entries(row).iter().enumerate();
            entries.filter(|&(_, &value)| !value.into().is_finite()).map(move |(at, _)| (row, at))
        };
        let mut all = (0..self.n_rows()).flat_map(bad);
        let (row, at) = all.next()?;
        let column = match self {
            Self::Dense { .. } => at,
            Self::Sparse(x) => x.row(row).0[at] as usize,
        };
        Some(Error::NotFinite { name, count: 1 + all.count(), row, column })
    }

    /// Rows that make a good block: a dense one stays in the second-level cache between two uses, and
    /// its logits in the first.
    pub(crate) fn block(&self) -> usize {
        match self {
            Self::Dense { n_columns, .. } => ((1 << 17) / (size_of::<T>() * n_columns.max(&1)))
                .clamp(64, 128)
                .next_multiple_of(8),
            Self::Sparse(_) => 256,
        }
    }

    /// `out += x[range] w`, for `w` of shape (d, stride), with `stride` from [`skinny::padded`].
    pub(crate) fn multiply(&self, range: Range<usize>, w: &[T], stride: usize, out: &mut [f64]) {
        match self {
            Self::Dense { values, n_columns: d } => {
                let x = &values[range.start * d..range.end * d];
                skinny::multiply_add(x, *d, w, stride, out);
            }
            Self::Sparse(x) => {
                for (i, out) in range.zip(out.chunks_exact_mut(stride)) {
                    let (columns, values) = x.row(i);
                    skinny::gather_add(columns, values, w, stride, out);
                }
            }
        }
    }

    /// As [`multiply`](Self::multiply), in double precision, with row i of `x` times `factor(i)`.
    pub(crate) fn multiply_in_double(
        &self,
        range: Range<usize>,
        factor: impl Fn(usize) -> f64,
        w: &[f64],
        stride: usize,
        out: &mut [f64],
    ) {
        match self {
            Self::Dense { n_columns: d, .. } => {
                skinny::multiply_add(&self.in_double(range, factor), *d, w, stride, out);
            }
            Self::Sparse(x) => {
                for (i, out) in range.zip(out.chunks_exact_mut(stride)) {
                    let values = self.in_double(i..i + 1, &factor);
                    skinny::gather_add(x.row(i).0, &values, w, stride, out);
                }
            }
        }
    }

    /// The stored entries of some rows in double precision, those of row i times `factor(i)`.
    pub(crate) fn in_double(&self, range: Range<usize>, factor: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut doubles = Vec::with_capacity(range.clone().map(|i| self.entries(i).len()).sum());
        for i in range {
            let factor = factor(i);
            doubles.extend(self.entries(i).iter().map(|&value| factor * value.into()));
        }
        doubles
    }

    /// One over the norm of row `i`.
    pub(crate) fn inverse_norm(&self, i: usize) -> f64 {
        squared_norm(self.entries(i)).sqrt().recip()
    }

    /// Writes row `i` into column `k` of `w`, of shape (d, stride), which holds zeros there.
    pub(crate) fn scatter(&self, i: usize, w: &mut [T], stride: usize, k: usize) {
        match self {
            Self::Dense { values, n_columns: d } => {
                let row = &values[i * d..(i + 1) * d];
                for (w, &value) in w[k..].iter_mut().step_by(stride).zip(row) {
                    *w = value;
                }
            }
            Self::Sparse(x) => {
                // Entries of one place add up, as in SciPy.
                let (columns, values) = x.row(i);
                for (&j, &value) in columns.iter().zip(values) {
                    let w = &mut w[j as usize * stride + k];
                    *w = T::from_f64((*w).into() + value.into());
                }
            }
        }
    }
}

fn squared_norm<T: Lanes>(row: &[T]) -> f64 {
    vectorize(
        #[inline(always)]
        || {
            let (chunks, rest) = row.as_chunks::<8>();
            let mut sums = [0.0; 8];
            for chunk in chunks {
                for i in 0..8 {
                    let value: f64 = chunk[i].into();
                    sums[i] = value.mul_add(value, sums[i]);
                }
            }
            for (sum, &value) in sums.iter_mut().zip(rest) {
                let value: f64 = value.into();
                *sum = value.mul_add(value, *sum);
            }
            sums.iter().sum()
        },
    )
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn the_first_bad_row_is_named() {
        let control = Control::sequential();
        let check = |x: ArrayView2<'_, f64>| Rows::dense(x).unwrap().check_unit("x", &control);
        assert_eq!(check(arr2(&[[0.6, 0.8], [1.0, 0.0]]).view()), Ok(()));
        assert_eq!(
            check(arr2(&[[0.6, 0.8], [0.0, 0.5], [0.0, 0.0]]).view()),
            Err(Error::NotUnit { name: "x", row: 1, norm: 0.5 })
        );
        assert_eq!(
            check(arr2(&[[0.0, 2.0], [f64::NAN, 0.0], [0.0, f64::INFINITY]]).view()),
            Err(Error::NotFinite { name: "x", count: 2, row: 1, column: 0 })
        );
        let sparse = Csr::new(&[0, 1, 1, 2], &[1, 3], &[1.0_f32, f32::NAN], 4).unwrap();
        assert_eq!(
            Rows::Sparse(sparse).check_unit("x", &control),
            Err(Error::NotFinite { name: "x", count: 1, row: 2, column: 3 })
        );
        let sparse = Csr::new(&[0, 1, 1], &[1], &[1.0_f32], 4).unwrap();
        assert_eq!(
            Rows::Sparse(sparse).check_unit("x", &control),
            Err(Error::NotUnit { name: "x", row: 1, norm: 0.0 })
        );
    }
}
