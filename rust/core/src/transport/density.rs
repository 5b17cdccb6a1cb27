//! Log-densities of where a light Schrödinger bridge goes from a place, and of its potentials, with
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
//! A row and a component cost seven operations a coordinate, three where all rows have one start, and
//! two exponentials; with axes of their own, twice the square of the dimension beside. 16 rows are
//! taken together, one a lane.

use ndarray::{ArrayView2, ArrayView3};

use super::motion::{Bridge, mix};
use crate::memory::zeros;
use crate::parallel::for_each_chunk;
use crate::simd::{larger, vectorize};
use crate::special::math;
use crate::{Control, Error};

/// Rows taken together.
const LANES: usize = 16;
/// Rows of a parallel chunk.
const BLOCK: usize = 256;
/// Eigenvectors that rows are multiplied by together.
const DIRECTIONS: usize = 4;
/// Below this, less the largest one, a log-weight counts as if it were this.
const LOWEST: f64 = -100.0;

type Tile = [f64; LANES];

/// Log-densities of the rows of `x`, shape (n, dim), at time `end`, given the rows of `starts`, shape
/// (m, dim), at time `start` before: row `i` of `x` goes with row `i % m` of `starts`.
///
/// `bases`, shape (k, dim, dim), has the eigenvectors of the components' scales, one a column, whose
/// eigenvalues are `scales` of the bridge; without them they are the axes.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Memory`]; [`Error::Cancelled`].
pub fn log_density(
    x: ArrayView2<'_, f64>,
    starts: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Option<ArrayView3<'_, f64>>,
    times: (f64, f64),
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let law = Law::new(x, starts, bridge, bases, times)?;
    let mut out = zeros::<f64>(&[x.nrows()])?;
    for_each_chunk(&mut out, BLOCK, control, |first, out| {
        let mut pairs = Pairs::new(&law);
        for (tile, out) in out.chunks_mut(LANES).enumerate() {
            pairs.read(x, starts, first + tile * LANES);
            let values = vectorize(
                #[inline(always)]
                || pairs.log_density(),
            );
            out.copy_from_slice(&values[..out.len()]);
        }
        Ok(())
    })?;
    Ok(out)
}

/// The eigenvectors of the components' scales; none where they are the axes.
struct Axes {
    dim: usize,
    /// For each component and a few eigenvectors, their entries, a coordinate after the other.
    columns: Vec<[f64; DIRECTIONS]>,
}

impl Axes {
    fn new(bases: Option<ArrayView3<'_, f64>>, k: usize, dim: usize) -> Result<Self, Error> {
        let Some(bases) = bases else {
            return Ok(Self { dim, columns: Vec::new() });
        };
        if bases.dim() != (k, dim, dim) {
            return Err(Error::Shape {
                name: "bases",
                expected: format!("({k}, {dim}, {dim})"),
                got: bases.shape().to_vec(),
            });
        }
        let mut columns = Vec::with_capacity(k * dim.div_ceil(DIRECTIONS) * dim);
        for basis in bases.outer_iter() {
            for first in (0..dim).step_by(DIRECTIONS) {
                for row in basis.rows() {
                    let mut entries = [0.0; DIRECTIONS];
                    entries.iter_mut().zip(row.iter().skip(first)).for_each(|(to, &x)| *to = x);
                    columns.push(entries);
                }
            }
        }
        Ok(Self { dim, columns })
    }

    /// The vectors of `from` in the eigenbasis of component `k`, which may be written to `to`.
    #[inline(always)]
    fn turn<'a>(&self, k: usize, from: &'a [Tile], to: &'a mut [Tile]) -> &'a [Tile] {
        if self.columns.is_empty() {
            return from;
        }
        let size = self.dim.div_ceil(DIRECTIONS) * self.dim;
        let own = &self.columns[k * size..(k + 1) * size];
        for (to, columns) in to.chunks_mut(DIRECTIONS).zip(own.chunks_exact(self.dim)) {
            let mut sums = [[0.0; LANES]; DIRECTIONS];
            for (x, entries) in from.iter().zip(columns) {
                for (sum, entry) in sums.iter_mut().zip(entries) {
                    for i in 0..LANES {
                        sum[i] = entry.mul_add(x[i], sum[i]);
                    }
                }
            }
            to.copy_from_slice(&sums[..to.len()]);
        }
        to
    }

    /// A vector in the eigenbasis of component `k`.
    fn turned(bases: Option<ArrayView3<'_, f64>>, k: usize, vector: &[f64]) -> Vec<f64> {
        let Some(bases) = bases else {
            return vector.to_vec();
        };
        let basis = bases.index_axis_move(ndarray::Axis(0), k);
        basis
            .columns()
            .into_iter()
            .map(|column| column.iter().zip(vector).map(|(a, b)| a * b).sum())
            .collect()
    }
}

/// What two times make of a bridge.
struct Law {
    k: usize,
    dim: usize,
    axes: Axes,
    /// Log-weights less half the log-determinants, and with `s |r|^2 / (2 epsilon)`.
    offsets: Vec<f64>,
    /// Half the log-determinants of `2 pi C`.
    constants: Vec<f64>,
    /// `s r`, the gain, `r` and one over the deviation, of each component and direction.
    terms: Vec<[f64; 4]>,
    /// Where the frame is at the first time, and its way from then on.
    place: Vec<f64>,
    way: Vec<f64>,
    half_precision: f64,
    span: f64,
}

impl Law {
    fn new(
        x: ArrayView2<'_, f64>,
        starts: ArrayView2<'_, f64>,
        bridge: Bridge<'_>,
        bases: Option<ArrayView3<'_, f64>>,
        (s, t): (f64, f64),
    ) -> Result<Self, Error> {
        let (k, dim) = bridge.check(x)?;
        if starts.ncols() != dim || (starts.nrows() == 0 && x.nrows() > 0) {
            return Err(Error::Shape {
                name: "starts",
                expected: format!("(m, {dim}), of one row or more"),
                got: starts.shape().to_vec(),
            });
        }
        let Bridge { log_weights, shifts, scales, epsilon, origin, velocity } = bridge;
        let (half_precision, span) = (0.5 / epsilon, t - s);
        let (mut offsets, mut constants) = (Vec::new(), Vec::new());
        let mut terms = Vec::with_capacity(k * dim);
        for (j, (shift, scale)) in shifts.rows().into_iter().zip(scales.rows()).enumerate() {
            let log_dets =
                [s, t].map(|t| scale.iter().map(|&scale| mix(scale, t).ln()).sum::<f64>());
            let rise = s * shift.dot(&shift) * half_precision;
            offsets.push(log_weights[j] - 0.5 * log_dets[0] + rise);
            let free = dim as f64 * (core::f64::consts::TAU * epsilon * span).ln();
            constants.push(0.5 * (free + (log_dets[1] - log_dets[0])));
            let own = Axes::turned(bases, j, &shift.to_vec());
            terms.extend(own.into_iter().zip(scale).map(|(r, &scale)| {
                let (before, after) = (mix(scale, s), mix(scale, t));
                let deviation = (epsilon * span).sqrt() * (after / before).sqrt();
                [s * r, (scale - 1.0) / before, r, deviation.recip()]
            }));
        }
        let place = origin.iter().zip(velocity).map(|(origin, v)| origin + s * v).collect();
        let way = velocity.iter().map(|v| span * v).collect();
        let axes = Axes::new(bases, k, dim)?;
        Ok(Self { k, dim, axes, offsets, constants, terms, place, way, half_precision, span })
    }
}

/// A tile of pairs of a start and an end.
struct Pairs<'a> {
    law: &'a Law,
    /// The starts in the frame, and the ways from there, less that of the frame.
    y: Vec<Tile>,
    ways: Vec<Tile>,
    /// Both, turned.
    turned: [Vec<Tile>; 2],
    /// Of each component, the log-weight and the log-density of its Gaussian.
    log_weights: Vec<Tile>,
    log_densities: Vec<Tile>,
}

impl<'a> Pairs<'a> {
    fn new(law: &'a Law) -> Self {
        let tiles = |n| vec![[0.0; LANES]; n];
        Self {
            law,
            y: tiles(law.dim),
            ways: tiles(law.dim),
            turned: [tiles(law.dim), tiles(law.dim)],
            log_weights: tiles(law.k),
            log_densities: tiles(law.k),
        }
    }

    /// Takes the rows of `x` from `first` on; past the last one they stay what they were.
    fn read(&mut self, x: ArrayView2<'_, f64>, starts: ArrayView2<'_, f64>, first: usize) {
        for i in 0..LANES.min(x.nrows() - first) {
            let (end, start) = (x.row(first + i), starts.row((first + i) % starts.nrows()));
            for (j, (end, start)) in end.iter().zip(start).enumerate() {
                self.y[j][i] = start - self.law.place[j];
                self.ways[j][i] = (end - start) - self.law.way[j];
            }
        }
    }

    #[inline(always)]
    fn log_density(&mut self) -> Tile {
        let Self { law, y, ways, turned: [turned_y, turned_ways], log_weights, log_densities } =
            self;
        for k in 0..law.k {
            let own = &law.terms[k * law.dim..(k + 1) * law.dim];
            let y = law.axes.turn(k, y, turned_y);
            let ways = law.axes.turn(k, ways, turned_ways);
            let (mut sum, mut square) = ([0.0; LANES], [0.0; LANES]);
            for ((y, way), &[lag, gain, shift, precision]) in y.iter().zip(ways).zip(own) {
                for i in 0..LANES {
                    let z = y[i] - lag;
                    let h = gain.mul_add(z, shift);
                    sum[i] = (h + shift).mul_add(z, sum[i]);
                    let away = (-law.span).mul_add(h, way[i]) * precision;
                    square[i] = away.mul_add(away, square[i]);
                }
            }
            for i in 0..LANES {
                log_weights[k][i] = sum[i].mul_add(law.half_precision, law.offsets[k]);
                log_densities[k][i] = (-0.5_f64).mul_add(square[i], -law.constants[k]);
            }
        }
        log_mean(log_weights, log_densities)
    }
}

/// The logarithm of a weighted mean; what is given are logarithms, of weights up to a factor. The
/// first are overwritten.
#[inline(always)]
fn log_mean(log_weights: &mut [Tile], logits: &[Tile]) -> Tile {
    let high = highest(log_weights);
    let mut total = [0.0; LANES];
    for (log_weight, logit) in log_weights.iter_mut().zip(logits) {
        for i in 0..LANES {
            // Of the largest weight, this is 0 exactly.
            let below = log_weight[i] - high[i];
            total[i] += math::exp_within(larger(LOWEST, below));
            log_weight[i] = below + logit[i];
        }
    }
    let sums = log_sum(log_weights);
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = sums[i] - math::ln(total[i]);
    }
    out
}

/// The logarithms of the sums; minus infinity where float64 holds none of the logits.
#[inline(always)]
fn log_sum(logits: &[Tile]) -> Tile {
    let high = highest(logits);
    let mut total = [0.0; LANES];
    for logit in logits {
        for i in 0..LANES {
            total[i] += math::exp_within(larger(LOWEST, logit[i] - high[i]));
        }
    }
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        let sum = high[i] + math::ln(total[i]);
        out[i] = if high[i] > f64::MIN { sum } else { f64::NEG_INFINITY };
    }
    out
}

/// The largest logits, finite: others are taken from them.
#[inline(always)]
fn highest(logits: &[Tile]) -> Tile {
    let mut high = [f64::MIN; LANES];
    for logit in logits {
        for i in 0..LANES {
            high[i] = larger(logit[i], high[i]);
        }
    }
    high
}
