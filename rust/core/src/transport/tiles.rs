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
/// Below this, less the largest one, a log-weight counts as if it were this.
pub(super) const LOWEST: f64 = -700.0;

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
        for i in 0..LANES {
            let higher = larger(logit[i], self.high[i]);
            kept[i] = math::exp_within(larger(LOWEST, self.high[i] - higher));
            share[i] = math::exp_within(larger(LOWEST, logit[i] - higher));
            self.high[i] = higher;
            self.total[i] = self.total[i].mul_add(kept[i], share[i]);
        }
        axes.add_back(k, (&kept, &share), vectors, &mut self.sums);
    }
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
            total[i] += math::exp_within(larger(LOWEST, below));
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
