//! What the two marginals of a plan must be, and the half step of Sinkhorn's iteration that follows.

use crate::simd::vectorize;
use crate::special::math;

/// One side's weights, and how strictly the plan must meet them.
///
/// In units of epsilon, with the weights folded in, the side's potential is `p = f / epsilon + log a`.
/// A half step sets it to `log a + (p - log s) / (1 + slack)`, `s` the sums of the plan: exactly the
/// ones that make the sums equal `a exp(-slack (p - log a))`, which is `a` for a slack of 0.
#[derive(Debug, Clone)]
pub(super) struct Marginal {
    pub(super) weights: Vec<f64>,
    pub(super) log_weights: Vec<f64>,
    /// `epsilon / rho` for a penalty of `rho KL(sums | weights)`; 0 where the sums must be equal.
    pub(super) slack: f64,
}

impl Marginal {
    pub(super) fn new(weights: &[f64], slack: f64) -> Self {
        Self {
            weights: weights.to_vec(),
            log_weights: weights.iter().map(|weight| weight.ln()).collect(),
            slack,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    pub(super) fn mass(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// The sums that the side asks for at this potential.
    #[inline(always)]
    pub(super) fn target(&self, i: usize, potential: f64) -> f64 {
        let weight = self.weights[i];
        if self.slack == 0.0 {
            weight
        } else {
            // A point without weight has a potential of minus infinity.
            let excess = if weight > 0.0 { potential - self.log_weights[i] } else { 0.0 };
            weight * math::exp(-self.slack * excess)
        }
    }

    /// The side's part of the dual objective, in units of epsilon: `<a, f / epsilon>`, or what stands
    /// for it under a penalty.
    pub(super) fn dual(&self, potentials: &[f64]) -> f64 {
        let mut total = 0.0;
        for ((&p, &w), &log) in potentials.iter().zip(&self.weights).zip(&self.log_weights) {
            if w > 0.0 {
                let f = p - log;
                total += if self.slack == 0.0 {
                    w * f
                } else {
                    -w * (-self.slack * f).exp_m1() / self.slack
                };
            }
        }
        total
    }

    /// The diagonal of minus the dual's second derivative: the plan's sums, and what a penalty adds.
    pub(super) fn stiffness(&self, potentials: &[f64], sums: &[f64]) -> Vec<f64> {
        let targets = potentials
            .iter()
            .enumerate()
            .map(|(i, &p)| if self.slack > 0.0 { self.slack * self.target(i, p) } else { 0.0 });
        sums.iter().zip(targets).map(|(sum, target)| sum + target).collect()
    }

    /// Moves the potentials from `start` on by a half step, relaxed by `omega`; `sums` are the plan's
    /// before it. Writes the factors by which the sums change, and returns the distance of the new
    /// sums from their targets.
    pub(super) fn half_step(
        &self,
        start: usize,
        potentials: &mut [f64],
        sums: &[f64],
        omega: f64,
        factors: &mut [f64],
    ) -> f64 {
        let range = start..start + sums.len();
        let (weights, logs) = (&self.weights[range.clone()], &self.log_weights[range]);
        vectorize(
            #[inline(always)]
            || {
                let (weights, logs) = (lanes(weights), lanes(logs));
                let (potentials, factors) = (lanes_mut(potentials), lanes_mut(factors));
                let sums = lanes(sums);
                let mut error = 0.0;
                for (k, potentials) in potentials.0.iter_mut().enumerate() {
                    let (sums, factors) = (&sums.0[k], &mut factors.0[k]);
                    error +=
                        self.move_by(&weights.0[k], &logs.0[k], potentials, sums, omega, factors);
                }
                for (k, potential) in potentials.1.iter_mut().enumerate() {
                    let (potential, sum) = (core::array::from_mut(potential), [sums.1[k]]);
                    let factor = core::array::from_mut(&mut factors.1[k]);
                    error +=
                        self.move_by(&[weights.1[k]], &[logs.1[k]], potential, &sum, omega, factor);
                }
                error
            },
        )
    }

    #[inline(always)]
    fn move_by<const N: usize>(
        &self,
        weights: &[f64; N],
        logs: &[f64; N],
        potentials: &mut [f64; N],
        sums: &[f64; N],
        omega: f64,
        factors: &mut [f64; N],
    ) -> f64 {
        let mut errors = [0.0; N];
        for i in 0..N {
            let potential = potentials[i];
            let full = (potential - math::ln(sums[i])) / (1.0 + self.slack);
            // Without weight both are minus infinity, and stay so.
            let step = omega * (logs[i] + full - potential);
            let step = if weights[i] > 0.0 { step } else { 0.0 };
            potentials[i] = potential + step;
            factors[i] = if weights[i] > 0.0 { math::exp(step) } else { 0.0 };
            errors[i] = sums[i] * factors[i];
        }
        self.distance(weights, logs, potentials, errors)
    }

    /// The distance of `sums` from what the side asks for at these potentials.
    pub(super) fn error(&self, potentials: &[f64], sums: &[f64]) -> f64 {
        vectorize(
            #[inline(always)]
            || {
                let (weights, logs) = (lanes(&self.weights), lanes(&self.log_weights));
                let (potentials, sums) = (lanes(potentials), lanes(sums));
                let mut error = 0.0;
                for (k, potentials) in potentials.0.iter().enumerate() {
                    error += self.distance(&weights.0[k], &logs.0[k], potentials, sums.0[k]);
                }
                for (k, &potential) in potentials.1.iter().enumerate() {
                    let (weight, log, sum) = ([weights.1[k]], [logs.1[k]], [sums.1[k]]);
                    error += self.distance(&weight, &log, &[potential], sum);
                }
                error
            },
        )
    }

    #[inline(always)]
    fn distance<const N: usize>(
        &self,
        weights: &[f64; N],
        logs: &[f64; N],
        potentials: &[f64; N],
        sums: [f64; N],
    ) -> f64 {
        let mut targets = *weights;
        if self.slack > 0.0 {
            for i in 0..N {
                let excess = if weights[i] > 0.0 { potentials[i] - logs[i] } else { 0.0 };
                targets[i] *= math::exp(-self.slack * excess);
            }
        }
        let mut errors = sums;
        for i in 0..N {
            errors[i] = (sums[i] - targets[i]).abs();
        }
        errors.into_iter().sum()
    }
}

/// Lanes of the loops over potentials, which may be those of a few rows.
const LANES: usize = 4;

#[inline(always)]
fn lanes(values: &[f64]) -> (&[[f64; LANES]], &[f64]) {
    values.as_chunks()
}

#[inline(always)]
fn lanes_mut(values: &mut [f64]) -> (&mut [[f64; LANES]], &mut [f64]) {
    values.as_chunks_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A half step of one point: its potential, its factor, and how far its sum is off.
    fn by_hand(side: &Marginal, i: usize, potential: f64, sum: f64, omega: f64) -> (f64, f64, f64) {
        let weight = side.weights[i];
        if weight == 0.0 {
            return (potential, 0.0, 0.0);
        }
        let full = weight.ln() + (potential - sum.ln()) / (1.0 + side.slack);
        let moved = potential + omega * (full - potential);
        let factor = (moved - potential).exp();
        let target = weight * (-side.slack * (moved - weight.ln())).exp();
        (moved, factor, (sum * factor - target).abs())
    }

    #[test]
    fn a_half_step_is_that_of_the_formula_for_any_number_of_points() {
        for n in [1, 3, 4, 5, 31, 64, 70] {
            let weights: Vec<f64> =
                (0..n).map(|i| if i % 5 == 2 { 0.0 } else { 0.1 * i as f64 + 0.2 }).collect();
            for (slack, omega) in [(0.0, 1.0), (0.0, 1.6), (0.4, 1.0), (0.4, 1.6)] {
                let side = Marginal::new(&weights, slack);
                let logs = side.log_weights.iter().enumerate();
                let start: Vec<f64> = logs.map(|(i, log)| log + (i as f64).sin()).collect();
                let sums: Vec<f64> = (0..n).map(|i| (i as f64 * 1.7).cos().exp()).collect();
                let (mut now, mut factors) = (start.clone(), vec![f64::NAN; n]);
                let error = side.half_step(0, &mut now, &sums, omega, &mut factors);
                let mut total = 0.0;
                for i in 0..n {
                    let (moved, factor, part) = by_hand(&side, i, start[i], sums[i], omega);
                    total += part;
                    let is_still = weights[i] == 0.0 && now[i] == f64::NEG_INFINITY;
                    assert!(is_still || (moved - now[i]).abs() < 1e-13);
                    assert!((factor - factors[i]).abs() <= 1e-13 * factor);
                }
                assert!((error - total).abs() < 1e-12 * (1.0 + total));
                let after: Vec<f64> = sums.iter().zip(&factors).map(|(s, f)| s * f).collect();
                assert!((side.error(&now, &after) - total).abs() < 1e-12 * (1.0 + total));
                // Some rows of a side move as they do among all.
                if n > 8 {
                    let (mut part, mut few) = (start[3..8].to_vec(), [0.0; 5]);
                    side.half_step(3, &mut part, &sums[3..8], omega, &mut few);
                    let pairs = few.iter().zip(&factors[3..8]);
                    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-15));
                }
            }
        }
    }
}
