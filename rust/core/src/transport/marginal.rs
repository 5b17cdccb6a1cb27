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
        let mut error = 0.0;
        vectorize(
            #[inline(always)]
            || {
                for (k, ((potential, &sum), factor)) in
                    potentials.iter_mut().zip(sums).zip(factors.iter_mut()).enumerate()
                {
                    let i = start + k;
                    if self.weights[i] > 0.0 {
                        let full = (*potential - math::ln(sum)) / (1.0 + self.slack);
                        let step = omega * (self.log_weights[i] + full - *potential);
                        *potential += step;
                        *factor = math::exp(step);
                        error += (sum * *factor - self.target(i, *potential)).abs();
                    } else {
                        *factor = 0.0;
                    }
                }
            },
        );
        error
    }

    /// The distance of `sums` from what the side asks for at these potentials.
    pub(super) fn error(&self, potentials: &[f64], sums: &[f64]) -> f64 {
        let mut error = 0.0;
        vectorize(
            #[inline(always)]
            || {
                for (i, (&potential, &sum)) in potentials.iter().zip(sums).enumerate() {
                    error += (sum - self.target(i, potential)).abs();
                }
            },
        );
        error
    }
}
