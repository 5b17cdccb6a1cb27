//! Where a light Schrödinger bridge with scales along the axes goes from a place: the weights of its
//! components, its drift, draws of later places and of whole paths, each in closed form.
//!
//! In a frame that moves from the origin with a velocity, `y` is the place and component `k` takes
//! the origin to `r_k`. With `D_k = 1 - t + t S_k`, `g_k = (S_k - 1) / D_k` and `z_k = y - t r_k`,
//!
//! ```text
//! log w_k = log alpha_k - log|D_k| / 2 + (<g_k z_k + 2 r_k, z_k> + t |r_k|^2) / (2 epsilon)
//! h_k     = g_k z_k + r_k
//! X_u     ~ N(y + (u - t) h_k, epsilon (u - t) D_k(u) / D_k(t))   with weight w_k, from X_t = y
//! ```
//!
//! (Korotin, Gushchin and Burnaev 2024, propositions 3.2 and 3.3, without what is singular at the
//! end.) Differences come before squares, so that nothing cancels where a scale is small.
//!
//! A row and a component cost three operations a coordinate. 32 rows are taken together, one a lane:
//! the parameters of a component are then read once for all of them.

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, ArrayView3, Axis};

use crate::memory::{shaped, zeros};
use crate::parallel::for_each_chunk;
use crate::random::{Key, Stream};
use crate::simd::{larger, vectorize};
use crate::special::math;
use crate::{Control, Error};

/// Rows taken together.
const LANES: usize = 32;
/// Rows of a parallel chunk, which has a random stream of its own.
const BLOCK: usize = 256;
/// Below this, less the largest one, a log-weight counts as if it were this.
const LOWEST: f64 = -100.0;

type Tile = [f64; LANES];

/// A bridge over [0, 1] in a moving frame. The frame is free: any velocity gives the same results,
/// but one near the mean displacement gives them with more digits.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// Logarithms of the components' probabilities at the origin, up to a constant: shape (k,).
    pub log_weights: ArrayView1<'a, f64>,
    /// Where each component takes the origin, less where the frame does: shape (k, dim).
    pub shifts: ArrayView2<'a, f64>,
    /// Diagonals of the scales, positive: shape (k, dim).
    pub scales: ArrayView2<'a, f64>,
    /// Variance of the noise over [0, 1].
    pub epsilon: f64,
    /// Where the frame is at time 0: shape (dim,).
    pub origin: ArrayView1<'a, f64>,
    /// Displacement of the frame over [0, 1]: shape (dim,).
    pub velocity: ArrayView1<'a, f64>,
}

impl Bridge<'_> {
    /// The number of components and the dimension, where all shapes fit.
    pub(super) fn check(&self, x: ArrayView2<'_, f64>) -> Result<(usize, usize), Error> {
        let (k, dim) = self.shifts.dim();
        let shape = |name, expected: String, got: &[usize]| {
            Err(Error::Shape { name, expected, got: got.to_vec() })
        };
        if x.ncols() != dim {
            return shape("x", format!("(n, {dim})"), x.shape());
        }
        if k == 0 || self.log_weights.len() != k {
            let expected = format!("({k},), of one or more");
            return shape("log_weights", expected, self.log_weights.shape());
        }
        if self.scales.dim() != (k, dim) {
            return shape("scales", format!("({k}, {dim})"), self.scales.shape());
        }
        if self.origin.len() != dim || self.velocity.len() != dim {
            return shape("origin", format!("({dim},), as the velocity"), self.origin.shape());
        }
        Ok((k, dim))
    }
}

/// Log-weights of the components at the rows of `x`, shape (n, dim), at time `t`, normalized, shape
/// (n, k); and the logarithms of their sums before, in the frame.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Memory`]; [`Error::Cancelled`].
pub fn log_weights(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    t: f64,
    control: &Control,
) -> Result<(Array2<f64>, Vec<f64>), Error> {
    let now = Now::new(x, bridge, t)?;
    let (n, k) = (x.nrows(), now.k);
    let mut out = zeros::<f64>(&[n, k + 1])?;
    for_each_chunk(&mut out, BLOCK * (k + 1), control, |start, out| {
        let mut y = vec![[0.0; LANES]; now.dim];
        let mut logits = vec![[0.0; LANES]; k];
        for (tile, out) in out.chunks_mut(LANES * (k + 1)).enumerate() {
            now.read(x, start / (k + 1) + tile * LANES, &mut y);
            let sums = vectorize(
                #[inline(always)]
                || {
                    now.logits(&y, &mut logits);
                    log_sums(&logits)
                },
            );
            for (i, out) in out.chunks_exact_mut(k + 1).enumerate() {
                out[k] = sums[i];
                for (out, logits) in out.iter_mut().zip(&logits) {
                    *out = logits[i] - sums[i];
                }
            }
        }
        Ok(())
    })?;
    let sums = out.chunks_exact(k + 1).map(|row| row[k]).collect();
    let normalized = out.chunks_exact(k + 1).flat_map(|row| &row[..k]).copied().collect();
    Ok((shaped((n, k), normalized), sums))
}

/// The drift at the rows of `x`, shape (n, dim), at time `t`.
///
/// # Errors
/// As [`log_weights`].
pub fn drift(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    t: f64,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let now = Now::new(x, bridge, t)?;
    let dim = now.dim;
    let across: Vec<_> =
        (0..dim).flat_map(|j| now.terms[j..].iter().step_by(dim)).copied().collect();
    let mut out = zeros::<f64>(&[x.nrows(), dim])?;
    for_each_chunk(&mut out, BLOCK * dim.max(1), control, |start, out| {
        let mut y = vec![[0.0; LANES]; dim];
        let mut shares = vec![[0.0; LANES]; now.k];
        let mut means = vec![[0.0; LANES]; dim];
        for (tile, out) in out.chunks_mut(LANES * dim).enumerate() {
            now.read(x, start / dim + tile * LANES, &mut y);
            vectorize(
                #[inline(always)]
                || {
                    now.logits(&y, &mut shares);
                    let totals = exponentiate(&mut shares);
                    steps(&across, &y, &shares, &totals, &mut means);
                },
            );
            for (i, out) in out.chunks_exact_mut(dim).enumerate() {
                for ((out, mean), velocity) in out.iter_mut().zip(&means).zip(bridge.velocity) {
                    *out = velocity + mean[i];
                }
            }
        }
        Ok(())
    })?;
    Ok(shaped((x.nrows(), dim), out))
}

/// As [`drift`], with a time for each row, shape (n,).
///
/// # Errors
/// As [`log_weights`].
pub fn drift_at_times(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    times: ArrayView1<'_, f64>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let (k, dim) = bridge.check(x)?;
    if times.len() != x.nrows() {
        return Err(Error::Shape {
            name: "times",
            expected: format!("({},), one a row of x", x.nrows()),
            got: times.shape().to_vec(),
        });
    }
    // The shift and the scale, of each component and coordinate.
    let terms: Vec<_> = bridge.shifts.iter().copied().zip(bridge.scales.iter().copied()).collect();
    let squares: Vec<f64> = bridge.shifts.rows().into_iter().map(|row| row.dot(&row)).collect();
    let mut out = zeros::<f64>(&[x.nrows(), dim])?;
    for_each_chunk(&mut out, BLOCK * dim.max(1), control, |start, out| {
        let mut y = vec![[0.0; LANES]; dim];
        let mut pulls = vec![[0.0; LANES]; dim];
        let mut means = vec![[0.0; LANES]; dim];
        for (tile, out) in out.chunks_mut(LANES * dim).enumerate() {
            let first = start / dim + tile * LANES;
            let mut t = [0.0; LANES];
            for (i, (x, time)) in
                x.rows().into_iter().zip(times).skip(first).take(LANES).enumerate()
            {
                t[i] = *time;
                let frame = bridge.origin.iter().zip(bridge.velocity);
                for ((y, x), (origin, velocity)) in y.iter_mut().zip(x).zip(frame) {
                    y[i] = x - (origin + time * velocity);
                }
            }
            vectorize(
                #[inline(always)]
                || {
                    // Finite: a component of weight 0 may come first.
                    let mut high = [f64::MIN; LANES];
                    let mut totals = [0.0; LANES];
                    means.fill([0.0; LANES]);
                    for j in 0..k {
                        let terms = &terms[j * dim..(j + 1) * dim];
                        let (sum, log_det) = pull(terms, &t, &y, &mut pulls);
                        let mut logit = [0.0; LANES];
                        for i in 0..LANES {
                            let exponent = t[i].mul_add(squares[j], sum[i]) / bridge.epsilon;
                            logit[i] = 0.5 * (exponent - log_det[i]) + bridge.log_weights[j];
                        }
                        add(&logit, &pulls, &mut high, &mut totals, &mut means);
                    }
                    for mean in &mut means {
                        for i in 0..LANES {
                            mean[i] /= totals[i];
                        }
                    }
                },
            );
            for (i, out) in out.chunks_exact_mut(dim).enumerate() {
                for ((out, mean), velocity) in out.iter_mut().zip(&means).zip(bridge.velocity) {
                    *out = velocity + mean[i];
                }
            }
        }
        Ok(())
    })?;
    Ok(shaped((x.nrows(), dim), out))
}

/// Writes the drifts of a component in the frame; returns `<g z + 2 r, z>` and the log-determinants.
#[inline(always)]
fn pull(terms: &[(f64, f64)], t: &Tile, y: &[Tile], pulls: &mut [Tile]) -> (Tile, Tile) {
    let (mut sum, mut log_det) = ([0.0; LANES], [0.0; LANES]);
    for ((&(shift, scale), y), pull) in terms.iter().zip(y).zip(pulls) {
        for i in 0..LANES {
            let denominator = t[i].mul_add(scale, 1.0 - t[i]);
            let z = y[i] - t[i] * shift;
            let pulled = (scale - 1.0) / denominator * z;
            sum[i] = (pulled + 2.0 * shift).mul_add(z, sum[i]);
            log_det[i] += math::ln(denominator);
            pull[i] = pulled + shift;
        }
    }
    (sum, log_det)
}

/// Adds a component to the weighted sums, which are in units of the largest weight so far.
#[inline(always)]
fn add(logit: &Tile, pulls: &[Tile], high: &mut Tile, totals: &mut Tile, sums: &mut [Tile]) {
    let (mut kept, mut share) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        let higher = larger(logit[i], high[i]);
        kept[i] = math::exp_within(larger(LOWEST, high[i] - higher));
        share[i] = math::exp_within(larger(LOWEST, logit[i] - higher));
        high[i] = higher;
    }
    for i in 0..LANES {
        totals[i] = totals[i].mul_add(kept[i], share[i]);
    }
    for (sum, pull) in sums.iter_mut().zip(pulls) {
        let mut own = *sum;
        for i in 0..LANES {
            own[i] = own[i].mul_add(kept[i], share[i] * pull[i]);
        }
        *sum = own;
    }
}

/// Draws of the place at time `end`, shape (draws, n, dim), from the rows of `x`, shape (n, dim), at
/// time `start`: first a component, by its weight, then `dim` normal variates.
///
/// A draw depends on the key, the row and the numbers of rows and draws alone, not on threads.
///
/// # Errors
/// As [`log_weights`].
pub fn sample(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    (start, end): (f64, f64),
    n_draws: usize,
    key: Key,
    control: &Control,
) -> Result<Array3<f64>, Error> {
    let now = Now::new(x, bridge, start)?;
    let (n, dim) = x.dim();
    let span = end - start;
    let deviations: Vec<f64> = bridge
        .scales
        .iter()
        .map(|&s| (bridge.epsilon * span * mix(s, end) / mix(s, start)).sqrt())
        .collect();
    let width = n_draws * dim;
    let mut out = zeros::<f64>(&[n, n_draws, dim])?;
    for_each_chunk(&mut out, (BLOCK * width).max(1), control, |first, out| {
        let first = first / width;
        let rows = out.len() / width;
        let mut stream = Stream::new(key, (first / BLOCK) as u64);
        let mut uniforms = vec![0.0; rows * n_draws];
        stream.fill_uniform(&mut uniforms);
        stream.fill_normal(out);
        let mut y = vec![[0.0; LANES]; dim];
        let mut shares = vec![[0.0; LANES]; now.k];
        let tiles = out.chunks_mut(LANES * width).zip(uniforms.chunks(LANES * n_draws));
        for (tile, (out, uniforms)) in tiles.enumerate() {
            let row = first + tile * LANES;
            now.read(x, row, &mut y);
            vectorize(
                #[inline(always)]
                || {
                    now.logits(&y, &mut shares);
                    exponentiate(&mut shares);
                    accumulate(&mut shares);
                },
            );
            for draw in 0..n_draws {
                let mut levels = [0.0; LANES];
                let drawn = uniforms.iter().skip(draw).step_by(n_draws);
                levels.iter_mut().zip(drawn).for_each(|(level, u)| *level = *u);
                let chosen = vectorize(
                    #[inline(always)]
                    || choose(&shares, &levels),
                );
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let out = &mut out[draw * dim..][..dim];
                    let own = chosen[i] * dim..(chosen[i] + 1) * dim;
                    let motion = &now.terms[own.clone()];
                    let row = x.row(row + i);
                    let noise = out.iter_mut().zip(&deviations[own]);
                    for ((((out, deviation), &[lag, gain, twice]), x), (place, velocity)) in
                        noise.zip(motion).zip(row).zip(now.place.iter().zip(bridge.velocity))
                    {
                        let step = velocity + 0.5 * twice + gain * (x - place - lag);
                        *out = x + span * step + deviation * *out;
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok(shaped((n, n_draws, dim), out).permuted_axes([1, 0, 2]))
}

/// Brownian bridges of variance `epsilon` from the rows of `starts`, shape (n, dim), at time 0, to
/// those of `ends`, shape (draws, n, dim), at time 1: their places at `times`, which increase, shape
/// (draws, n, times, dim), one path after the other.
///
/// A path depends on the key and on its place among the paths alone.
///
/// # Errors
/// As [`log_weights`].
pub fn brownian_bridges(
    starts: ArrayView2<'_, f64>,
    ends: ArrayView3<'_, f64>,
    times: &[f64],
    epsilon: f64,
    key: Key,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let (n_draws, n, dim) = ends.dim();
    if starts.dim() != (n, dim) {
        return Err(Error::Shape {
            name: "starts",
            expected: format!("({n}, {dim})"),
            got: starts.shape().to_vec(),
        });
    }
    let width = times.len() * dim;
    let mut out = zeros::<f64>(&[n_draws, n, times.len(), dim])?;
    // Chunks of about as many numbers, whatever the lengths of paths.
    let paths = (1_usize << 14).div_ceil(width.max(1));
    for_each_chunk(&mut out, (paths * width).max(1), control, |first, out| {
        let first = first / width;
        Stream::new(key, (first / paths) as u64).fill_normal(out);
        let mut here = vec![0.0; dim];
        for (path, out) in out.chunks_exact_mut(width).enumerate() {
            let (draw, row) = ((first + path) / n, (first + path) % n);
            here.iter_mut().zip(starts.row(row)).for_each(|(here, start)| *here = *start);
            let ends = ends.index_axis(Axis(0), draw);
            let mut now = 0.0;
            for (&time, out) in times.iter().zip(out.chunks_exact_mut(dim)) {
                let arrived = time >= 1.0;
                let part = if arrived { 1.0 } else { (time - now) / (1.0 - now) };
                let deviation = (epsilon * part * (1.0 - time)).max(0.0).sqrt();
                for ((out, here), end) in out.iter_mut().zip(&mut here).zip(ends.row(row)) {
                    let mean = if arrived { *end } else { *here + part * (end - *here) };
                    *here = mean + deviation * *out;
                    *out = *here;
                }
                now = time;
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// `1 - t + t s`
pub(super) fn mix(scale: f64, t: f64) -> f64 {
    (1.0 - t) + t * scale
}

/// What a time makes of a bridge.
struct Now {
    k: usize,
    dim: usize,
    /// Log-weights less half the log-determinants, and with `t |r|^2 / (2 epsilon)`.
    offsets: Vec<f64>,
    /// `t r`, the gain and `2 r`, of each component and coordinate.
    terms: Vec<[f64; 3]>,
    /// Where the frame is.
    place: Vec<f64>,
    half_precision: f64,
}

impl Now {
    fn new(x: ArrayView2<'_, f64>, bridge: Bridge<'_>, t: f64) -> Result<Self, Error> {
        let (k, dim) = bridge.check(x)?;
        let Bridge { log_weights, shifts, scales, epsilon, origin, velocity } = bridge;
        let half_precision = 0.5 / epsilon;
        let rows = log_weights.iter().zip(shifts.rows()).zip(scales.rows());
        let offsets = rows
            .map(|((log_weight, shifts), scales)| {
                let log_det: f64 = scales.iter().map(|&s| mix(s, t).ln()).sum();
                log_weight - 0.5 * log_det + t * shifts.dot(&shifts) * half_precision
            })
            .collect();
        let terms = shifts
            .iter()
            .zip(scales)
            .map(|(&r, &s)| [t * r, (s - 1.0) / mix(s, t), 2.0 * r])
            .collect();
        let place = origin.iter().zip(velocity).map(|(origin, v)| origin + t * v).collect();
        Ok(Self { k, dim, offsets, terms, place, half_precision })
    }

    /// Places in the frame, a coordinate a tile; past the last row they are those of the frame.
    fn read(&self, x: ArrayView2<'_, f64>, first: usize, y: &mut [Tile]) {
        for i in 0..LANES {
            if first + i < x.nrows() {
                let places = x.row(first + i);
                for ((y, x), place) in y.iter_mut().zip(places).zip(&self.place) {
                    y[i] = x - place;
                }
            } else {
                for y in y.iter_mut() {
                    y[i] = 0.0;
                }
            }
        }
    }

    #[inline(always)]
    fn logits(&self, y: &[Tile], out: &mut [Tile]) {
        let components = self.offsets.iter().zip(self.terms.chunks_exact(self.dim.max(1)));
        for (out, (offset, terms)) in out.iter_mut().zip(components) {
            let mut sum = [0.0; LANES];
            for (y, &[lag, gain, twice]) in y.iter().zip(terms) {
                for i in 0..LANES {
                    let z = y[i] - lag;
                    sum[i] = gain.mul_add(z, twice).mul_add(z, sum[i]);
                }
            }
            for i in 0..LANES {
                out[i] = sum[i].mul_add(self.half_precision, *offset);
            }
        }
    }
}

/// Means of the components' drifts in the frame; `terms` are those of [`Now`], a row a coordinate.
#[inline(always)]
fn steps(terms: &[[f64; 3]], y: &[Tile], shares: &[Tile], totals: &Tile, steps: &mut [Tile]) {
    // The sums of a coordinate stay in registers while its terms stream through.
    for ((step, y), terms) in steps.iter_mut().zip(y).zip(terms.chunks_exact(shares.len())) {
        let mut sum = [0.0; LANES];
        for (share, &[lag, gain, twice]) in shares.iter().zip(terms) {
            let shift = 0.5 * twice;
            for i in 0..LANES {
                sum[i] = gain.mul_add(y[i] - lag, shift).mul_add(share[i], sum[i]);
            }
        }
        for i in 0..LANES {
            step[i] = sum[i] / totals[i];
        }
    }
}

#[inline(always)]
fn highest(logits: &[Tile]) -> Tile {
    let mut high = [f64::NEG_INFINITY; LANES];
    for logit in logits {
        for i in 0..LANES {
            high[i] = larger(logit[i], high[i]);
        }
    }
    high
}

/// Replaces log-weights by weights in units of the largest, and returns their sums.
#[inline(always)]
fn exponentiate(logits: &mut [Tile]) -> Tile {
    let high = highest(logits);
    let mut totals = [0.0; LANES];
    for logit in logits {
        for i in 0..LANES {
            logit[i] = math::exp_within(larger(LOWEST, logit[i] - high[i]));
        }
        for i in 0..LANES {
            totals[i] += logit[i];
        }
    }
    totals
}

#[inline(always)]
fn log_sums(logits: &[Tile]) -> Tile {
    let high = highest(logits);
    let mut sums = [0.0; LANES];
    for logit in logits {
        for i in 0..LANES {
            sums[i] += math::exp_within(larger(LOWEST, logit[i] - high[i]));
        }
    }
    for i in 0..LANES {
        sums[i] = high[i] + math::ln(sums[i]);
    }
    sums
}

/// Replaces weights by their running sums.
#[inline(always)]
fn accumulate(weights: &mut [Tile]) {
    let mut sums = [0.0; LANES];
    for weight in weights {
        for i in 0..LANES {
            sums[i] += weight[i];
        }
        *weight = sums;
    }
}

/// The component on whose step of the running sums each level, in (0, 1) of the whole, falls.
#[inline(always)]
fn choose(sums: &[Tile], levels: &Tile) -> [usize; LANES] {
    let mut passed = [0.0; LANES];
    let (last, others) = sums.split_last().expect("one component or more");
    for sum in others {
        for i in 0..LANES {
            passed[i] += if sum[i] <= levels[i] * last[i] { 1.0 } else { 0.0 };
        }
    }
    passed.map(|passed| passed as usize)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;

    struct Case {
        log_weights: Array1<f64>,
        shifts: Array2<f64>,
        scales: Array2<f64>,
        origin: Array1<f64>,
        velocity: Array1<f64>,
    }

    impl Case {
        fn new(k: usize, dim: usize) -> Self {
            let wave = |i: usize, j: usize| ((i * 37 + j * 101 + 5) as f64).sin();
            Self {
                log_weights: Array1::from_shape_fn(k, |i| wave(i, 0)),
                shifts: Array2::from_shape_fn((k, dim), |(i, j)| wave(i, j)),
                scales: Array2::from_shape_fn((k, dim), |(i, j)| 2.0_f64.powf(3.0 * wave(j, i))),
                origin: Array1::from_shape_fn(dim, |j| wave(3, j)),
                velocity: Array1::from_shape_fn(dim, |j| wave(4, j)),
            }
        }

        fn bridge(&self) -> Bridge<'_> {
            Bridge {
                log_weights: self.log_weights.view(),
                shifts: self.shifts.view(),
                scales: self.scales.view(),
                epsilon: 0.7,
                origin: self.origin.view(),
                velocity: self.velocity.view(),
            }
        }
    }

    fn places(n: usize, dim: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, dim), |(i, j)| ((i * 17 + j * 29) as f64).cos())
    }

    /// The potential of Korotin et al. at time t, by its definition: the Gaussian integral of the
    /// mixture, a coordinate after the other.
    fn log_potential(case: &Case, x: &[f64], t: f64) -> f64 {
        let bridge = case.bridge();
        let terms = (0..bridge.log_weights.len()).map(|k| {
            let sum: f64 = (0..x.len())
                .map(|j| {
                    let u = x[j] - bridge.origin[j];
                    let r = bridge.shifts[[k, j]] + bridge.velocity[j];
                    let s = bridge.scales[[k, j]];
                    let d = 1.0 - t + t * s;
                    (u * u * (s - 1.0) + 2.0 * r * u - t * r * r) / (2.0 * bridge.epsilon * d)
                        - 0.5 * d.ln()
                })
                .sum();
            (bridge.log_weights[k] + sum).exp()
        });
        terms.sum::<f64>().ln()
    }

    #[test]
    fn drift_is_the_gradient_of_the_potential() {
        for (k, dim, n) in [(1, 1, 5), (5, 3, 70), (9, 2, 33)] {
            let (case, x) = (Case::new(k, dim), places(n, dim));
            for t in [0.0, 0.4, 1.0] {
                let control = Control::sequential();
                let found = drift(x.view(), case.bridge(), t, &control).unwrap();
                assert_eq!(Ok(&found), drift(x.view(), case.bridge(), t, &Control::new()).as_ref());
                for (x, found) in x.rows().into_iter().zip(found.rows()) {
                    for j in 0..dim {
                        let side = |step: f64| {
                            let mut moved = x.to_vec();
                            moved[j] += step;
                            log_potential(&case, &moved, t)
                        };
                        let slope = (side(1e-5) - side(-1e-5)) / 2e-5;
                        assert!((0.7 * slope - found[j]).abs() < 1e-7 * (1.0 + found[j].abs()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_time_for_each_row_gives_the_drift_at_that_time() {
        for (k, dim, n) in [(1, 1, 3), (6, 3, 70), (4, 9, 40)] {
            let (case, x) = (Case::new(k, dim), places(n, dim));
            let times = Array1::from_shape_fn(n, |i| (i % 5) as f64 / 4.0);
            let control = Control::new();
            let found = drift_at_times(x.view(), case.bridge(), times.view(), &control).unwrap();
            let alone = Control::sequential();
            assert_eq!(
                Ok(&found),
                drift_at_times(x.view(), case.bridge(), times.view(), &alone).as_ref()
            );
            for (i, (found, &t)) in found.rows().into_iter().zip(&times).enumerate() {
                let row = x.row(i).insert_axis(Axis(0));
                let expected = drift(row, case.bridge(), t, &control).unwrap();
                for (a, b) in found.iter().zip(&expected) {
                    assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn weights_are_those_of_the_potential() {
        let (case, x) = (Case::new(6, 3), places(40, 3));
        let control = Control::sequential();
        let (shares, sums) = log_weights(x.view(), case.bridge(), 0.6, &control).unwrap();
        let totals = shares.mapv(f64::exp).sum_axis(Axis(1));
        assert!(totals.iter().all(|total| (total - 1.0).abs() < 1e-14));
        for (x, sum) in x.rows().into_iter().zip(sums) {
            let (v, o) = (&case.velocity, &case.origin);
            let inner = v.dot(&(&x - o)) - 0.6 * v.dot(v) / 2.0;
            let expected = log_potential(&case, &x.to_vec(), 0.6) - inner / 0.7;
            assert!((sum - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn draws_have_the_moments_of_their_law() {
        let case = Case::new(3, 2);
        let x = array![[0.3, -0.2]];
        let (s, t, n) = (0.25, 0.75, 200_000);
        let control = Control::new();
        let draws = sample(x.view(), case.bridge(), (s, t), n, Key::new(3), &control).unwrap();
        // The mean moves along the drift, and that of x x' by the law of total variance.
        let mean =
            &x.row(0) + &((t - s) * &drift(x.view(), case.bridge(), s, &control).unwrap().row(0));
        let (shares, _) = log_weights(x.view(), case.bridge(), s, &control).unwrap();
        for j in 0..2 {
            let (mut first, mut second) = (0.0, 0.0);
            for k in 0..3 {
                let (scale, r) = (case.scales[[k, j]], case.shifts[[k, j]] + case.velocity[j]);
                let u = x[[0, j]] - case.origin[j];
                let d = |t: f64| 1.0 - t + t * scale;
                let step = ((scale - 1.0) * (u - s * r) / d(s) + r) * (t - s);
                let variance = 0.7 * (t - s) * d(t) / d(s);
                let share = shares[[0, k]].exp();
                first += share * step;
                second += share * (step * step + variance);
            }
            assert!((x[[0, j]] + first - mean[j]).abs() < 1e-12);
            let variance = second - first * first;
            let column = draws.index_axis(Axis(2), j);
            let error = column.mean().unwrap() - mean[j];
            assert!(error.abs() < 4.0 * (variance / n as f64).sqrt());
            assert!((column.var(0.0) / variance - 1.0).abs() < 0.02);
        }
        let many = places(1000, 2);
        let draw = |control: &Control| {
            sample(many.view(), case.bridge(), (0.0, 1.0), 2, Key::new(1), control)
        };
        assert_eq!(draw(&Control::sequential()), draw(&control));
    }

    #[test]
    fn paths_are_brownian_bridges() {
        let n = 60_000;
        let (starts, ends) = (Array2::from_elem((n, 1), 1.0), Array3::from_elem((1, n, 1), 3.0));
        let times = [0.0, 0.2, 0.7, 1.0];
        let walk = |control: &Control| {
            brownian_bridges(starts.view(), ends.view(), &times, 0.5, Key::new(2), control)
        };
        let paths = walk(&Control::new()).unwrap();
        assert_eq!(Ok(&paths), walk(&Control::sequential()).as_ref());
        let paths = Array2::from_shape_vec((n, 4), paths).unwrap();
        assert_eq!(paths.column(0), Array1::from_elem(n, 1.0));
        assert_eq!(paths.column(3), Array1::from_elem(n, 3.0));
        let off = |i: usize| paths.column(i).mapv(|x| x - 1.0 - 2.0 * times[i]);
        let covariance = off(1).dot(&off(2)) / n as f64;
        // epsilon s (1 - t)
        assert!((covariance / (0.5 * 0.2 * 0.3) - 1.0).abs() < 0.05, "{covariance}");
        assert!((off(2).dot(&off(2)) / n as f64 / (0.5 * 0.7 * 0.3) - 1.0).abs() < 0.03);
    }

    #[test]
    fn components_of_weight_zero_and_extreme_scales_do_no_harm() {
        let x = places(3, 5);
        for (empty, scale) in [(0, 1e-85), (1, 1e80), (2, 0.3)] {
            let mut case = Case::new(3, 5);
            case.log_weights[empty] = f64::NEG_INFINITY;
            case.scales.fill(scale);
            let kept: Vec<usize> = (0..3).filter(|&k| k != empty).collect();
            let fewer = Case {
                log_weights: case.log_weights.select(Axis(0), &kept),
                shifts: case.shifts.select(Axis(0), &kept),
                scales: case.scales.select(Axis(0), &kept),
                origin: case.origin.clone(),
                velocity: case.velocity.clone(),
            };
            for t in [0.0, 0.5, 1.0] {
                let control = Control::sequential();
                let times = Array1::from_elem(3, t);
                let expected = drift(x.view(), fewer.bridge(), t, &control).unwrap();
                for found in [
                    drift(x.view(), case.bridge(), t, &control).unwrap(),
                    drift_at_times(x.view(), case.bridge(), times.view(), &control).unwrap(),
                ] {
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * b.abs();
                    assert!(found.iter().zip(&expected).all(near), "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (case, x) = (Case::new(2, 3), places(4, 2));
        let found = drift(x.view(), case.bridge(), 0.0, &Control::sequential());
        assert!(matches!(found, Err(Error::Shape { name: "x", .. })));
    }
}
