//! Sinkhorn's iteration in the log domain: one exponential and one read of the cost per entry.
//!
//! The textbook takes two exponentials and two passes for the maxima. Here the row's old potential
//! is the shift, and the row, still in the cache and rescaled, is added to the columns at once.

use super::cost::Cost;
use super::marginal::Marginal;
use super::rows::{Blocks, GROUP, Gibbs, Potentials, SUMS, add_rows, visit};
use crate::simd::vectorize;
use crate::special::math;
use crate::{Control, Error};

/// How a half step is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Its length, in units of Sinkhorn's own.
    pub(super) omega: f64,
    /// Whether the potentials are so far off that their exponentials may leave the range.
    pub(super) fresh: bool,
}

/// The half step of the rows: moves `phi`, writes the column sums of the new
/// plan, and returns the distance of its row sums from their targets.
///
/// # Errors
/// [`Error::Infeasible`] where a row has nowhere to go; [`Error::Cancelled`].
pub(super) fn sweep<C: Cost>(
    gibbs: Gibbs<'_, C>,
    rows: &Marginal,
    state: &mut Potentials,
    step: Step,
    blocks: &mut Blocks,
    columns: &mut [f64],
    control: &Control,
) -> Result<f64, Error> {
    let Potentials { phi, gamma } = state;
    visit(gibbs, phi, gamma, step.fresh, blocks, control, |first, phi, plan, sums, block| {
        let mut factors = [0.0; GROUP];
        let factors = &mut factors[..phi.len()];
        // From a potential set anew a longer step would overshoot, every time.
        let omega = if block.moved { 1.0 } else { step.omega };
        block.error += rows.half_step(first, phi, sums, omega, factors);
        vectorize(
            #[inline(always)]
            || add_rows(&mut block.columns, factors, plan),
        );
    })?;
    let error = blocks.collect(columns);
    match blocks.stranded() {
        Some(index) => Err(Error::Infeasible { name: "a", index }),
        None => Ok(error),
    }
}

/// The columns whose sums have left the range, each with the potential that a half step gives it: by a
/// log-sum-exp, in one pass over the rows.
///
/// # Errors
/// [`Error::Infeasible`] where a column has nowhere to come from; [`Error::Cancelled`].
pub(super) fn rescue_columns<C: Cost>(
    gibbs: Gibbs<'_, C>,
    weights: &Marginal,
    state: &Potentials,
    columns: &[f64],
    control: &Control,
) -> Result<Vec<(usize, f64)>, Error> {
    let lost: Vec<usize> = (0..columns.len())
        .filter(|&j| weights.weights[j] > 0.0 && !SUMS.contains(&columns[j]))
        .collect();
    if lost.is_empty() {
        return Ok(vec![]);
    }
    let mut highs = vec![f64::NEG_INFINITY; lost.len()];
    let mut totals = vec![0.0; lost.len()];
    let mut row = vec![0.0; columns.len()];
    for (i, &phi) in state.phi.iter().enumerate() {
        if phi == f64::NEG_INFINITY {
            continue;
        }
        control.check()?;
        gibbs.cost.fill(i, &mut row);
        for ((&j, high), total) in lost.iter().zip(&mut highs).zip(&mut totals) {
            let exponent = (-row[j]).mul_add(gibbs.scale, phi);
            if exponent > *high {
                *total *= math::exp(*high - exponent);
                *high = exponent;
            }
            if exponent > f64::NEG_INFINITY {
                *total += math::exp(exponent - *high);
            }
        }
    }
    let mut found = Vec::with_capacity(lost.len());
    for ((j, high), total) in lost.into_iter().zip(highs).zip(totals) {
        if high == f64::NEG_INFINITY {
            return Err(Error::Infeasible { name: "b", index: j });
        }
        let sum = high + total.ln();
        found.push((j, weights.log_weights[j] - sum / (1.0 + weights.slack)));
    }
    Ok(found)
}
