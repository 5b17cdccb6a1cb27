//! What two times make of a light Schrödinger bridge: the parameters that all rows share.

use ndarray::{Array1, ArrayView1, ArrayView2};

use super::axes::{Axes, turned};
use super::density::Bases;
use super::motion::{Bridge, mix};
use super::potential::Potential;
use super::tiles::{LANES, Tile};
use crate::Error;

/// What two times make of a bridge.
pub(super) struct Law {
    pub(super) k: usize,
    pub(super) dim: usize,
    pub(super) axes: Axes,
    /// Log-weights less half the log-determinants, and with `s |r|^2 / (2 epsilon)`.
    pub(super) offsets: Vec<f64>,
    /// Half the log-determinants of `2 pi C`.
    pub(super) constants: Vec<f64>,
    /// `s r`, the gain, `r` and one over the deviation, of each component and direction.
    pub(super) terms: Vec<[f64; 4]>,
    /// Where the frame is at the first time, and its way from then on.
    pub(super) place: Array1<f64>,
    pub(super) way: Array1<f64>,
    pub(super) epsilon: f64,
    pub(super) span: f64,
}

impl Law {
    /// The law at time `t` given places at time `s`, which is asked for slopes too or for values alone.
    pub(super) fn new(
        x: ArrayView2<'_, f64>,
        starts: ArrayView2<'_, f64>,
        bridge: Bridge<'_>,
        bases: Bases<'_>,
        (s, t): (f64, f64),
        with_slopes: bool,
    ) -> Result<Self, Error> {
        let (k, dim) = bridge.check(x)?;
        if starts.ncols() != dim || (starts.nrows() == 0 && x.nrows() > 0) {
            return Err(Error::Shape {
                name: "starts",
                expected: format!("(m, {dim}), of one row or more"),
                got: starts.shape().to_vec(),
            });
        }
        let axes = Axes::new(bases, k, dim, with_slopes)?;
        let Bridge { log_weights, shifts, scales, epsilon, origin, velocity } = bridge;
        let span = t - s;
        let free = dim as f64 * (core::f64::consts::TAU * epsilon * span).ln();
        let (mut offsets, mut constants) = (Vec::new(), Vec::new());
        let mut terms = Vec::with_capacity(k * dim);
        for (j, (shift, scale)) in shifts.outer_iter().zip(scales.rows()).enumerate() {
            let [before, after] =
                [s, t].map(|t| scale.iter().map(|&scale| mix(scale, t).ln()).sum::<f64>());
            let rise = s * shift.dot(&shift) * 0.5 / epsilon;
            offsets.push(log_weights[j] - 0.5 * before + rise);
            constants.push(0.5 * (free + (after - before)));
            terms.extend(turned(bases, j, shift).iter().zip(scale).map(|(r, &scale)| {
                let (before, after) = (mix(scale, s), mix(scale, t));
                // Two roots: their arguments are seldom too small for float64, their product is.
                let deviation = (epsilon * span).sqrt() * (after / before).sqrt();
                [s * r, (scale - 1.0) / before, *r, deviation.recip()]
            }));
        }
        let place = &origin + &(s * &velocity);
        let way = span * &velocity;
        Ok(Self { k, dim, axes, offsets, constants, terms, place, way, epsilon, span })
    }

    /// The terms of component `k`.
    #[inline(always)]
    pub(super) fn own(&self, k: usize) -> &[[f64; 4]] {
        &self.terms[k * self.dim..(k + 1) * self.dim]
    }

    /// The mixture that all rows share where they share a start.
    pub(super) fn given(self, start: ArrayView1<'_, f64>, bases: Bases<'_>) -> Potential {
        let y = &start - &self.place;
        let mut logs = Vec::with_capacity(self.k);
        let mut terms = Vec::with_capacity(self.terms.len());
        for k in 0..self.k {
            let mut sum = 0.0;
            let own = turned(bases, k, y.view());
            for (y, &[lag, gain, shift, precision]) in own.iter().zip(self.own(k)) {
                let z = y - lag;
                let h = gain * z + shift;
                sum += (h + shift) * z;
                terms.push([self.span * h, -self.epsilon * precision * precision, 0.0]);
            }
            logs.push(self.offsets[k] + sum * 0.5 / self.epsilon);
        }
        let high = logs.iter().copied().fold(f64::MIN, f64::max);
        let total = logs.iter().map(|log| (log - high).exp()).sum::<f64>().ln();
        let weigh = |(log, constant): (&f64, &f64)| (log - high) - total - constant;
        Potential {
            k: self.k,
            axes: self.axes,
            offsets: logs.iter().zip(&self.constants).map(weigh).collect(),
            terms,
            place: start.to_owned(),
            way: self.way,
            half_precision: 0.5 / self.epsilon,
        }
    }

    /// Takes starts, and the ways from there to the ends, less that of the frame; past the last row
    /// they stay what they were.
    pub(super) fn read(
        &self,
        x: ArrayView2<'_, f64>,
        starts: ArrayView2<'_, f64>,
        first: usize,
        [y, ways]: [&mut [Tile]; 2],
    ) {
        for i in 0..LANES.min(x.nrows() - first) {
            let (end, start) = (x.row(first + i), starts.row((first + i) % starts.nrows()));
            let frame = self.place.iter().zip(&self.way);
            let tiles = y.iter_mut().zip(ways.iter_mut());
            for (((y, way), (end, start)), (place, moved)) in
                tiles.zip(end.iter().zip(start)).zip(frame)
            {
                y[i] = start - place;
                way[i] = (end - start) - moved;
            }
        }
    }

    /// The log-weights of component `k` from the sums of its quadratic forms, and the log-densities of
    /// its Gaussian from those of squares.
    #[inline(always)]
    pub(super) fn logits(&self, k: usize, sums: &Tile, squares: &Tile) -> (Tile, Tile) {
        let (mut log_weights, mut log_densities) = ([0.0; LANES], [0.0; LANES]);
        let half_precision = 0.5 / self.epsilon;
        for i in 0..LANES {
            log_weights[i] = sums[i].mul_add(half_precision, self.offsets[k]);
            log_densities[i] = (-0.5_f64).mul_add(squares[i], -self.constants[k]);
        }
        (log_weights, log_densities)
    }
}
