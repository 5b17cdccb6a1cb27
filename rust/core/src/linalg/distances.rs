//! Distances between points, the inner loop of kernels that never hold a matrix of them.

use ndarray::ArrayView2;

use crate::memory::zeros;
use crate::simd::vectorize;
use crate::{Error, Real};

/// How far two points are from one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The sum of the squared differences of the coordinates.
    SquaredEuclidean,
    /// Its square root.
    Euclidean,
    /// The sum of the absolute differences.
    Cityblock,
}

/// Points whose coordinates lie so that a loop over points fills vector lanes.
///
/// They stand in panels of [`Points::LANES`]: within one, first the first coordinate of every point,
/// then the second of every point, and so on. A panel is read from end to end, whatever the number
/// of points, and as many sums run side by side as hide the latency of an addition.
///
/// Differences are formed before they are squared. The expansion |x|^2 + |y|^2 - 2 x . y, which
/// would be a matrix product, loses the digits of whatever is small beside the norms.
///
/// ```
/// use ndarray::array;
/// use pyprobe_core::linalg::{Metric, Points};
///
/// let points = Points::new(array![[0.0, 0.0], [3.0, 4.0]].view())?;
/// assert_eq!(points.distances_from(&[0.0, 0.0], Metric::Euclidean), [0.0, 5.0]);
/// assert_eq!(points.distances_from(&[1.0, 1.0], Metric::Cityblock), [2.0, 5.0]);
/// # Ok::<(), pyprobe_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    n: usize,
    dim: usize,
    /// Shape (panels, dim, LANES); the lanes behind the last point hold zeros.
    values: Vec<f64>,
}

impl Points {
    /// Points in a panel: four registers of the widest vector instructions there are.
    pub const LANES: usize = 32;

    /// The rows of `x`, which may have any strides.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub fn new<T: Real>(x: ArrayView2<'_, T>) -> Result<Self, Error> {
        let (n, dim) = x.dim();
        let mut values = zeros::<f64>(&[n.div_ceil(Self::LANES), dim, Self::LANES])?;
        for (i, row) in x.outer_iter().enumerate() {
            let lane = Self::offset(i, dim);
            for (k, &coordinate) in row.iter().enumerate() {
                values[lane + k * Self::LANES] = coordinate.into();
            }
        }
        Ok(Self { n, dim, values })
    }

    /// Number of points.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of coordinates.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The coordinates of point `i`.
    ///
    /// # Panics
    /// Where there is no such point.
    pub fn point(&self, i: usize) -> impl Iterator<Item = f64> {
        assert!(i < self.n, "there are {} points", self.n);
        let lane = Self::offset(i, self.dim);
        (0..self.dim).map(move |k| self.values[lane + k * Self::LANES])
    }

    /// The distances of all points from `x`.
    ///
    /// # Panics
    /// Where `x` has another number of coordinates.
    pub fn distances_from(&self, x: &[f64], metric: Metric) -> Vec<f64> {
        let mut out = vec![0.0; self.n];
        vectorize(
            #[inline(always)]
            || self.distances(metric, x, 0, &mut out),
        );
        out
    }

    /// `out[j]` = the distance of point `start + j` from `x`; fastest where `start` and the length
    /// are multiples of [`Points::LANES`]. A distance has the same bits wherever it is computed.
    ///
    /// To be called within the body of [`vectorize`].
    #[inline(always)]
    pub(crate) fn distances(&self, metric: Metric, x: &[f64], start: usize, out: &mut [f64]) {
        assert!(start + out.len() <= self.n, "points that are there");
        let (mut panel, mut lane) = (start / Self::LANES, start % Self::LANES);
        let mut rest = out;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut((Self::LANES - lane).min(rest.len()));
            let found = self.panel_distances(metric, x, panel);
            now.copy_from_slice(&found[lane..lane + now.len()]);
            rest = later;
            (panel, lane) = (panel + 1, 0);
        }
    }

    /// The distances of a panel's points from `x`, of any value in the lanes behind the last point.
    ///
    /// To be called within the body of [`vectorize`].
    #[inline(always)]
    pub(crate) fn panel_distances(
        &self,
        metric: Metric,
        x: &[f64],
        panel: usize,
    ) -> [f64; Self::LANES] {
        assert!(x.len() == self.dim, "a point of as many coordinates");
        let mut sums = match metric {
            Metric::Cityblock => self.panel_sums(
                x,
                panel,
                #[inline(always)]
                |difference, sum| sum + difference.abs(),
            ),
            _ => self.panel_sums(
                x,
                panel,
                #[inline(always)]
                |difference, sum| difference.mul_add(difference, sum),
            ),
        };
        if metric == Metric::Euclidean {
            for sum in &mut sums {
                *sum = sum.sqrt();
            }
        }
        sums
    }

    /// Adds `term` up over the coordinates.
    #[inline(always)]
    fn panel_sums(
        &self,
        x: &[f64],
        panel: usize,
        term: impl Fn(f64, f64) -> f64,
    ) -> [f64; Self::LANES] {
        let mut sums = [0.0; Self::LANES];
        for (&x, row) in x.iter().zip(self.panel(panel)) {
            for l in 0..Self::LANES {
                sums[l] = term(x - row[l], sums[l]);
            }
        }
        sums
    }

    /// The rows of a panel, one a coordinate.
    #[inline(always)]
    pub(crate) fn panel(&self, index: usize) -> &[[f64; Self::LANES]] {
        let length = self.dim * Self::LANES;
        self.values[index * length..(index + 1) * length].as_chunks().0
    }

    /// Where the first coordinate of point `i` lies.
    fn offset(i: usize, dim: usize) -> usize {
        i / Self::LANES * dim * Self::LANES + i % Self::LANES
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact cases, and equal bits
mod tests {
    use ndarray::{Array2, Axis, Slice};

    use super::*;

    const METRICS: [Metric; 3] = [Metric::SquaredEuclidean, Metric::Euclidean, Metric::Cityblock];

    fn cloud(n: usize, dim: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, dim), |(i, k)| ((i * 37 + k * 101) as f64).sin() * 3.0)
    }

    fn naive(metric: Metric, x: &[f64], y: &[f64]) -> f64 {
        let pairs = x.iter().zip(y);
        match metric {
            Metric::SquaredEuclidean => pairs.map(|(a, b)| (a - b).powi(2)).sum(),
            Metric::Euclidean => naive(Metric::SquaredEuclidean, x, y).sqrt(),
            Metric::Cityblock => pairs.map(|(a, b)| (a - b).abs()).sum(),
        }
    }

    #[test]
    fn distances_are_those_of_the_definition() {
        for (n, dim) in [(0, 3), (1, 1), (31, 2), (32, 7), (33, 64), (100, 0)] {
            let x = cloud(n, dim);
            let points = Points::new(x.view()).unwrap();
            assert_eq!((points.n(), points.dim()), (n, dim));
            let from: Vec<f64> = (0..dim).map(|k| (k as f64).cos()).collect();
            for metric in METRICS {
                let found = points.distances_from(&from, metric);
                assert_eq!(found.len(), n);
                for (i, &distance) in found.iter().enumerate() {
                    let row: Vec<f64> = points.point(i).collect();
                    assert_eq!(row, x.row(i).to_vec());
                    let expected = naive(metric, &from, &row);
                    assert!((distance - expected).abs() <= 1e-14 * expected, "{n} {dim} {i}");
                }
            }
        }
    }

    #[test]
    fn a_distance_has_the_same_bits_from_any_start() {
        let points = Points::new(cloud(150, 5).view()).unwrap();
        let from = [0.3, -1.0, 2.0, 0.0, 0.7];
        for metric in METRICS {
            let whole = points.distances_from(&from, metric);
            for (start, length) in [(0, 150), (1, 40), (31, 2), (32, 64), (64, 86), (150, 0)] {
                let mut out = vec![f64::NAN; length];
                points.distances(metric, &from, start, &mut out); // scalar code
                assert_eq!(out[..], whole[start..start + length]);
            }
        }
    }

    #[test]
    fn near_points_far_from_the_origin_keep_their_distance() {
        let points = Points::new(ndarray::arr2(&[[1e8, 1e8], [1e8 + 3.0, 1e8 + 4.0]]).view());
        let found = points.unwrap().distances_from(&[1e8, 1e8], Metric::Euclidean);
        assert_eq!(found, [0.0, 5.0]);
    }

    #[test]
    fn strides_and_float_types_are_read_as_what_they_hold() {
        let x = cloud(40, 6);
        let rows = x.slice_axis(Axis(0), Slice::new(0, None, -2));
        let strided = rows.slice_axis(Axis(1), Slice::new(1, None, 2));
        assert_eq!(strided.dim(), (20, 3));
        assert_eq!(Points::new(strided), Points::new(strided.as_standard_layout().view()));
        assert_eq!(Points::new(x.t().as_standard_layout().t()), Points::new(x.view()));
        let narrow = x.mapv(|value| value as f32);
        assert_eq!(Points::new(narrow.view()), Points::new(narrow.mapv(f64::from).view()));
    }

    #[test]
    fn what_is_not_finite_stays_in_its_own_lane() {
        let points = Points::new(ndarray::arr2(&[[1.0], [f64::NAN], [f64::INFINITY]]).view());
        let found = points.unwrap().distances_from(&[0.0], Metric::Euclidean);
        assert_eq!(found[0], 1.0);
        assert!(found[1].is_nan());
        assert_eq!(found[2], f64::INFINITY);
    }
}
