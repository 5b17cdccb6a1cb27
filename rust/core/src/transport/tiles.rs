//! Rows taken together, one a lane, and sums over the components of a mixture for all of them at once.

use ndarray::{Array1, ArrayView2};

use super::axes::Axes;
use crate::parallel::for_each_chunk;
use crate::simd::{larger, vectorize};
use crate::special::math;
use crate::{Control, Error};

/// Rows taken together.
pub(super) const LANES: usize = 16;
/// Rows of a parallel chunk.
const BLOCK: usize = 256;
/// Below this, less the largest one, a log-weight counts for nothing.
const LOWEST: f64 = -100.0;

pub(super) type Tile = [f64; LANES];

/// That many tiles.
pub(super) fn tiles(n: usize) -> Vec<Tile> {
    vec![[0.0; LANES]; n]
}

/// What is made of a tile of rows, a component after the other.
pub(super) trait Tiled {
    /// Takes the rows from `first` on.
    fn read(&mut self, first: usize);
    /// Adds component `k`.
    fn add(&mut self, k: usize);
    /// Writes the results of the rows.
    fn finish(&mut self, out: &mut [f64]);
}

/// Fills `out`, rows of `width` numbers, a tile after the other, over `k` components.
///
/// # Errors
/// [`Error::Cancelled`].
pub(super) fn sweep<T: Tiled>(
    out: &mut [f64],
    width: usize,
    k: usize,
    control: &Control,
    new: impl Fn() -> T + Sync,
) -> Result<(), Error> {
    for_each_chunk(out, BLOCK * width.max(1), control, |first, out| {
        let mut tile = new();
        for (at, out) in out.chunks_mut(LANES * width.max(1)).enumerate() {
            tile.read(first / width + at * LANES);
            vectorize(
                #[inline(always)]
                || {
                    for k in 0..k {
                        tile.add(k);
                    }
                    tile.finish(out);
                },
            );
        }
        Ok(())
    })
}

/// Takes the rows of `x` from `first` on, less `place` and then `way`; past the last one they stay
/// what they were.
pub(super) fn read(
    x: ArrayView2<'_, f64>,
    first: usize,
    place: &Array1<f64>,
    way: Option<&Array1<f64>>,
    y: &mut [Tile],
) {
    for i in 0..LANES.min(x.nrows() - first) {
        for ((y, x), place) in y.iter_mut().zip(x.row(first + i)).zip(place) {
            y[i] = x - place;
        }
        for (y, way) in y.iter_mut().zip(way.into_iter().flatten()) {
            y[i] -= way;
        }
    }
}

/// A mean of vectors whose weights are known by their logarithms.
pub(super) struct Mean {
    /// The largest log-weight so far.
    pub(super) high: Tile,
    /// The sums of the weights and of the vectors, in units of it.
    pub(super) total: Tile,
    pub(super) sums: Vec<Tile>,
}

impl Mean {
    pub(super) fn new(dim: usize) -> Self {
        Self { high: [0.0; LANES], total: [0.0; LANES], sums: tiles(dim) }
    }

    pub(super) fn clear(&mut self) {
        clear(&mut self.high, &mut self.total);
        self.sums.fill([0.0; LANES]);
    }

    /// Adds vectors in the eigenbasis of component `k`.
    #[inline(always)]
    pub(super) fn add(&mut self, axes: &Axes, k: usize, logit: &Tile, vectors: &[Tile]) {
        let (mut kept, mut share) = ([0.0; LANES], [0.0; LANES]);
        let (mut high, mut total) = (self.high, self.total);
        for i in 0..LANES {
            let higher = larger(logit[i], high[i]);
            kept[i] = weight(high[i] - higher);
            share[i] = share_of(logit[i], higher);
            high[i] = higher;
        }
        for i in 0..LANES {
            total[i] = total[i].mul_add(kept[i], share[i]);
        }
        (self.high, self.total) = (high, total);
        axes.add_back(k, (kept, share), vectors, &mut self.sums);
    }

    /// Writes the means behind the first `offset` numbers of rows of `width`.
    #[inline(always)]
    pub(super) fn write(&self, out: &mut [f64], width: usize, offset: usize) {
        let shares = self.total.map(f64::recip);
        for (i, row) in out.chunks_exact_mut(width).enumerate() {
            for (out, sum) in row[offset..].iter_mut().zip(&self.sums) {
                *out = sum[i] * shares[i];
            }
        }
    }
}

/// A weight in units of the largest. One that no sum would show is 0: products with it must not become
/// subnormal numbers, which take a hundred times as long.
#[inline(always)]
pub(super) fn weight(below: f64) -> f64 {
    let found = math::exp_within(larger(LOWEST, below));
    if below > LOWEST { found } else { 0.0 }
}

/// A weight in units of the largest; where float64 holds none of them, all are the same.
#[inline(always)]
fn share_of(log_weight: f64, high: f64) -> f64 {
    let found = weight(log_weight - high);
    if high > f64::MIN { found } else { 1.0 }
}

/// Begins a sum of weights. The largest is finite: a component of weight 0 may come first.
pub(super) fn clear(high: &mut Tile, total: &mut Tile) {
    high.fill(f64::MIN);
    total.fill(0.0);
}

/// The logarithms of means; what is given are logarithms, of weights up to a factor. The weights are
/// overwritten.
#[inline(always)]
pub(super) fn log_mean(log_weights: &mut [Tile], logits: &[Tile]) -> Tile {
    let high = highest(log_weights);
    let mut total = [0.0; LANES];
    for (log_weight, logit) in log_weights.iter_mut().zip(logits) {
        for i in 0..LANES {
            // Of the largest weight, this is 0 exactly, and loses no digit of the logit.
            let below = log_weight[i] - high[i];
            total[i] += weight(below);
            log_weight[i] = below + logit[i];
        }
    }
    let mut out = log_sum(log_weights);
    for i in 0..LANES {
        out[i] -= math::ln(total[i]);
    }
    out
}

/// The logarithms of sums of exponentials; minus infinity where float64 holds none of the logits.
#[inline(always)]
pub(super) fn log_sum(logits: &[Tile]) -> Tile {
    let high = highest(logits);
    let mut total = [0.0; LANES];
    for logit in logits {
        for i in 0..LANES {
            total[i] += weight(logit[i] - high[i]);
        }
    }
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        let sum = high[i] + math::ln(total[i]);
        out[i] = if high[i] > f64::MIN { sum } else { f64::NEG_INFINITY };
    }
    out
}

/// Replaces log-weights by weights in units of the largest, and returns their sums.
#[inline(always)]
pub(super) fn exponentiate(log_weights: &mut [Tile]) -> Tile {
    let high = highest(log_weights);
    let mut total = [0.0; LANES];
    for log_weight in log_weights {
        for i in 0..LANES {
            log_weight[i] = share_of(log_weight[i], high[i]);
        }
        for i in 0..LANES {
            total[i] += log_weight[i];
        }
    }
    total
}

/// The largest logits, but finite ones: others are taken from them.
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
