//! Mixtures whose logits are quadratic in the data, one pass: what the fit of a light Schrödinger
//! bridge sums over a sample (Korotin, Gushchin and Burnaev 2024).
//!
//! The loss of a bridge is the difference of two such log-sum-exps, of the sources and of the targets.
//! Their gradients and the moments of the components come from the same two products as in any
//! mixture, of the sample's features with a skinny matrix.

use core::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::linalg::skinny;
use crate::linalg::softmax::{exponentiate, share};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::{Control, Error};

/// What a row's logits are linear in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The coordinates, and the squared norm.
    Spherical,
    /// The coordinates, and their squares.
    Diagonal,
    /// The coordinates, and their products `x_i x_j` with `i <= j`, row by row.
    Full,
}

impl Features {
    /// How many there are in `dim` dimensions.
    pub fn len(self, dim: usize) -> usize {
        dim + match self {
            Self::Spherical => 1,
            Self::Diagonal => dim,
            Self::Full => dim * (dim + 1) / 2,
        }
    }

    fn write(self, x: &[f64], out: &mut [f64]) {
        let (first, second) = out.split_at_mut(x.len());
        first.copy_from_slice(x);
        match self {
            Self::Spherical => second[0] = x.iter().map(|x| x * x).sum(),
            Self::Diagonal => second.iter_mut().zip(x).for_each(|(out, x)| *out = x * x),
            Self::Full => {
                let products = (0..x.len()).flat_map(|i| x[i..].iter().map(move |y| x[i] * y));
                second.iter_mut().zip(products).for_each(|(out, product)| *out = product);
            }
        }
    }
}

/// Components: `logit_k(x) = <features(x), slopes_k> + offsets_k`.
#[derive(Debug, Clone, Copy)]
pub struct Components<'a> {
    /// What the logits are linear in.
    pub features: Features,
    /// One component a column: shape (features, k).
    pub slopes: ArrayView2<'a, f64>,
    /// Shape (k,).
    pub offsets: ArrayView1<'a, f64>,
}

/// Weighted means over a sample, with responsibilities `r`, n by k, the softmax of the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// Of the log-sum-exp of the logits.
    pub value: f64,
    /// Of `r_k`, shape (k,).
    pub masses: Vec<f64>,
    /// Of `features r_k`, shape (features, k); empty where they were not asked for.
    pub moments: Array2<f64>,
    /// Of `r_k r_l`, shape (k, k); empty where they were not asked for.
    pub gram: Array2<f64>,
}

/// Which sums a pass makes beside the value and the masses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// [`Pass::moments`]
    pub moments: bool,
    /// [`Pass::gram`]
    pub gram: bool,
}

/// Rows whose logits stay in the second cache.
const BLOCK: usize = 256;
/// Leaves of the tree of sums.
const LEAVES: usize = 16;

/// One pass over the rows of `x`, shape (n, dim), with `weights` that sum to one.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Cancelled`].
pub fn pass(
    x: ArrayView2<'_, f64>,
    weights: ArrayView1<'_, f64>,
    components: Components<'_>,
    wanted: Wanted,
    control: &Control,
) -> Result<Pass, Error> {
    let model = Packed::new(x, components)?;
    if weights.len() != x.nrows() || x.nrows() == 0 {
        return Err(Error::Shape {
            name: "weights",
            expected: format!("({},), of one row or more", x.nrows()),
            got: vec![weights.len()],
        });
    }
    let (k, stride, width) = (model.k, model.stride, model.width);
    let sizes =
        (if wanted.moments { width * stride } else { 0 }, if wanted.gram { stride } else { 0 });
    let found = reduce_blocks(
        x.nrows(),
        x.nrows().div_ceil(LEAVES).next_multiple_of(BLOCK),
        control,
        |range| {
            let mut sums = Sums {
                value: 0.0,
                masses: vec![0.0; stride],
                moments: vec![0.0; sizes.0],
                gram: vec![0.0; sizes.1 * stride],
            };
            for start in range.clone().step_by(BLOCK) {
                control.check()?;
                let rows = start..(start + BLOCK).min(range.end);
                let features = model.features(x, rows.clone());
                let (mut shares, values) = model.shares(&features);
                let weights = rows.map(|i| weights[i]);
                sums.add(&features, width, &mut shares, &values, weights);
            }
            Ok(sums)
        },
        Sums::merge,
    )?;
    let sums = found.unwrap_or_default();
    let unpadded = |padded: &[f64], rows: usize| {
        let rows: Vec<f64> =
            padded.chunks_exact(stride).take(rows).flat_map(|row| &row[..k]).copied().collect();
        shaped((rows.len() / k.max(1), k), rows)
    };
    Ok(Pass {
        value: sums.value,
        masses: sums.masses[..k].to_vec(),
        moments: unpadded(&sums.moments, width),
        gram: unpadded(&sums.gram, k),
    })
}

/// The log-sum-exp of every row's logits, shape (n,).
///
/// # Errors
/// As [`pass`]; [`Error::Memory`].
pub fn log_sums(
    x: ArrayView2<'_, f64>,
    components: Components<'_>,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let model = Packed::new(x, components)?;
    let mut out = zeros::<f64>(&[x.nrows()])?;
    for_each_chunk(&mut out, BLOCK, control, |start, out| {
        let features = model.features(x, start..start + out.len());
        out.copy_from_slice(&model.shares(&features).1);
        Ok(())
    })?;
    Ok(out)
}

/// Slopes with columns padded to whole vectors; the padding has logits of minus infinity.
struct Packed {
    kind: Features,
    k: usize,
    stride: usize,
    /// Number of features.
    width: usize,
    slopes: Vec<f64>,
    offsets: Vec<f64>,
}

impl Packed {
    fn new(x: ArrayView2<'_, f64>, components: Components<'_>) -> Result<Self, Error> {
        let Components { features, slopes, offsets } = components;
        let (width, k) = slopes.dim();
        if width != features.len(x.ncols()) || offsets.len() != k || k == 0 {
            return Err(Error::Shape {
                name: "slopes",
                expected: format!("({}, {})", features.len(x.ncols()), offsets.len()),
                got: vec![width, k],
            });
        }
        let stride = skinny::padded::<f64>(k);
        let mut packed = zeros::<f64>(&[width, stride])?;
        for (row, packed) in slopes.rows().into_iter().zip(packed.chunks_exact_mut(stride)) {
            packed.iter_mut().zip(row).for_each(|(packed, &slope)| *packed = slope);
        }
        let mut padded = vec![f64::NEG_INFINITY; stride];
        padded.iter_mut().zip(offsets).for_each(|(padded, &offset)| *padded = offset);
        Ok(Self { kind: features, k, stride, width, slopes: packed, offsets: padded })
    }

    fn features(&self, x: ArrayView2<'_, f64>, rows: Range<usize>) -> Vec<f64> {
        let mut out = vec![0.0; rows.len() * self.width];
        let mut copy = Vec::with_capacity(x.ncols());
        for (i, out) in rows.zip(out.chunks_exact_mut(self.width)) {
            copy.clear();
            copy.extend(x.row(i));
            self.kind.write(&copy, out);
        }
        out
    }

    /// The responsibilities of some rows, `stride` a row, and the log-sum-exps of their logits.
    fn shares(&self, features: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = features.len() / self.width;
        let mut logits = self.offsets.repeat(n);
        skinny::multiply_add(features, self.width, &self.slopes, self.stride, &mut logits);
        let (mut values, mut inverses) = (vec![0.0; n], vec![0.0; n]);
        exponentiate(&mut logits, self.stride, &mut values, &mut inverses);
        for (row, inverse) in logits.chunks_exact_mut(self.stride).zip(inverses) {
            for r in row {
                *r = share(*r, inverse);
            }
        }
        (logits, values)
    }
}

/// Weighted sums over some rows, padded.
#[derive(Default)]
struct Sums {
    value: f64,
    masses: Vec<f64>,
    moments: Vec<f64>,
    gram: Vec<f64>,
}

impl Sums {
    fn add(
        &mut self,
        features: &[f64],
        width: usize,
        shares: &mut [f64],
        values: &[f64],
        weights: impl Iterator<Item = f64> + Clone,
    ) {
        let stride = self.masses.len();
        let plain = if self.gram.is_empty() { Vec::new() } else { shares.to_vec() };
        for ((shares, value), weight) in shares.chunks_exact_mut(stride).zip(values).zip(weights) {
            self.value += weight * value;
            for (mass, share) in self.masses.iter_mut().zip(shares) {
                *share *= weight;
                *mass += *share;
            }
        }
        if !self.moments.is_empty() {
            skinny::transpose_multiply_add(features, width, shares, stride, &mut self.moments);
        }
        if !self.gram.is_empty() {
            skinny::transpose_multiply_add(&plain, stride, shares, stride, &mut self.gram);
        }
    }

    fn merge(mut self, other: Self) -> Self {
        let add = |a: &mut [f64], b: &[f64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        self.value += other.value;
        add(&mut self.masses, &other.masses);
        add(&mut self.moments, &other.moments);
        add(&mut self.gram, &other.gram);
        self
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Axis};

    use super::*;

    #[test]
    fn sums_are_those_of_the_definition() {
        let (n, dim, k) = (700, 3, 5);
        let x = Array2::from_shape_fn((n, dim), |(i, j)| ((i * 37 + j * 101) as f64).sin());
        let weights = Array1::from_shape_fn(n, |i| 1.0 + (i % 7) as f64);
        let weights = &weights / weights.sum();
        for features in [Features::Spherical, Features::Diagonal, Features::Full] {
            let width = features.len(dim);
            let slopes = Array2::from_shape_fn((width, k), |(i, j)| ((i + 3 * j) as f64).cos());
            let offsets = Array1::from_shape_fn(k, |j| 0.3 * j as f64);
            let mut z = Array2::zeros((n, width));
            for (x, mut z) in x.rows().into_iter().zip(z.rows_mut()) {
                let x = x.to_vec();
                let mut row = x.clone();
                match features {
                    Features::Spherical => row.push(x.iter().map(|x| x * x).sum()),
                    Features::Diagonal => row.extend(x.iter().map(|x| x * x)),
                    Features::Full => row.extend([
                        x[0] * x[0],
                        x[0] * x[1],
                        x[0] * x[2],
                        x[1] * x[1],
                        x[1] * x[2],
                        x[2] * x[2],
                    ]),
                }
                z.assign(&Array1::from(row));
            }
            let mut r = (z.dot(&slopes) + &offsets).mapv(f64::exp);
            let totals = r.sum_axis(Axis(1)).insert_axis(Axis(1));
            r /= &totals;
            let weighted = &r * &weights.view().insert_axis(Axis(1));

            let components =
                Components { features, slopes: slopes.view(), offsets: offsets.view() };
            let wanted = Wanted { moments: true, gram: true };
            let control = Control::sequential();
            let found = pass(x.view(), weights.view(), components, wanted, &control).unwrap();
            let threads = pass(x.view(), weights.view(), components, wanted, &Control::new());
            assert_eq!(threads.unwrap(), found);
            let near = |a: &Array2<f64>, b: &Array2<f64>| {
                assert_eq!(a.dim(), b.dim());
                assert!((a - b).iter().all(|e| e.abs() < 1e-13), "{features:?}");
            };
            near(&found.moments, &z.t().dot(&weighted));
            near(&found.gram, &r.t().dot(&weighted));
            let value: f64 =
                totals.iter().zip(&weights).map(|(total, weight)| weight * total.ln()).sum();
            assert!((found.value - value).abs() < 1e-13);
            let masses = weighted.sum_axis(Axis(0));
            assert!(found.masses.iter().zip(&masses).all(|(a, b)| (a - b).abs() < 1e-14));

            let values = log_sums(x.view(), components, &control).unwrap();
            assert!(values.iter().zip(&totals).all(|(a, b)| (a - b.ln()).abs() < 1e-13));
        }
    }
}
