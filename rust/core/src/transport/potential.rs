//! Potentials of a light Schrödinger bridge: logarithms of sums of exponentials of quadratic forms, for
//! scales along the axes or along axes of each component's own.
//!
//! In the notation of [`motion`](super::motion), `sum_k w_k(y)` is the potential at a time, in the
//! frame; the density of the end from one start is such a sum too.

use ndarray::{Array1, ArrayView1, ArrayView2};

use super::axes::{Axes, turned};
use super::density::Bases;
use super::motion::{Bridge, mix};
use super::tiles::{LANES, Tile, Tiled, log_sum, read, sweep, tiles};
use crate::memory::zeros;
use crate::special::math;
use crate::{Control, Error};

/// The logarithms of the sums of the components' weights at the rows of `x`, shape (n, dim), at time
/// `t`, in the frame.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Memory`]; [`Error::Cancelled`].
pub fn log_weight_sums(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Bases<'_>,
    t: f64,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let (k, dim) = bridge.check(x)?;
    let mut potential = Potential {
        k,
        axes: Axes::new(bases, k, dim, false)?,
        offsets: Vec::new(),
        terms: Vec::new(),
        place: &bridge.origin + &(t * &bridge.velocity),
        way: Array1::zeros(dim),
        half_precision: 0.5 / bridge.epsilon,
    };
    for (j, (shift, scale)) in bridge.shifts.outer_iter().zip(bridge.scales.rows()).enumerate() {
        let log_det: f64 = scale.iter().map(|&scale| mix(scale, t).ln()).sum();
        let rise = t * shift.dot(&shift) * potential.half_precision;
        potential.offsets.push(bridge.log_weights[j] - 0.5 * log_det + rise);
        potential.terms.extend(
            turned(bases, j, shift)
                .iter()
                .zip(scale)
                .map(|(r, &scale)| [t * r, (scale - 1.0) / mix(scale, t), 2.0 * r]),
        );
    }
    potential.log_sums(x, control)
}

/// As [`log_weight_sums`], with a time for each row, shape (n,).
///
/// # Errors
/// As [`log_weight_sums`].
pub fn log_weight_sums_at_times(
    x: ArrayView2<'_, f64>,
    bridge: Bridge<'_>,
    bases: Bases<'_>,
    times: ArrayView1<'_, f64>,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let (k, dim) = bridge.check(x)?;
    if times.len() != x.nrows() {
        return Err(Error::Shape {
            name: "times",
            expected: format!("({},), one a row of x", x.nrows()),
            got: times.shape().to_vec(),
        });
    }
    let axes = Axes::new(bases, k, dim, false)?;
    let mut terms = Vec::with_capacity(k * dim);
    for (j, (shift, scale)) in bridge.shifts.outer_iter().zip(bridge.scales.rows()).enumerate() {
        terms.extend(turned(bases, j, shift).into_iter().zip(scale.iter().copied()));
    }
    let squares: Vec<f64> = bridge.shifts.rows().into_iter().map(|row| row.dot(&row)).collect();
    let mut out = zeros::<f64>(&[x.nrows()])?;
    sweep(&mut out, 1, k, control, || Moments {
        bridge,
        axes: &axes,
        terms: &terms,
        squares: &squares,
        x,
        times,
        t: [0.0; LANES],
        y: tiles(dim),
        turned: tiles(dim),
        logits: tiles(k),
    })?;
    Ok(out)
}

/// Places, each at a time of its own.
struct Moments<'a, 'b> {
    bridge: Bridge<'b>,
    axes: &'a Axes,
    /// The shift and the scale, of each component and direction.
    terms: &'a [(f64, f64)],
    squares: &'a [f64],
    x: ArrayView2<'a, f64>,
    times: ArrayView1<'a, f64>,
    t: Tile,
    y: Vec<Tile>,
    turned: Vec<Tile>,
    logits: Vec<Tile>,
}

impl Tiled for Moments<'_, '_> {
    fn read(&mut self, first: usize) {
        for i in 0..LANES.min(self.x.nrows() - first) {
            let t = self.times[first + i];
            self.t[i] = t;
            let frame = self.bridge.origin.iter().zip(self.bridge.velocity);
            for ((y, x), (origin, velocity)) in
                self.y.iter_mut().zip(self.x.row(first + i)).zip(frame)
            {
                y[i] = x - (origin + t * velocity);
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, k: usize) {
        let dim = self.y.len();
        let own = &self.terms[k * dim..(k + 1) * dim];
        let (mut sum, mut log_det) = ([0.0; LANES], [0.0; LANES]);
        let y = self.axes.turn(k, &self.y, &mut self.turned);
        for (y, &(shift, scale)) in y.iter().zip(own) {
            for i in 0..LANES {
                let denominator = self.t[i].mul_add(scale, 1.0 - self.t[i]);
                let z = y[i] - self.t[i] * shift;
                let pulled = (scale - 1.0) / denominator * z;
                sum[i] = (pulled + 2.0 * shift).mul_add(z, sum[i]);
                log_det[i] += math::ln(denominator);
            }
        }
        for i in 0..LANES {
            let exponent = self.t[i].mul_add(self.squares[k], sum[i]) / self.bridge.epsilon;
            self.logits[k][i] = 0.5 * (exponent - log_det[i]) + self.bridge.log_weights[k];
        }
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f64]) {
        let sums = log_sum(&self.logits);
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// A sum of exponentials of quadratic forms.
pub(super) struct Potential {
    pub(super) k: usize,
    pub(super) axes: Axes,
    pub(super) offsets: Vec<f64>,
    /// The center, the curvature and the slope of each component and direction: a coordinate `z` from
    /// the center adds `(curvature z + slope) z`.
    pub(super) terms: Vec<[f64; 3]>,
    /// Taken from a row, one after the other.
    pub(super) place: Array1<f64>,
    pub(super) way: Array1<f64>,
    pub(super) half_precision: f64,
}

impl Potential {
    /// The logarithms of the sums.
    pub(super) fn log_sums(
        &self,
        x: ArrayView2<'_, f64>,
        control: &Control,
    ) -> Result<Vec<f64>, Error> {
        let mut out = zeros::<f64>(&[x.nrows()])?;
        sweep(&mut out, 1, self.k, control, || Places {
            potential: self,
            x,
            y: tiles(x.ncols()),
            turned: tiles(x.ncols()),
            logits: tiles(self.k),
        })?;
        Ok(out)
    }
}

/// Places at which a potential is taken.
struct Places<'a> {
    potential: &'a Potential,
    x: ArrayView2<'a, f64>,
    y: Vec<Tile>,
    turned: Vec<Tile>,
    logits: Vec<Tile>,
}

impl Tiled for Places<'_> {
    fn read(&mut self, first: usize) {
        let Potential { place, way, .. } = self.potential;
        read(self.x, first, place, Some(way), &mut self.y);
    }

    #[inline(always)]
    fn add(&mut self, k: usize) {
        let Potential { axes, offsets, terms, half_precision, .. } = self.potential;
        let own = &terms[k * self.y.len()..(k + 1) * self.y.len()];
        let mut sum = [0.0; LANES];
        for (y, &[center, curvature, slope]) in
            axes.turn(k, &self.y, &mut self.turned).iter().zip(own)
        {
            for i in 0..LANES {
                let z = y[i] - center;
                sum[i] = curvature.mul_add(z, slope).mul_add(z, sum[i]);
            }
        }
        let mut logit = [0.0; LANES];
        for i in 0..LANES {
            logit[i] = sum[i].mul_add(*half_precision, offsets[k]);
        }
        self.logits[k] = logit;
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f64]) {
        let sums = log_sum(&self.logits);
        out.copy_from_slice(&sums[..out.len()]);
    }
}
