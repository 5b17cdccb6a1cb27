//! Gram matrices of tall frames, in fixed blocks that are added up in a fixed tree.

use ndarray::Array2;

use super::panel::{Frame, LEAF, check};
use crate::linalg::{Lanes, cholesky, skinny};
use crate::parallel::reduce_blocks;
use crate::{Control, Error};

/// Width up to which the sums of a Gram matrix are kept in registers, and beyond which a general
/// product packs its factors.
pub(super) const SKINNY: usize = 256;

/// `F' W F` of a frame, with a nonnegative weight for every row or none: symmetric.
///
/// O(n d^2) for half of the products; the control counts rows.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`].
pub fn gram<T: Lanes>(
    frame: &Frame<'_, T>,
    weights: Option<&[f64]>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    if let Some(weights) = weights {
        check("weights", frame.n_rows(), weights.len(), &[weights.len()])?;
    }
    let leaf = |rows: core::ops::Range<usize>| {
        let (mut sum, mut buffer) = (Sum::new(frame), Vec::new());
        for panel in frame.panels(rows) {
            let x = frame.rows(panel.clone(), &mut buffer);
            sum.add(x, weights.map(|weights| &weights[panel]));
        }
        Ok(sum)
    };
    let sum = reduce_blocks(frame.n_rows(), LEAF, control, leaf, Sum::merge)?;
    Ok(sum.unwrap_or_else(|| Sum::new(frame)).symmetric())
}

/// The lower triangle of a Gram matrix, as it grows.
pub(super) struct Sum {
    lower: Array2<f64>,
    /// Of the rows of a panel.
    length: usize,
    width: usize,
}

impl Sum {
    pub(super) fn new<T: Lanes>(frame: &Frame<'_, T>) -> Self {
        let length = frame.length();
        let stride = if length <= SKINNY { skinny::padded::<f64>(length) } else { length };
        Self { lower: Array2::zeros((stride, stride)), length, width: frame.width() }
    }

    /// Adds the Gram matrix of a panel, with weights of its rows or none.
    pub(super) fn add(&mut self, x: &[f64], weights: Option<&[f64]>) {
        let (d, stride) = (self.length, self.lower.ncols());
        if d <= SKINNY {
            let lower = self.lower.as_slice_mut().expect("our own, in C order");
            skinny::gram_add(x, d, weights, stride, lower);
            return;
        }
        let scaled: Vec<f64>;
        let x = match weights {
            None => x,
            Some(weights) => {
                let rows = x.chunks_exact(d).zip(weights);
                scaled = rows.flat_map(|(row, w)| row.iter().map(move |x| x * w.sqrt())).collect();
                &scaled
            }
        };
        cholesky::add_gram(&mut self.lower, x, d, 1.0, &Control::sequential());
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.lower += &other.lower;
        self
    }

    pub(super) fn symmetric(self) -> Array2<f64> {
        let Self { lower, width, .. } = self;
        Array2::from_shape_fn((width, width), |(i, j)| lower[[i.max(j), i.min(j)]])
    }
}
