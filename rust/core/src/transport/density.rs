//! Log-densities of where a light Schrödinger bridge goes from a place, with their slopes, for
//! scales along the axes or along axes of each component's own.
//!
//! In the frame of [`Bridge`], and with `D_k`, `z_k`, `h_k` and `w_k` as in
//! [`motion`](super::motion), what is at `y` at time `s` is at `y'` at time `t` with the density
//!
//! ```text
//! p(y' | y) = sum_k w_k(y) N(y' | y + (t - s) h_k, C_k) / sum_k w_k(y)
//! C_k       = epsilon (t - s) D_k(t) / D_k(s)
//! ```
//!
//! The mean is taken from `y'` before anything is squared, and the largest weight from the others
//! before anything is added: no digits are lost where the noise is small or a place far away.
//!
//! A row and a component cost seven operations a coordinate, three for a potential or where all rows
//! have one start, and two exponentials or one; with axes of their own, the square of the dimension
//! for each vector that is turned, beside. 16 rows are taken together, one a lane: the parameters
//! of a component are then read once for all of them.

use ndarray::{Array2, ArrayView2, ArrayView3};

use super::law::Law;
use super::motion::Bridge;
use super::tiles::{
    LANES, Mean, Tile, Tiled, clear, exponentiate, log_mean, read, sweep, tiles, weight,
};
use crate::memory::{shaped, zeros};
use crate::simd::larger;
use crate::special::math;
use crate::{Control, Error};

/// The eigenvectors of the components' scales, shape (k, dim, dim), one a column, where they are not
/// the axes. The `scales` of the bridge are the eigenvalues.
pub type Bases<'a> = Option<ArrayView3<'a, f64>>;

/// Log-densities of the rows of `x`, shape (n, dim), at the later one of two times, given the rows of
/// `starts`, shape (m, dim), at the earlier one: row `i` of `x` goes with row `i % m` of `starts`.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Memory`]; [`Error::Cancelled`].
pub fn log_density(
    x: ArrayView2<'_, f64>,
    starts: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Bases<'_>,
    times: (f64, f64),
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let law = Law::new(x, starts, bridge, bases, times, false)?;
    if starts.nrows() == 1 {
        return law.given(starts.row(0), bases).log_sums(x, control);
    }
    let mut out = zeros::<f64>(&[x.nrows()])?;
    sweep(&mut out, 1, law.k, control, || Pairs::new(&law, x, starts))?;
    Ok(out)
}

/// As [`log_density`], with the gradients in the rows of `x`, shape (n, dim).
///
/// # Errors
/// As [`log_density`].
pub fn log_density_slopes(
    x: ArrayView2<'_, f64>,
    starts: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Bases<'_>,
    times: (f64, f64),
    control: &Control,
) -> Result<(Vec<f64>, Array2<f64>), Error> {
    let law = Law::new(x, starts, bridge, bases, times, true)?;
    let (n, dim) = x.dim();
    let mut out = zeros::<f64>(&[n, dim + 1])?;
    let across: Vec<_> =
        (0..dim).flat_map(|j| law.terms[j..].iter().step_by(dim)).copied().collect();
    sweep(&mut out, dim + 1, law.k, control, || Slopes::new(&law, &across, x, starts))?;
    let (mut values, mut slopes) = (Vec::with_capacity(n), Vec::with_capacity(n * dim));
    for row in out.chunks_exact(dim + 1) {
        values.push(row[0]);
        slopes.extend_from_slice(&row[1..]);
    }
    Ok((values, shaped((n, dim), slopes)))
}

/// The drift at the rows of `x`, shape (n, dim), at time `t`; faster than
/// [`motion::drift`](super::motion::drift) where there are bases, which that does not take.
///
/// # Errors
/// As [`log_density`].
pub fn drift(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Bases<'_>,
    t: f64,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    // What an end later than t adds is not looked at.
    let law = Law::new(x, x, bridge, bases, (t, t + 1.0), true)?;
    let mut out = zeros::<f64>(&[x.nrows(), law.dim])?;
    sweep(&mut out, law.dim, law.k, control, || Drifts::new(&law, x))?;
    let mut drift = shaped(x.dim(), out);
    drift += &bridge.velocity;
    Ok(drift)
}

/// Pairs of a start and an end.
struct Pairs<'a> {
    law: &'a Law,
    x: ArrayView2<'a, f64>,
    starts: ArrayView2<'a, f64>,
    y: Vec<Tile>,
    ways: Vec<Tile>,
    /// Both, turned.
    turned: [Vec<Tile>; 2],
    /// Of each component, the log-weight and the log-density of its Gaussian.
    log_weights: Vec<Tile>,
    log_densities: Vec<Tile>,
}

impl<'a> Pairs<'a> {
    fn new(law: &'a Law, x: ArrayView2<'a, f64>, starts: ArrayView2<'a, f64>) -> Self {
        Self {
            law,
            x,
            starts,
            y: tiles(law.dim),
            ways: tiles(law.dim),
            turned: [tiles(law.dim), tiles(law.dim)],
            log_weights: tiles(law.k),
            log_densities: tiles(law.k),
        }
    }
}

impl Tiled for Pairs<'_> {
    fn read(&mut self, first: usize) {
        self.law.read(self.x, self.starts, first, [&mut self.y, &mut self.ways]);
    }

    #[inline(always)]
    fn add(&mut self, k: usize) {
        let [y, ways] = &mut self.turned;
        let y = self.law.axes.turn(k, &self.y, y);
        let ways = self.law.axes.turn(k, &self.ways, ways);
        let (mut sum, mut square) = ([0.0; LANES], [0.0; LANES]);
        for ((y, way), &[lag, gain, shift, precision]) in y.iter().zip(ways).zip(self.law.own(k)) {
            for i in 0..LANES {
                let z = y[i] - lag;
                let h = gain.mul_add(z, shift);
                sum[i] = (h + shift).mul_add(z, sum[i]);
                let away = (-self.law.span).mul_add(h, way[i]) * precision;
                square[i] = away.mul_add(away, square[i]);
            }
        }
        (self.log_weights[k], self.log_densities[k]) = self.law.logits(k, &sum, &square);
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f64]) {
        let values = log_mean(&mut self.log_weights, &self.log_densities);
        out.copy_from_slice(&values[..out.len()]);
    }
}

/// Pairs, and the mean of what the components' densities change by.
///
/// Along the axes all components are weighed first, and a coordinate's sum stays in registers while
/// they stream through. With axes of their own, a component is turned, weighed and turned back at
/// once, in units of the largest weight so far.
struct Slopes<'a> {
    pairs: Pairs<'a>,
    /// The terms of the law, a row a coordinate.
    across: &'a [[f64; 4]],
    gradients: Vec<Tile>,
    /// The largest log-weight so far, and the sum of all in units of it.
    high: Tile,
    total: Tile,
    /// Weighted by the densities too, whose logarithms are taken beside `high`.
    mean: Mean,
}

impl<'a> Slopes<'a> {
    fn new(
        law: &'a Law,
        across: &'a [[f64; 4]],
        x: ArrayView2<'a, f64>,
        starts: ArrayView2<'a, f64>,
    ) -> Self {
        Self {
            pairs: Pairs::new(law, x, starts),
            across,
            gradients: tiles(law.dim),
            high: [0.0; LANES],
            total: [0.0; LANES],
            mean: Mean::new(law.dim),
        }
    }
}

impl Tiled for Slopes<'_> {
    fn read(&mut self, first: usize) {
        self.pairs.read(first);
        clear(&mut self.high, &mut self.total);
        self.mean.clear();
    }

    #[inline(always)]
    fn add(&mut self, k: usize) {
        if self.pairs.law.axes.are_those_of_space() {
            return self.pairs.add(k);
        }
        let Pairs { law, y, ways, turned: [turned_y, turned_ways], .. } = &mut self.pairs;
        let y = law.axes.turn(k, y, turned_y);
        let ways = law.axes.turn(k, ways, turned_ways);
        let (mut sum, mut square) = ([0.0; LANES], [0.0; LANES]);
        let tiles = y.iter().zip(ways).zip(&mut self.gradients);
        for (((y, way), slope), &[lag, gain, shift, precision]) in tiles.zip(law.own(k)) {
            let mut own = [0.0; LANES];
            for i in 0..LANES {
                let z = y[i] - lag;
                let h = gain.mul_add(z, shift);
                sum[i] = (h + shift).mul_add(z, sum[i]);
                let away = (-law.span).mul_add(h, way[i]) * precision;
                square[i] = away.mul_add(away, square[i]);
                own[i] = -(away * precision);
            }
            *slope = own;
        }
        let (log_weight, log_density) = law.logits(k, &sum, &square);
        let (mut logit, mut highs) = ([0.0; LANES], [0.0; LANES]);
        let (mut high, mut total) = (self.high, self.total);
        for i in 0..LANES {
            let higher = larger(log_weight[i], high[i]);
            let rise = higher - high[i];
            let below = log_weight[i] - higher;
            total[i] = total[i].mul_add(weight(-rise), weight(below));
            highs[i] = larger(f64::MIN, self.mean.high[i] - rise);
            high[i] = higher;
            logit[i] = below + log_density[i];
        }
        (self.high, self.total, self.mean.high) = (high, total, highs);
        self.mean.add(&law.axes, k, &logit, &self.gradients);
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f64]) {
        let values = if self.pairs.law.axes.are_those_of_space() {
            self.collect()
        } else {
            let Mean { high, total, .. } = &self.mean;
            let mut values = [f64::NEG_INFINITY; LANES];
            for i in 0..LANES {
                let sum = high[i] + (math::ln(total[i]) - math::ln(self.total[i]));
                values[i] = if high[i] > f64::MIN { sum } else { f64::NEG_INFINITY };
            }
            values
        };
        let width = self.mean.sums.len() + 1;
        for (row, value) in out.chunks_exact_mut(width).zip(values) {
            row[0] = value;
        }
        self.mean.write(out, width, 1);
    }
}

impl Slopes<'_> {
    /// The log-densities, and the sums of the slopes along the axes.
    #[inline(always)]
    fn collect(&mut self) -> Tile {
        let Pairs { law, y, ways, log_weights: weights, log_densities, .. } = &mut self.pairs;
        let values = log_mean(weights, log_densities);
        self.mean.total = exponentiate(weights);
        let coordinates = y.iter().zip(ways.iter()).zip(&mut self.mean.sums);
        for (((y, way), slope), terms) in coordinates.zip(self.across.chunks_exact(law.k)) {
            let mut sum = [0.0; LANES];
            for (weight, &[lag, gain, shift, precision]) in weights.iter().zip(terms) {
                for i in 0..LANES {
                    let h = gain.mul_add(y[i] - lag, shift);
                    let away = (-law.span).mul_add(h, way[i]) * precision;
                    sum[i] = (-(away * precision)).mul_add(weight[i], sum[i]);
                }
            }
            *slope = sum;
        }
        values
    }
}

/// The means of the components' drifts in the frame.
struct Drifts<'a> {
    law: &'a Law,
    x: ArrayView2<'a, f64>,
    y: Vec<Tile>,
    turned: Vec<Tile>,
    steps: Vec<Tile>,
    mean: Mean,
}

impl<'a> Drifts<'a> {
    fn new(law: &'a Law, x: ArrayView2<'a, f64>) -> Self {
        let (y, turned, steps) = (tiles(law.dim), tiles(law.dim), tiles(law.dim));
        Self { law, x, y, turned, steps, mean: Mean::new(law.dim) }
    }
}

impl Tiled for Drifts<'_> {
    fn read(&mut self, first: usize) {
        read(self.x, first, &self.law.place, None, &mut self.y);
        self.mean.clear();
    }

    #[inline(always)]
    fn add(&mut self, k: usize) {
        let y = self.law.axes.turn(k, &self.y, &mut self.turned);
        let mut sum = [0.0; LANES];
        for ((y, step), &[lag, gain, shift, _]) in
            y.iter().zip(&mut self.steps).zip(self.law.own(k))
        {
            let mut own = [0.0; LANES];
            for i in 0..LANES {
                let z = y[i] - lag;
                own[i] = gain.mul_add(z, shift);
                sum[i] = (own[i] + shift).mul_add(z, sum[i]);
            }
            *step = own;
        }
        let half_precision = 0.5 / self.law.epsilon;
        for sum in &mut sum {
            *sum = sum.mul_add(half_precision, self.law.offsets[k]);
        }
        self.mean.add(&self.law.axes, k, &sum, &self.steps);
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f64]) {
        self.mean.write(out, self.law.dim, 0);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array3, ArrayView1, Axis};

    use super::super::motion;
    use super::super::potential::{log_weight_sums, log_weight_sums_at_times};
    use super::*;

    const EPSILON: f64 = 0.3;

    /// Parameters, with bases that are the axes in another order, or turned by angles.
    struct Case {
        log_weights: Array1<f64>,
        shifts: Array2<f64>,
        scales: Array2<f64>,
        bases: Option<Array3<f64>>,
        origin: Array1<f64>,
        velocity: Array1<f64>,
    }

    fn wave(i: usize, j: usize) -> f64 {
        ((i * 37 + j * 101 + 5) as f64).sin()
    }

    impl Case {
        fn new(k: usize, dim: usize, is_full: bool) -> Self {
            // Reflections, each about a vector of its own.
            let reflected = |k: usize| {
                let v = Array1::from_shape_fn(dim, |j| wave(k + 9, j));
                let scale = 2.0 / v.dot(&v);
                Array2::from_shape_fn((dim, dim), |(i, j)| {
                    f64::from(u8::from(i == j)) - scale * v[i] * v[j]
                })
            };
            let bases = is_full.then(|| {
                let mut bases = Array3::zeros((k, dim, dim));
                for (k, mut basis) in bases.outer_iter_mut().enumerate() {
                    // Two make a rotation, which is not symmetric.
                    basis.assign(&reflected(k).dot(&reflected(k + 1)));
                }
                bases
            });
            Self {
                log_weights: Array1::from_shape_fn(k, |i| wave(i, 0)),
                shifts: Array2::from_shape_fn((k, dim), |(i, j)| wave(i, j)),
                scales: Array2::from_shape_fn((k, dim), |(i, j)| wave(j, i).exp()),
                bases,
                origin: Array1::from_shape_fn(dim, |j| wave(3, j)),
                velocity: Array1::from_shape_fn(dim, |j| wave(4, j)),
            }
        }

        fn bridge(&self) -> Bridge<'_> {
            Bridge {
                log_weights: self.log_weights.view(),
                shifts: self.shifts.view(),
                scales: self.scales.view(),
                epsilon: EPSILON,
                origin: self.origin.view(),
                velocity: self.velocity.view(),
            }
        }

        fn bases(&self) -> Bases<'_> {
            self.bases.as_ref().map(|bases| bases.view())
        }

        fn basis(&self, k: usize) -> Array2<f64> {
            let dim = self.origin.len();
            self.bases
                .as_ref()
                .map_or_else(|| Array2::eye(dim), |b| b.index_axis(Axis(0), k).to_owned())
        }

        fn density(&self, x: &Array2<f64>, starts: &Array2<f64>, times: (f64, f64)) -> Vec<f64> {
            let control = Control::sequential();
            let (bridge, bases) = (self.bridge(), self.bases());
            let found = log_density(x.view(), starts.view(), bridge, bases, times, &control);
            let threads = Control::new();
            assert_eq!(found, log_density(x.view(), starts.view(), bridge, bases, times, &threads));
            found.unwrap()
        }

        /// The density from time 0 to 1 by Korotin et al.: weights and Gaussians, one by one.
        fn plain(&self, x: ArrayView1<'_, f64>, start: ArrayView1<'_, f64>) -> f64 {
            let u = &start - &self.origin;
            let (mut weights, mut sum) = (0.0, 0.0);
            for k in 0..self.log_weights.len() {
                let (q, scales) = (self.basis(k), self.scales.row(k));
                let turned = u.dot(&q);
                let target = &self.shifts.row(k) + &self.velocity;
                let quadratic = (&turned * &turned * scales).sum() + 2.0 * target.dot(&u);
                let weight = (self.log_weights[k] + quadratic / (2.0 * EPSILON)).exp();
                let mean = &self.origin + &target + q.dot(&(&turned * &scales));
                let away = (&x - &mean).dot(&q);
                let exponent: f64 = away
                    .iter()
                    .zip(scales)
                    .map(|(a, s)| {
                        let variance = EPSILON * s;
                        -0.5 * (a * a / variance + (core::f64::consts::TAU * variance).ln())
                    })
                    .sum();
                weights += weight;
                sum += weight * exponent.exp();
            }
            (sum / weights).ln()
        }
    }

    fn places(n: usize, dim: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, dim), |(i, j)| ((i * 17 + j * 29) as f64).cos())
    }

    const CASES: [(usize, usize, usize, bool); 5] = [
        (1, 1, 5, false),
        (5, 3, 70, false),
        (4, 2, 300, true),
        (3, 6, 33, true),
        (3, 9, 20, true),
    ];

    #[test]
    fn densities_are_those_of_the_mixture() {
        for (k, dim, n, is_full) in CASES {
            let (case, x) = (Case::new(k, dim, is_full), places(n, dim));
            let mut starts = x.mapv(|x| (3.0 * x).sin());
            for m in [n, 2, 1] {
                starts.slice_axis_inplace(Axis(0), (0..m).into());
                for (i, found) in case.density(&x, &starts, (0.0, 1.0)).into_iter().enumerate() {
                    let expected = case.plain(x.row(i), starts.row(i % m));
                    assert!((found - expected).abs() < 1e-11 * (1.0 + expected.abs()));
                }
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_density() {
        for (k, dim, n, is_full) in CASES {
            let (case, x) = (Case::new(k, dim, is_full), places(n, dim));
            let (starts, times) = (x.mapv(|x| (3.0 * x).sin()), (0.2, 0.9));
            let control = Control::new();
            let (bridge, bases) = (case.bridge(), case.bases());
            let (values, slopes) =
                log_density_slopes(x.view(), starts.view(), bridge, bases, times, &control)
                    .unwrap();
            for (found, expected) in values.iter().zip(case.density(&x, &starts, times)) {
                assert!((found - expected).abs() < 1e-12 * (1.0 + expected.abs()));
            }
            for j in 0..dim {
                let [above, below] = [1e-5, -1e-5].map(|step| {
                    let mut moved = x.clone();
                    moved.column_mut(j).mapv_inplace(|x| x + step);
                    case.density(&moved, &starts, times)
                });
                for ((above, below), slope) in above.iter().zip(below).zip(slopes.column(j)) {
                    assert!(((above - below) / 2e-5 - slope).abs() < 1e-6 * (1.0 + slope.abs()));
                }
            }
        }
    }

    #[test]
    fn potentials_and_drifts_are_those_of_the_other_kernels() {
        for (k, dim, n, is_full) in CASES {
            let (mut case, x) = (Case::new(k, dim, is_full), places(n, dim));
            let control = Control::new();
            for t in [0.0, 0.4, 1.0] {
                let sums = log_weight_sums(x.view(), case.bridge(), case.bases(), t, &control);
                let found = drift(x.view(), case.bridge(), case.bases(), t, &control).unwrap();
                let sums = sums.unwrap();
                let times = Array1::from_elem(n, t);
                let (bridge, bases) = (case.bridge(), case.bases());
                let each =
                    log_weight_sums_at_times(x.view(), bridge, bases, times.view(), &control);
                for (a, b) in each.unwrap().iter().zip(&sums) {
                    assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
                }
                if !is_full {
                    let (_, others) =
                        motion::log_weights(x.view(), case.bridge(), t, &control).unwrap();
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * (1.0 + b.abs());
                    assert!(sums.iter().zip(&others).all(near));
                    let others = motion::drift(x.view(), case.bridge(), t, &control).unwrap();
                    assert!(found.iter().zip(&others).all(near));
                    continue;
                }
                // The drift is epsilon times the gradient of the potential.
                for j in 0..dim {
                    let [above, below] = [1e-5, -1e-5].map(|step| {
                        let mut moved = x.clone();
                        moved.column_mut(j).mapv_inplace(|x| x + step);
                        log_weight_sums(moved.view(), case.bridge(), case.bases(), t, &control)
                            .unwrap()
                    });
                    for ((above, below), found) in above.iter().zip(below).zip(found.column(j)) {
                        let slope = EPSILON * (above - below) / 2e-5 + case.velocity[j];
                        assert!((slope - found).abs() < 1e-6 * (1.0 + found.abs()));
                    }
                }
            }
            // A component without weight counts for nothing.
            if k > 1 {
                let before = case.density(&x, &x, (0.0, 1.0));
                case.log_weights[0] = f64::NEG_INFINITY;
                let after = case.density(&x, &x, (0.0, 1.0));
                assert!(before != after && after.iter().all(|value| value.is_finite()));
            }
        }
    }

    #[test]
    fn far_places_and_extreme_scales_keep_their_digits() {
        for is_full in [false, true] {
            for (scale, far) in [(1e-85, 1.0), (1e80, 1.0), (0.5, 1e100), (2.0, -1e140)] {
                let mut case = Case::new(4, 3, is_full);
                case.scales.fill(scale);
                let starts = far * places(40, 3);
                // All components but the likeliest are out of reach: it is a Gaussian about its mean.
                let control = Control::sequential();
                let mean = &starts
                    + &drift(starts.view(), case.bridge(), case.bases(), 0.0, &control).unwrap();
                for starts in [starts.clone(), starts.slice_axis(Axis(0), (0..1).into()).to_owned()]
                {
                    let found = case.density(&mean, &starts, (0.0, 1.0));
                    assert!(found.iter().all(|value| !value.is_nan()), "{found:?}");
                    let (values, slopes) = log_density_slopes(
                        mean.view(),
                        starts.view(),
                        case.bridge(),
                        case.bases(),
                        (0.0, 1.0),
                        &control,
                    )
                    .unwrap();
                    assert!(values.iter().chain(&slopes).all(|value| !value.is_nan()));
                }
            }
        }
    }

    #[test]
    fn a_density_beyond_float64_has_a_slope() {
        for is_full in [false, true] {
            let (case, starts) = (Case::new(4, 3, is_full), places(2, 3));
            let x = 1e200 * &starts;
            let (control, times) = (Control::sequential(), (0.0, 1.0));
            let (bridge, bases) = (case.bridge(), case.bases());
            let (values, slopes) =
                log_density_slopes(x.view(), starts.view(), bridge, bases, times, &control)
                    .unwrap();
            assert_eq!(values, [f64::NEG_INFINITY; 2]);
            assert!(slopes.iter().all(|slope| slope.is_finite()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (case, x) = (Case::new(2, 3, true), places(4, 3));
        let (control, times) = (Control::sequential(), (0.0, 1.0));
        let few = Array2::zeros((0, 3));
        let found = log_density(x.view(), few.view(), case.bridge(), None, times, &control);
        assert!(matches!(found, Err(Error::Shape { name: "starts", .. })));
        let bases = Array3::zeros((2, 3, 2));
        let bases = Some(bases.view());
        let found = log_density(x.view(), x.view(), case.bridge(), bases, times, &control);
        assert!(matches!(found, Err(Error::Shape { name: "bases", .. })));
    }
}
