//! Rows of a tall matrix in coordinates of their own, a panel at a time.

use core::ops::Range;
use std::borrow::Cow;

use ndarray::ArrayView2;

use crate::Error;
use crate::linalg::{Lanes, Rows, skinny};

/// Numbers in a panel: it stays in the first-level cache between its uses, if rows are short.
const PANEL: usize = 1 << 12;

/// The rows of `A basis`, of which none but a panel is ever held.
///
/// Scores of rows depend on the space that the columns span and not on the columns: a basis in which
/// they are well conditioned costs no accuracy.
#[derive(Debug, Clone)]
pub struct Frame<'a, T> {
    rows: Rows<'a, T>,
    basis: Basis,
    width: usize,
    stride: usize,
}

#[derive(Debug, Clone)]
enum Basis {
    /// The columns themselves.
    Columns,
    /// A diagonal.
    Scales(Vec<f64>),
    /// A matrix of shape (columns, stride).
    Matrix(Vec<f64>),
}

/// Rows of a panel, a power of two: leaves are whole panels.
fn panel(stride: usize) -> usize {
    1 << (PANEL / stride).clamp(32, 512).ilog2()
}

/// Rows of a frame that are summed up one after the other, before their sums are added up in the tree
/// of [`reduce_blocks`](crate::parallel::reduce_blocks): where streams must be cut.
pub const LEAF: usize = 8192;

impl<'a, T: Lanes> Frame<'a, T> {
    /// The rows as they are, in double precision.
    pub fn plain(rows: Rows<'a, T>) -> Self {
        Self::with_basis(rows, Basis::Columns, rows.n_columns())
    }

    /// The rows with every column times a factor.
    ///
    /// # Errors
    /// [`Error::Shape`]
    pub fn scaled(rows: Rows<'a, T>, scales: &[f64]) -> Result<Self, Error> {
        let d = rows.n_columns();
        check("scales", d, scales.len(), &[scales.len()])?;
        Ok(Self::with_basis(rows, Basis::Scales(scales.to_vec()), d))
    }

    /// The rows times a matrix of shape (columns, width).
    ///
    /// # Errors
    /// [`Error::Shape`]
    pub fn transformed(rows: Rows<'a, T>, basis: ArrayView2<'_, f64>) -> Result<Self, Error> {
        check("basis", rows.n_columns(), basis.nrows(), basis.shape())?;
        let matrix = padded(basis);
        Ok(Self::with_basis(rows, Basis::Matrix(matrix), basis.ncols()))
    }

    fn with_basis(rows: Rows<'a, T>, basis: Basis, width: usize) -> Self {
        Self { rows, basis, width, stride: skinny::padded::<f64>(width) }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.n_rows()
    }

    /// Number of columns in the basis.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The length of the rows of a panel: at least the width.
    pub(super) fn length(&self) -> usize {
        if matches!(self.basis, Basis::Matrix(_)) { self.stride } else { self.width }
    }

    /// Rows of a panel, a multiple of eight that divides [`LEAF`].
    pub(super) fn panel(&self) -> usize {
        panel(self.stride)
    }

    /// The panels of a range of rows.
    pub(super) fn panels(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (end, size) = (range.end, self.panel());
        range.step_by(size).map(move |start| start..(start + size).min(end))
    }

    /// Some rows of the frame, `length` numbers each, with zeros after `width`: of the matrix itself where
    /// these are its own, and otherwise in `buffer`.
    pub(super) fn rows<'b>(&'b self, range: Range<usize>, buffer: &'b mut Vec<f64>) -> &'b [f64] {
        if let Rows::Dense { values, n_columns: d } = self.rows
            && !matches!(self.basis, Basis::Matrix(_))
        {
            match (T::to_doubles(&values[range.start * d..range.end * d]), &self.basis) {
                (Cow::Borrowed(own), Basis::Columns) => return own,
                (values, _) => *buffer = values.into_owned(),
            }
        } else {
            buffer.resize(range.len() * self.length(), 0.0);
        }
        match (&self.basis, &self.rows) {
            (Basis::Matrix(matrix), Rows::Dense { values, n_columns: d }) => {
                let values = T::to_doubles(&values[range.start * d..range.end * d]);
                buffer.fill(0.0);
                skinny::multiply_add(&values, *d, matrix, self.stride, buffer);
            }
            (Basis::Matrix(matrix), rows) => {
                buffer.fill(0.0);
                rows.multiply_in_double(range, |_| 1.0, matrix, self.stride, buffer);
            }
            (_, Rows::Dense { .. }) => {}
            (_, Rows::Sparse(x)) => {
                buffer.fill(0.0);
                for (i, out) in range.zip(buffer.chunks_exact_mut(self.width)) {
                    let (columns, values) = x.row(i);
                    for (&j, &value) in columns.iter().zip(values) {
                        out[j as usize] += value.into();
                    }
                }
            }
        }
        if let Basis::Scales(scales) = &self.basis {
            for row in buffer.chunks_exact_mut(self.width) {
                row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
            }
        }
        buffer
    }
}

/// A matrix with its rows padded to whole vectors.
pub(super) fn padded(matrix: ArrayView2<'_, f64>) -> Vec<f64> {
    let stride = skinny::padded::<f64>(matrix.ncols());
    let mut out = vec![0.0; matrix.nrows() * stride];
    for (row, out) in matrix.rows().into_iter().zip(out.chunks_exact_mut(stride)) {
        for (out, &value) in out.iter_mut().zip(row) {
            *out = value;
        }
    }
    out
}

/// Fails unless `found` is `expected`.
pub(super) fn check(
    name: &'static str,
    expected: usize,
    found: usize,
    shape: &[usize],
) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape { name, expected: format!("({expected}, ...)"), got: shape.to_vec() })
}
