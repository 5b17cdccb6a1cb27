//! Sums of a kernel over pairs of points, and their gradients.

use core::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::linalg::{Metric, Points};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::simd::vectorize;
use crate::special::math;
use crate::{Control, Error, Real};

/// A function of the distance r of two points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// r itself.
    Distance,
    /// exp(-r^2 / (2 h^2)) with the bandwidth h.
    Gaussian(f64),
    /// exp(-r / h).
    Laplace(f64),
    /// (1 + r^2 / h^2)^(-1/2).
    InverseMultiquadric(f64),
}

/// Points, one a row, and their weights, which need not add up to 1. NaN is not looked for.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a, T> {
    /// The points, shape (n, d), in any strides.
    pub points: ArrayView2<'a, T>,
    /// Their weights, shape (n,).
    pub weights: ArrayView1<'a, f64>,
}

/// Weighted sums of a kernel over the pairs of points of two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairSums {
    /// Over the ordered pairs of different rows of the first sample.
    pub xx: f64,
    /// Over those of the second.
    pub yy: f64,
    /// Over all pairs of a row of the first and a row of the second.
    pub xy: f64,
}

/// The derivative of a combination of [`PairSums`] in one of the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient<T> {
    /// In its points, shape (n, d).
    pub points: Array2<T>,
    /// In its weights.
    pub weights: Vec<f64>,
}

/// The sums of `kernel` over the pairs of points of `x` and `y`.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not fit; [`Error::Memory`]; [`Error::Cancelled`].
pub fn pair_sums<T: Real>(
    x: Sample<'_, T>,
    y: Sample<'_, T>,
    kernel: Kernel,
    control: &Control,
) -> Result<PairSums, Error> {
    struct Sums<'a>(&'a Prepared, &'a Prepared, &'a Control);

    impl Job for Sums<'_> {
        type Output = PairSums;
        fn run(self, shape: impl Shape) -> Result<PairSums, Error> {
            let Self(x, y, control) = self;
            Ok(PairSums {
                xx: 2.0 * sum(x, x, true, shape, control)?,
                yy: 2.0 * sum(y, y, true, shape, control)?,
                xy: sum(x, y, false, shape, control)?,
            })
        }
    }

    let (x, y) = prepare(x, y)?;
    dispatch(kernel, Sums(&x, &y, control))
}

/// The derivative of `within * xx + between * xy` in the points and weights of `x`.
///
/// Where two points coincide, the distance counts as constant: 0 is one of its subgradients.
///
/// # Errors
/// As [`pair_sums`].
pub fn gradient<T: Real>(
    x: Sample<'_, T>,
    y: Sample<'_, T>,
    kernel: Kernel,
    within: f64,
    between: f64,
    control: &Control,
) -> Result<Gradient<T>, Error> {
    struct Slopes<'a>(&'a Prepared, [(&'a Prepared, f64); 2], &'a Control);

    impl Job for Slopes<'_> {
        type Output = Vec<f64>;
        fn run(self, shape: impl Shape) -> Result<Vec<f64>, Error> {
            let Self(x, others, control) = self;
            slopes(x, others, shape, control)
        }
    }

    let (x, y) = prepare(x, y)?;
    let others = [(&x, 2.0 * within), (&y, between)];
    let rows = dispatch(kernel, Slopes(&x, others, control))?;
    let (n, dim) = (x.points.n(), x.points.dim());
    let mut points = zeros::<T>(&[n, dim])?;
    let mut weights = zeros::<f64>(&[n])?;
    for (i, row) in rows.chunks_exact(dim + 1).enumerate() {
        weights[i] = row[dim];
        for (out, &value) in points[i * dim..].iter_mut().zip(&row[..dim]) {
            *out = T::from_f64(x.weights[i] * value);
        }
    }
    Ok(Gradient { points: shaped((n, dim), points), weights })
}

/// A sample as the loops read it.
struct Prepared {
    points: Points,
    weights: Vec<f64>,
}

fn prepare<T: Real>(x: Sample<'_, T>, y: Sample<'_, T>) -> Result<(Prepared, Prepared), Error> {
    let one = |name, sample: Sample<'_, T>, dim| {
        let (n, d) = sample.points.dim();
        if d != dim {
            let got = sample.points.shape().to_vec();
            return Err(Error::Shape { name, expected: format!("({n}, {dim})"), got });
        }
        if sample.weights.len() != n {
            let got = sample.weights.shape().to_vec();
            return Err(Error::Shape { name: "weights", expected: format!("({n},)"), got });
        }
        let weights = sample.weights.to_vec();
        Ok(Prepared { points: Points::new(sample.points)?, weights })
    };
    let dim = x.points.ncols();
    Ok((one("x", x, dim)?, one("y", y, dim)?))
}

/// A kernel as a function of the squared distance s.
trait Shape: Copy + Sync {
    /// k(s).
    fn value(self, s: f64) -> f64;
    /// The factor c of the gradient c (x - y) in x, given k(s) too; 0 where the points coincide.
    fn slope(self, s: f64, value: f64) -> f64;
}

#[derive(Clone, Copy)]
struct Distance;

/// With 1 / h.
#[derive(Clone, Copy)]
struct Gaussian(f64);

#[derive(Clone, Copy)]
struct Laplace(f64);

#[derive(Clone, Copy)]
struct InverseMultiquadric(f64);

impl Shape for Distance {
    #[inline(always)]
    fn value(self, s: f64) -> f64 {
        s.sqrt()
    }
    #[inline(always)]
    fn slope(self, s: f64, value: f64) -> f64 {
        if s > 0.0 { 1.0 / value } else { 0.0 }
    }
}

impl Shape for Gaussian {
    #[inline(always)]
    fn value(self, s: f64) -> f64 {
        math::exp(-0.5 * (s * self.0 * self.0))
    }
    #[inline(always)]
    fn slope(self, _: f64, value: f64) -> f64 {
        -value * self.0 * self.0
    }
}

impl Shape for Laplace {
    #[inline(always)]
    fn value(self, s: f64) -> f64 {
        math::exp(-(s.sqrt() * self.0))
    }
    #[inline(always)]
    fn slope(self, s: f64, value: f64) -> f64 {
        if s > 0.0 { -value * self.0 / s.sqrt() } else { 0.0 }
    }
}

impl Shape for InverseMultiquadric {
    #[inline(always)]
    fn value(self, s: f64) -> f64 {
        1.0 / (1.0 + s * self.0 * self.0).sqrt()
    }
    #[inline(always)]
    fn slope(self, _: f64, value: f64) -> f64 {
        -(value * self.0) * (value * self.0) * value
    }
}

/// What is done with a kernel once its type is known, so that no inner loop asks for it.
trait Job {
    type Output;
    fn run(self, shape: impl Shape) -> Result<Self::Output, Error>;
}

fn dispatch<J: Job>(kernel: Kernel, job: J) -> Result<J::Output, Error> {
    match kernel {
        Kernel::Distance => job.run(Distance),
        Kernel::Gaussian(bandwidth) => job.run(Gaussian(1.0 / bandwidth)),
        Kernel::Laplace(bandwidth) => job.run(Laplace(1.0 / bandwidth)),
        Kernel::InverseMultiquadric(bandwidth) => job.run(InverseMultiquadric(1.0 / bandwidth)),
    }
}

const LANES: usize = Points::LANES;
/// Rows whose sums run together, so that a tile of columns is read from the first cache by all.
const ROWS: usize = 64;
/// Columns of a tile.
const TILE: usize = 2 * LANES;
/// Columns between two looks at the cancel flag.
const STRETCH: usize = 16 * TILE;

/// The coordinates of the points in `rows`, row by row.
fn gather(points: &Points, rows: Range<usize>) -> Vec<f64> {
    rows.flat_map(|i| points.point(i)).collect()
}

/// The ranges of at most `size` that make up `start..end`.
fn pieces(start: usize, end: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (start..end).step_by(size).map(move |from| from..(from + size).min(end))
}

/// The sum of `a_i b_j k(x_i, y_j)` over all pairs, or over those with j > i.
fn sum<S: Shape>(
    x: &Prepared,
    y: &Prepared,
    above_diagonal: bool,
    shape: S,
    control: &Control,
) -> Result<f64, Error> {
    let dim = x.points.dim();
    let block = |rows: Range<usize>| {
        let coordinates = gather(&x.points, rows.clone());
        let mut sums = [0.0; ROWS];
        let start = if above_diagonal { rows.start } else { 0 };
        for stretch in pieces(start, y.points.n(), STRETCH) {
            control.check()?;
            vectorize(
                #[inline(always)]
                || {
                    for tile in pieces(stretch.start, stretch.end, TILE) {
                        for (r, i) in rows.clone().enumerate() {
                            let from = if above_diagonal { i + 1 } else { 0 }.max(tile.start);
                            if from < tile.end {
                                let x = &coordinates[r * dim..(r + 1) * dim];
                                sums[r] += tile_sum(shape, x, y, from..tile.end);
                            }
                        }
                    }
                },
            );
        }
        Ok(sums.iter().zip(&x.weights[rows]).map(|(sum, weight)| sum * weight).sum::<f64>())
    };
    Ok(reduce_blocks(x.points.n(), ROWS, control, block, |a, b| a + b)?.unwrap_or(0.0))
}

/// The sum of `b_j k(x, y_j)` over the columns, at most [`TILE`] of them.
#[inline(always)]
fn tile_sum<S: Shape>(shape: S, x: &[f64], y: &Prepared, columns: Range<usize>) -> f64 {
    let mut values = [0.0; TILE];
    let mut weights = [0.0; TILE];
    let n = columns.len();
    weights[..n].copy_from_slice(&y.weights[columns.clone()]);
    y.points.distances(Metric::SquaredEuclidean, x, columns.start, &mut values[..n]);
    let mut lanes = [0.0; 8];
    for (values, weights) in values.as_chunks::<8>().0.iter().zip(weights.as_chunks::<8>().0) {
        for l in 0..8 {
            lanes[l] = weights[l].mul_add(shape.value(values[l]), lanes[l]);
        }
    }
    lanes.iter().sum()
}

/// Rows of a block of gradients: their sums, 8 lanes a coordinate, stay in the second cache.
const GRADIENT_ROWS: usize = 32;

/// For each row of `x` the sum over all rows of `others` of their factor times `b_j grad k`, and
/// behind it that of their factor times `b_j k`; a row does not meet itself.
fn slopes<S: Shape>(
    x: &Prepared,
    others: [(&Prepared, f64); 2],
    shape: S,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let dim = x.points.dim();
    let mut out = zeros::<f64>(&[x.points.n(), dim + 1])?;
    for_each_chunk(&mut out, GRADIENT_ROWS * (dim + 1), control, |start, out| {
        let first = start / (dim + 1);
        let rows = first..first + out.len() / (dim + 1);
        let coordinates = gather(&x.points, rows.clone());
        for (y, factor) in others {
            if factor == 0.0 {
                continue;
            }
            let mut sums = vec![[0.0; 8]; out.len()];
            for stretch in pieces(0, y.points.n(), STRETCH) {
                control.check()?;
                vectorize(
                    #[inline(always)]
                    || {
                        for tile in pieces(stretch.start, stretch.end, TILE) {
                            for (r, i) in rows.clone().enumerate() {
                                let itself = core::ptr::eq(x, y) && tile.contains(&i);
                                let itself = itself.then(|| i - tile.start);
                                let x = &coordinates[r * dim..(r + 1) * dim];
                                let sums = &mut sums[r * (dim + 1)..(r + 1) * (dim + 1)];
                                add_slopes(shape, x, y, tile.clone(), itself, sums);
                            }
                        }
                    },
                );
            }
            for (out, lanes) in out.iter_mut().zip(&sums) {
                *out += factor * lanes.iter().sum::<f64>();
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// Adds the terms of one tile, which begins a panel; column `itself` of it is left out.
#[inline(always)]
fn add_slopes<S: Shape>(
    shape: S,
    x: &[f64],
    y: &Prepared,
    columns: Range<usize>,
    itself: Option<usize>,
    sums: &mut [[f64; 8]],
) {
    let mut factors = [0.0; TILE];
    let mut weights = [0.0; TILE];
    let n = columns.len();
    weights[..n].copy_from_slice(&y.weights[columns.clone()]);
    if let Some(column) = itself {
        weights[column] = 0.0;
    }
    y.points.distances(Metric::SquaredEuclidean, x, columns.start, &mut factors[..n]);
    let (gradient, potential) = sums.split_at_mut(x.len());
    for (s, weights) in factors.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0) {
        for l in 0..8 {
            let value = shape.value(s[l]);
            potential[0][l] = weights[l].mul_add(value, potential[0][l]);
            s[l] = weights[l] * shape.slope(s[l], value);
        }
    }
    // Groups of lanes in use. A count not known beforehand keeps the compiler from vectorising over
    // the coordinates instead, whose elements lie far apart.
    let factors = &factors.as_chunks::<8>().0[..n.div_ceil(8)];
    let panels = columns.start / LANES..columns.end.div_ceil(LANES);
    for (panel, factors) in panels.zip(factors.chunks(LANES / 8)) {
        for ((&x, row), sums) in x.iter().zip(y.points.panel(panel)).zip(&mut *gradient) {
            let mut lanes = *sums;
            for (factors, row) in factors.iter().zip(row.as_chunks::<8>().0) {
                for l in 0..8 {
                    lanes[l] = factors[l].mul_add(x - row[l], lanes[l]);
                }
            }
            *sums = lanes;
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // equal bits
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;

    const KERNELS: [Kernel; 4] = [
        Kernel::Distance,
        Kernel::Gaussian(1.3),
        Kernel::Laplace(0.7),
        Kernel::InverseMultiquadric(2.1),
    ];

    fn cloud(n: usize, dim: usize, shift: f64) -> (Array2<f64>, Array1<f64>) {
        let wave = |i: usize, k: usize| ((i * 37 + k * 101) as f64 + shift).sin();
        let weights = (0..n).map(|i| 0.1 + wave(i, 5).powi(2)).collect();
        (Array2::from_shape_fn((n, dim), |(i, k)| wave(i, k)), weights)
    }

    fn value(kernel: Kernel, r: f64) -> f64 {
        match kernel {
            Kernel::Distance => r,
            Kernel::Gaussian(h) => (-r * r / (2.0 * h * h)).exp(),
            Kernel::Laplace(h) => (-r / h).exp(),
            Kernel::InverseMultiquadric(h) => (1.0 + r * r / (h * h)).powf(-0.5),
        }
    }

    fn naive(x: Sample<'_, f64>, y: Sample<'_, f64>, kernel: Kernel, skip: bool) -> f64 {
        let mut total = 0.0;
        for (i, (p, a)) in x.points.outer_iter().zip(x.weights).enumerate() {
            for (j, (q, b)) in y.points.outer_iter().zip(y.weights).enumerate() {
                if !(skip && i == j) {
                    let r = (&p - &q).mapv(|t| t * t).sum().sqrt();
                    total += a * b * value(kernel, r);
                }
            }
        }
        total
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-13 * scale.max(b.abs())
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        for (n, m, dim) in [(1, 1, 1), (2, 3, 1), (65, 130, 3), (200, 33, 20), (0, 5, 2)] {
            let ((x, a), (y, b)) = (cloud(n, dim, 0.0), cloud(m, dim, 0.4));
            let x = Sample { points: x.view(), weights: a.view() };
            let y = Sample { points: y.view(), weights: b.view() };
            for kernel in KERNELS {
                let sums = pair_sums(x, y, kernel, &Control::new()).unwrap();
                assert!(close(sums.xx, naive(x, x, kernel, true), 0.0), "{kernel:?} {n}");
                assert!(close(sums.yy, naive(y, y, kernel, true), 0.0), "{kernel:?} {m}");
                assert!(close(sums.xy, naive(x, y, kernel, false), 0.0), "{kernel:?} {n} {m}");
                assert_eq!(pair_sums(x, y, kernel, &Control::sequential()), Ok(sums));
            }
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let ((x, a), (y, b)) = (cloud(70, 3, 0.0), cloud(90, 3, 0.4));
        let other = Sample { points: y.view(), weights: b.view() };
        let (within, between) = (0.7, -1.9);
        for kernel in KERNELS {
            let combined = |x: &Array2<f64>, a: &Array1<f64>| {
                let x = Sample { points: x.view(), weights: a.view() };
                let sums = pair_sums(x, other, kernel, &Control::new()).unwrap();
                within * sums.xx + between * sums.xy
            };
            let sample = Sample { points: x.view(), weights: a.view() };
            let found = gradient(sample, other, kernel, within, between, &Control::new()).unwrap();
            let h = 1e-5;
            for (i, k) in [(0, 0), (31, 1), (32, 2), (69, 1)] {
                let moved = |step: f64| {
                    let mut x = x.clone();
                    x[[i, k]] += step;
                    combined(&x, &a)
                };
                let expected = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((found.points[[i, k]] - expected).abs() < 1e-6, "{kernel:?} {i} {k}");
                let moved = |step: f64| {
                    let mut a = a.clone();
                    a[i] += step;
                    combined(&x, &a)
                };
                let expected = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((found.weights[i] - expected).abs() < 1e-6, "{kernel:?} {i}");
            }
            let alone = gradient(sample, other, kernel, within, between, &Control::sequential());
            assert_eq!(alone, Ok(found));
        }
    }

    #[test]
    fn coincident_points_have_no_slope() {
        let (x, a) = (Array2::from_elem((40, 2), 3.0), Array1::from_elem(40, 0.5));
        let sample = Sample { points: x.view(), weights: a.view() };
        for kernel in KERNELS {
            let found = gradient(sample, sample, kernel, 1.0, 1.0, &Control::new()).unwrap();
            assert_eq!(found.points, Array2::<f64>::zeros((40, 2)), "{kernel:?}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_and_cancellation_are_errors() {
        let ((x, a), (y, b)) = (cloud(4, 2, 0.0), cloud(5, 3, 0.0));
        let x = Sample { points: x.view(), weights: a.view() };
        let y = Sample { points: y.view(), weights: b.view() };
        let control = Control::new();
        let wrong = pair_sums(x, y, Kernel::Distance, &control);
        assert!(matches!(wrong, Err(Error::Shape { name: "y", .. })));
        let unweighted = Sample { weights: b.view(), ..x };
        let wrong = pair_sums(x, unweighted, Kernel::Distance, &control);
        assert!(matches!(wrong, Err(Error::Shape { name: "weights", .. })));
        control.cancel();
        assert_eq!(pair_sums(x, x, Kernel::Distance, &control), Err(Error::Cancelled));
    }
}
