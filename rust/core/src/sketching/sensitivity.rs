//! Sensitivities: the largest part that a row can have in a sum of powers over all rows.
//!
//! For p >= 1 and rows `f_j` of weight `c_j`, `s_i = max over x of |f_i x|^p / sum_j c_j |f_j x|^p`, which is
//! `1 / min N(x)`, `N(x) = sum_j c_j |f_j x|^p`, over `f_i x = 1`. Every x bounds it from below. From
//! above, by Hölder's inequality, does every z with `F' z = f_i`: `s_i <= (sum_j c_j |z_j / c_j|^q)^(p/q)`
//! with `1/p + 1/q = 1`, the largest `|z_j| / c_j` for p = 1. A step of iterated least squares makes both.

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::deviations;
use super::gram::Sum;
use super::panel::{Frame, LEAF, check, padded};
use super::power::Power;
use super::scores::Transform;
use crate::linalg::{Lanes, Rows, cholesky, skinny};
use crate::parallel::{for_each_chunk, for_each_chunk_of, reduce_blocks};
use crate::{Control, Error};

/// Points multiplied at a time: their products with a panel stay in the second-level cache.
const TILE: usize = 256;
/// Rows of a frame multiplied with a tile.
const GROUP: usize = 64;

/// For every row `f_i` of the frame times `transform`, the sum of `weights_j |f_i . points_j|^p`.
///
/// O(n m r); the control counts rows.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`].
pub fn pair_power_sums<T: Lanes>(
    frame: &Frame<'_, T>,
    transform: ArrayView2<'_, f64>,
    points: ArrayView2<'_, f64>,
    weights: &[f64],
    p: f64,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    check("points", transform.ncols(), points.ncols(), points.shape())?;
    check("weights", points.nrows(), weights.len(), &[weights.len()])?;
    let transform = Transform::new(frame, transform)?;
    let (stride, power) = (transform.strides.1, Power::new(p));
    let tiles: Vec<Vec<f64>> = points
        .axis_chunks_iter(ndarray::Axis(0), TILE)
        .map(|tile| {
            let mut tile = padded(tile.t());
            tile.resize(stride * tile.len() / points.ncols().max(1), 0.0);
            tile
        })
        .collect();
    let mut out = vec![0.0; frame.n_rows()];
    for_each_chunk(&mut out, GROUP, control, |start, out| {
        let (mut buffer, mut y, mut products) = (Vec::new(), Vec::new(), Vec::new());
        transform.apply(frame.rows(start..start + out.len(), &mut buffer), &mut y);
        for (tile, weights) in tiles.iter().zip(weights.chunks(TILE)) {
            let width = skinny::padded::<f64>(weights.len());
            products.clear();
            products.resize(out.len() * width, 0.0);
            skinny::multiply_add(&y, stride, tile, width, &mut products);
            for (out, row) in out.iter_mut().zip(products.chunks_exact(width)) {
                *out += power.sum(&row[..weights.len()], weights);
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// For every column x of `directions`, the sum of `weights_i |f_i x|^p` over the rows of the frame.
///
/// O(n r k); the control counts rows.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`].
pub fn power_sums<T: Lanes>(
    frame: &Frame<'_, T>,
    directions: ArrayView2<'_, f64>,
    weights: Option<&[f64]>,
    p: f64,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    if let Some(weights) = weights {
        check("weights", frame.n_rows(), weights.len(), &[weights.len()])?;
    }
    let transform = Transform::new(frame, directions)?;
    let (stride, power) = (transform.strides.1, Power::new(p));
    let leaf = |rows: core::ops::Range<usize>| {
        let (mut sums, mut buffer, mut y) = (vec![0.0; stride], Vec::new(), Vec::new());
        for panel in frame.panels(rows) {
            transform.apply(frame.rows(panel.clone(), &mut buffer), &mut y);
            for (i, row) in panel.zip(y.chunks_exact(stride)) {
                power.add(row, weights.map_or(1.0, |weights| weights[i]), &mut sums);
            }
        }
        Ok(sums)
    };
    let sums = reduce_blocks(frame.n_rows(), LEAF, control, leaf, super::add)?;
    let mut sums = sums.unwrap_or_else(|| vec![0.0; stride]);
    sums.truncate(directions.ncols());
    Ok(sums)
}

/// Bounds of the sensitivities of `targets` (k, r) among `points` (m, r) with positive weights, which
/// should be well conditioned: from below and from above, apart by a factor of at most `1 + tol` where
/// `max_iter` steps are enough.
///
/// O(m r^2) a step; the control counts targets.
///
/// # Errors
/// [`Error::Shape`], [`Error::Cancelled`], [`Error::NotPositiveDefinite`] where the points do not span
/// their space.
pub fn exact_sensitivities(
    points: ArrayView2<'_, f64>,
    weights: ArrayView1<'_, f64>,
    targets: ArrayView2<'_, f64>,
    p: f64,
    (tol, max_iter): (f64, usize),
    control: &Control,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    check("weights", points.nrows(), weights.len(), &[weights.len()])?;
    check("targets", points.ncols(), targets.ncols(), targets.shape())?;
    let weights = weights.to_vec();
    let scaled: Option<Array2<f64>> = (p <= 1.0)
        .then(|| Array2::from_shape_fn(points.raw_dim(), |(j, i)| weights[j] * points[[j, i]]));
    let points = scaled.as_ref().map_or(points, |scaled| scaled.view());
    let frame = Frame::plain(Rows::dense(points)?);
    let k = targets.nrows();
    let (mut lower, mut upper) = (vec![0.0; k], vec![0.0; k]);
    for_each_chunk_of([&mut lower, &mut upper], k, 1, control, |i, [lower, upper]| {
        let target: Vec<f64> = targets.row(i).to_vec();
        if target.iter().any(|&x| x != 0.0) {
            (lower[0], upper[0]) = if scaled.is_some() {
                deviations::Search::new(&frame, &target, control)?.run(tol, max_iter, control)?
            } else {
                Search::new(&frame, &weights, &target, p).run(tol, max_iter, control)?
            };
        }
        Ok(())
    })?;
    Ok((lower, upper))
}

/// The search for the least N(x) over `target x = 1`.
struct Search<'a> {
    frame: &'a Frame<'a, f64>,
    weights: &'a [f64],
    target: &'a [f64],
    p: f64,
    power: Power,
    /// F x for the current x.
    y: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(frame: &'a Frame<'a, f64>, weights: &'a [f64], target: &'a [f64], p: f64) -> Self {
        let square: f64 = target.iter().map(|t| t * t).sum();
        let x: Vec<f64> = target.iter().map(|t| t / square).collect();
        let mut search = Self { frame, weights, target, p, power: Power::new(p), y: Vec::new() };
        search.y = search.multiply(&x);
        search
    }

    /// F x
    fn multiply(&self, x: &[f64]) -> Vec<f64> {
        let column = ArrayView2::from_shape((x.len(), 1), x).expect("a column");
        let transform = Transform::new(self.frame, column).expect("of the width of the frame");
        let stride = transform.strides.1;
        let (mut buffer, mut y, mut out) = (Vec::new(), Vec::new(), Vec::new());
        for panel in self.frame.panels(0..self.frame.n_rows()) {
            transform.apply(self.frame.rows(panel, &mut buffer), &mut y);
            out.extend(y.iter().step_by(stride));
        }
        out
    }

    fn run(&mut self, tol: f64, max_iter: usize, control: &Control) -> Result<(f64, f64), Error> {
        let (mut lower, mut upper) = (1.0 / self.power.sum(&self.y, self.weights), f64::INFINITY);
        // Below p = 2 weights of small residuals are cut, the less the nearer the end.
        let mut cut = 1e-3;
        let mut h = vec![0.0; self.y.len()];
        for _ in 0..max_iter {
            control.check()?;
            let most = self.y.iter().fold(0.0, |most: f64, y| most.max(y.abs()));
            let floor = (cut * most).powi(2);
            Power::new(self.p - 2.0).weigh(&self.y, self.weights, floor, &mut h);
            if self.p > 2.0 {
                // Weights of small y vanish beside others, and the sums would be singular. With any
                // positive ones the step goes down, and what it bounds from above stays a bound.
                let least = 1e-8 * h.iter().fold(0.0, |most: f64, h| most.max(*h));
                for h in &mut h {
                    *h = h.max(least);
                }
            }
            let x = self.least_squares(&h)?;
            let next = self.multiply(&x);
            upper = upper.min(self.dual_bound(&h, &next));
            self.y = if self.p <= 2.0 { next } else { self.descend(&next) };
            lower = lower.max(1.0 / self.power.sum(&self.y, self.weights));
            if upper <= (1.0 + tol) * lower {
                break;
            }
            cut = f64::max(cut / 10.0_f64.cbrt(), 1e-8);
        }
        Ok((lower, upper))
    }

    /// The x with `target x = 1` of the least `sum h y^2`.
    fn least_squares(&self, h: &[f64]) -> Result<Vec<f64>, Error> {
        let (mut sum, mut buffer) = (Sum::new(self.frame), Vec::new());
        for panel in self.frame.panels(0..h.len()) {
            sum.add(self.frame.rows(panel.clone(), &mut buffer), Some(&h[panel]));
        }
        let gram: Array2<f64> = sum.symmetric();
        let x = cholesky::solve(gram, self.target.to_vec(), &Control::sequential())?;
        let along: f64 = x.iter().zip(self.target).map(|(x, t)| x * t).sum();
        Ok(x.into_iter().map(|x| x / along).collect())
    }

    /// The bound from above of `z = h y / (sum h y^2)`, for y of the least squares with weights h.
    fn dual_bound(&self, h: &[f64], y: &[f64]) -> f64 {
        let scale: f64 = h.iter().zip(y).map(|(h, y)| h * y * y).sum();
        let z: Vec<f64> =
            h.iter().zip(y).zip(self.weights).map(|((h, y), c)| h * y / (scale * c)).collect();
        let q = self.p / (self.p - 1.0);
        let most = z.iter().fold(0.0, |most: f64, z| most.max(z.abs()));
        let z: Vec<f64> = z.iter().map(|z| z / most).collect();
        let sum = Power::new(q).sum(&z, self.weights);
        most.powf(self.p) * sum.powf(self.p - 1.0)
    }

    /// The y of a Newton step towards that of the least squares, as far as N falls.
    fn descend(&self, next: &[f64]) -> Vec<f64> {
        let now = self.power.sum(&self.y, self.weights);
        let at = |t: f64| -> Vec<f64> {
            self.y.iter().zip(next).map(|(a, b)| t.mul_add(b - a, *a)).collect()
        };
        let mut best = (now, None);
        let mut t = 1.0;
        for _ in 0..30 {
            let y = at(t);
            let value = self.power.sum(&y, self.weights);
            if value < best.0 {
                best = (value, Some(y));
            } else if best.1.is_some() {
                break; // it falls no longer as steps shrink
            }
            t *= 0.7;
        }
        best.1.unwrap_or_else(|| self.y.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Stream};

    fn normals(n: usize, d: usize, seed: u128) -> Array2<f64> {
        let mut values = vec![0.0; n * d];
        Stream::new(Key::new(seed), 0).fill_normal(&mut values);
        Array2::from_shape_vec((n, d), values).unwrap()
    }

    #[test]
    fn sums_of_powers_are_those_of_the_definition() {
        let (a, points) = (normals(700, 5, 1), normals(300, 5, 2));
        let weights: Vec<f64> = (0..300).map(|i| f64::from(i % 5)).collect();
        let control = Control::new();
        for p in [1.0, 1.5, 2.0, 3.3, 4.0] {
            let frame = Frame::plain(Rows::dense(a.view()).unwrap());
            let eye = Array2::eye(5);
            let found =
                pair_power_sums(&frame, eye.view(), points.view(), &weights, p, &control).unwrap();
            let products = a.dot(&points.t()).mapv(|x| x.abs().powf(p));
            for (i, found) in found.into_iter().enumerate() {
                let expected: f64 = products.row(i).iter().zip(&weights).map(|(x, w)| x * w).sum();
                assert!((found - expected).abs() < 1e-12 * expected);
            }
            let few = points.t().to_owned();
            let found = power_sums(&frame, few.view(), None, p, &control).unwrap();
            for (found, expected) in found.into_iter().zip(products.columns()) {
                assert!((found - expected.sum()).abs() < 1e-12 * expected.sum());
            }
        }
    }

    #[test]
    fn bounds_close_in_on_sensitivities_that_are_known() {
        // One column: s_i = |a_i|^p / sum |a_j|^p. The identity: every row has all of a coordinate.
        let one = normals(50, 1, 3);
        let (ones, control) = (ndarray::Array1::ones(50), Control::new());
        for p in [1.0, 1.5, 2.0, 3.0, 8.0] {
            let total: f64 = one.iter().map(|x: &f64| x.abs().powf(p)).sum();
            let (lower, upper) =
                exact_sensitivities(one.view(), ones.view(), one.view(), p, (1e-6, 60), &control)
                    .unwrap();
            for ((lower, upper), x) in lower.into_iter().zip(upper).zip(&one) {
                let expected = x.abs().powf(p) / total;
                assert!(lower <= expected * (1.0 + 1e-9) && expected <= upper * (1.0 + 1e-9));
                assert!(upper <= (1.0 + 2e-6) * lower, "p={p} {lower} {upper}");
            }
            let (eye, six) = (Array2::<f64>::eye(6), ndarray::Array1::ones(6));
            let (lower, upper) =
                exact_sensitivities(eye.view(), six.view(), eye.view(), p, (1e-6, 60), &control)
                    .unwrap();
            assert!(lower.iter().all(|x| (x - 1.0).abs() < 1e-5), "p={p} {lower:?}");
            assert!(upper.iter().all(|x| (x - 1.0).abs() < 1e-5), "p={p} {upper:?}");
        }
    }

    #[test]
    fn bounds_of_moduli_close_in_within_thirty_steps() {
        // Whole numbers are degenerate: many vertices have the same value, and many rows are alike.
        let whole = normals(300, 5, 8).mapv(f64::round);
        let heavy = {
            let mut a = normals(400, 6, 9);
            for (i, mut row) in a.rows_mut().into_iter().enumerate() {
                row *= 10.0_f64.powf((i % 9) as f64 - 4.0);
            }
            a
        };
        for a in [normals(1000, 8, 7), whole, heavy] {
            let weights: ndarray::Array1<f64> =
                (0..a.nrows()).map(|i| 0.1 + (i % 3) as f64).collect();
            let control = Control::new();
            let (lower, upper) =
                exact_sensitivities(a.view(), weights.view(), a.view(), 1.0, (1e-7, 30), &control)
                    .unwrap();
            for (lower, upper) in lower.into_iter().zip(upper) {
                assert!(
                    upper <= (1.0 + 2e-7) * lower && lower <= (1.0 + 1e-9) * upper,
                    "{lower} {upper}"
                );
            }
        }
    }

    #[test]
    fn bounds_close_in_for_large_exponents() {
        // Chebyshev polynomials of a grid: powers of most residuals are nothing beside the largest.
        let n = 500;
        let a = Array2::from_shape_fn((n, 12), |(i, j)| {
            let x: f64 = 2.0 * i as f64 / (n - 1) as f64 - 1.0;
            (j as f64 * x.clamp(-1.0, 1.0).acos()).cos()
        });
        let (ones, control) = (ndarray::Array1::ones(n), Control::new());
        let targets = a.slice_axis(ndarray::Axis(0), ndarray::Slice::new(0, None, 25));
        for p in [8.0, 16.0, 32.0] {
            let (lower, upper) =
                exact_sensitivities(a.view(), ones.view(), targets, p, (1e-3, 200), &control)
                    .unwrap();
            for (lower, upper) in lower.into_iter().zip(upper) {
                assert!(upper <= 1.0011 * lower, "p={p} {lower} {upper}");
            }
        }
    }

    #[test]
    fn sensitivities_of_squares_are_leverage_scores() {
        let a = normals(200, 4, 5);
        let gram = a.t().dot(&a);
        let ones = ndarray::Array1::ones(200);
        let (lower, upper) =
            exact_sensitivities(a.view(), ones.view(), a.view(), 2.0, (1e-9, 60), &Control::new())
                .unwrap();
        for (i, row) in a.rows().into_iter().enumerate() {
            let x = cholesky::solve(gram.clone(), row.to_vec(), &Control::sequential()).unwrap();
            let leverage: f64 = x.iter().zip(row).map(|(x, a)| x * a).sum();
            assert!((lower[i] - leverage).abs() < 1e-9 && (upper[i] - leverage).abs() < 1e-9);
        }
    }
}
