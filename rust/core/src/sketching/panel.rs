//! Rows of a tall matrix in coordinates of their own, a panel at a time.

use core::ops::Range;

use ndarray::ArrayView2;

use crate::Error;
use crate::linalg::{Lanes, Rows, skinny};

/// Numbers in a panel: it stays in the second-level cache between its uses.
const PANEL: usize = 1 << 14;
/// Rows summed one after the other, before sums are added up in a tree.
const LEAF: usize = 8192;

/// The rows of `A basis`, of which none but a panel is ever held.
///
/// Scores of rows depend on the space that the columns span and not on the columns: a basis in which
/// they are well conditioned costs no accuracy.
#[derive(Debug, Clone)]
pub struct Frame<'a, T> {
    rows: Rows<'a, T>,
    basis: Basis,
    /// Columns beside those of the rows, row by row.
    targets: &'a [f64],
    width: usize,
    stride: usize,
}

#[derive(Debug, Clone)]
enum Basis {
    /// A diagonal.
    Scales(Vec<f64>),
    /// A matrix of shape (columns, stride).
    Matrix(Vec<f64>),
}

impl<'a, T: Lanes> Frame<'a, T> {
    /// The rows as they are, in double precision.
    pub fn plain(rows: Rows<'a, T>) -> Self {
        Self::with_basis(rows, Basis::Scales(vec![1.0; rows.n_columns()]), rows.n_columns())
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

    /// The rows as [`scaled`](Self::scaled), and beside them those of `targets`, of shape (n, k): the
    /// Gram matrix is that of the normal equations of least squares.
    ///
    /// # Errors
    /// [`Error::Shape`]
    pub fn with_targets(
        rows: Rows<'a, T>,
        scales: &[f64],
        targets: ArrayView2<'a, f64>,
    ) -> Result<Self, Error> {
        let Self { basis, width, .. } = Self::scaled(rows, scales)?;
        check("b", rows.n_rows(), targets.nrows(), targets.shape())?;
        let shape = targets.shape().to_vec();
        let expected = "a matrix in C order".into();
        let values = targets.to_slice().ok_or(Error::Shape { name: "b", expected, got: shape })?;
        Ok(Self { targets: values, ..Self::with_basis(rows, basis, width + targets.ncols()) })
    }

    fn with_basis(rows: Rows<'a, T>, basis: Basis, width: usize) -> Self {
        Self { rows, basis, targets: &[], width, stride: skinny::padded::<f64>(width) }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.n_rows()
    }

    /// Number of columns in the basis.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The distance of two rows of a panel.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows of a panel, a multiple of eight.
    pub(super) fn panel(&self) -> usize {
        (PANEL / self.stride).clamp(16, 512).next_multiple_of(8)
    }

    /// Rows that are summed up one after the other, a multiple of [`panel`](Self::panel).
    pub(super) fn leaf(&self) -> usize {
        LEAF.next_multiple_of(self.panel())
    }

    /// The panels of a range of rows.
    pub(super) fn panels(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (end, size) = (range.end, self.panel());
        range.step_by(size).map(move |start| start..(start + size).min(end))
    }

    /// Writes rows of the frame into `out`, `stride` apart, with zeros in between.
    pub(super) fn load(&self, range: Range<usize>, out: &mut Vec<f64>) {
        out.clear();
        out.resize(range.len() * self.stride, 0.0);
        let k = self.targets.len().checked_div(self.n_rows()).unwrap_or(0);
        if k > 0 {
            let targets = self.targets[range.start * k..range.end * k].chunks_exact(k);
            for (out, targets) in out.chunks_exact_mut(self.stride).zip(targets) {
                out[self.width - k..self.width].copy_from_slice(targets);
            }
        }
        match (&self.basis, &self.rows) {
            (Basis::Scales(scales), Rows::Dense { values, n_columns: d }) => {
                let values = &values[range.start * d..range.end * d];
                for (row, out) in values.chunks_exact(*d).zip(out.chunks_exact_mut(self.stride)) {
                    for ((out, &value), scale) in out.iter_mut().zip(row).zip(scales) {
                        *out = value.into() * scale;
                    }
                }
            }
            (Basis::Scales(scales), Rows::Sparse(x)) => {
                for (i, out) in range.zip(out.chunks_exact_mut(self.stride)) {
                    let (columns, values) = x.row(i);
                    for (&j, &value) in columns.iter().zip(values) {
                        out[j as usize] += value.into() * scales[j as usize];
                    }
                }
            }
            (Basis::Matrix(matrix), rows) => {
                rows.multiply_in_double(range, |_| 1.0, matrix, self.stride, out);
            }
        }
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
