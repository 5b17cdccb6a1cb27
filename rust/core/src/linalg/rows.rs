//! Samples, one a row, dense or sparse.

use core::ops::Range;

use ndarray::ArrayView2;

use super::skinny::{self, Lanes};
use crate::Error;

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

    /// Rows that make a good block: a dense one stays in the second-level cache between two uses.
    pub(crate) fn block(&self) -> usize {
        match self {
            Self::Dense { n_columns, .. } => ((1 << 17) / (size_of::<T>() * n_columns.max(&1)))
                .clamp(64, 512)
                .next_multiple_of(8),
            Self::Sparse(_) => 256,
        }
    }

    /// `out = x[range] w`, for `w` of shape (d, stride), with `stride` from [`skinny::padded`].
    pub(crate) fn multiply(&self, range: Range<usize>, w: &[T], stride: usize, out: &mut [f64]) {
        out.fill(0.0);
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
