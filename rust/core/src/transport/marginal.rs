//! What the two marginals of a plan must be, and the half step of Sinkhorn's iteration that follows.

use crate::simd::{fold, vectorize};
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
                let mut error = 0.0;
                for k in (0..sums.len()).step_by(LANES) {
                    let (weights, logs) = (load(weights, k), load(logs, k));
                    let (mut now, sums) = (load(potentials, k), load(sums, k));
                    let ratios = self.move_by(&weights, &logs, &mut now, &sums, omega);
                    let mut after = sums;
                    for l in 0..LANES {
                        after[l] *= ratios[l];
                    }
                    error += self.distance(&weights, &logs, &now, &after);
                    store(&now, potentials, k);
                    store(&ratios, factors, k);
                }
                error
            },
        )
    }

    /// Moves potentials, and returns the factors by which their sums change.
    #[inline(always)]
    fn move_by(
        &self,
        weights: &Lanes,
        logs: &Lanes,
        potentials: &mut Lanes,
        sums: &Lanes,
        omega: f64,
    ) -> Lanes {
        let mut factors = [0.0; LANES];
        for l in 0..LANES {
            let potential = potentials[l];
            let full = (potential - math::ln(sums[l])) / (1.0 + self.slack);
            // Without weight both are minus infinity, and stay so.
            let step = omega * (logs[l] + full - potential);
            let step = if weights[l] > 0.0 { step } else { 0.0 };
            potentials[l] = potential + step;
            factors[l] = if weights[l] > 0.0 { math::exp(step) } else { 0.0 };
        }
        factors
    }

    /// The distance of the plan's sums from what the side asks for at these potentials.
    pub(super) fn error(&self, potentials: &[f64], sums: &[f64]) -> f64 {
        vectorize(
            #[inline(always)]
            || {
                let mut error = 0.0;
                for k in (0..sums.len()).step_by(LANES) {
                    let (weights, logs) = (load(&self.weights, k), load(&self.log_weights, k));
                    error += self.distance(&weights, &logs, &load(potentials, k), &load(sums, k));
                }
                error
            },
        )
    }

    #[inline(always)]
    fn distance(&self, weights: &Lanes, logs: &Lanes, potentials: &Lanes, sums: &Lanes) -> f64 {
        let mut targets = *weights;
        if self.slack > 0.0 {
            for l in 0..LANES {
                let excess = if weights[l] > 0.0 { potentials[l] - logs[l] } else { 0.0 };
                targets[l] *= math::exp(-self.slack * excess);
            }
        }
        let mut errors = [0.0; LANES];
        for l in 0..LANES {
            errors[l] = (sums[l] - targets[l]).abs();
        }
        fold(errors, |a, b| a + b)
    }
}

/// Lanes of the loops over potentials.
const LANES: usize = 8;

type Lanes = [f64; LANES];

/// The numbers from `start` on; zeros, a point without weight, behind the last.
#[inline(always)]
fn load(values: &[f64], start: usize) -> Lanes {
    let values = &values[start..];
    if let Some(whole) = values.first_chunk() {
        return *whole;
    }
    let mut lanes = [0.0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

/// Writes the numbers from `start` on.
#[inline(always)]
fn store(lanes: &Lanes, values: &mut [f64], start: usize) {
    let values = &mut values[start..];
    if let Some(whole) = values.first_chunk_mut() {
        *whole = *lanes;
    } else {
        let n = values.len();
        values.copy_from_slice(&lanes[..n]);
    }
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
