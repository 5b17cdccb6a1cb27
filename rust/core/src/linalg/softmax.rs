//! Exponentials of rows of logits and their sums: the E-step of mixtures, whatever their components.

use crate::simd::{larger, maximum, sum, vectorize};
use crate::special::math;

/// Below this a posterior probability counts as zero: it could change nothing, but subnormal
/// factors slow the products down.
const NEGLIGIBLE: f64 = 1e-30;

/// Below this, less the largest one, a logit counts as if it were this: its share is negligible all
/// the same, and the padding's is no subnormal number, which costs a hundred cycles to make.
const LOWEST: f64 = -100.0;

/// Replaces the rows of `logits` by their exponentials, up to a factor whose inverse normalizes them
/// and goes to `inverses`; their log-sum-exp goes to `values`.
pub(crate) fn exponentiate(
    logits: &mut [f64],
    stride: usize,
    values: &mut [f64],
    inverses: &mut [f64],
) {
    vectorize(
        #[inline(always)]
        || {
            let rows = logits.chunks_exact_mut(stride);
            for ((row, value), total) in rows.zip(values.iter_mut()).zip(inverses.iter_mut()) {
                let high = maximum(row);
                for chunk in row.as_chunks_mut::<8>().0 {
                    for logit in chunk {
                        *logit = math::exp_within(larger(LOWEST, *logit - high));
                    }
                }
                *value = high;
                // In a loop of its own: in one with the exponentials, LLVM takes two lanes at a time.
                *total = sum(row);
            }
            // Logarithms and inverses last and together: they vectorise too.
            for (value, total) in values.iter_mut().zip(inverses.iter_mut()) {
                *value += math::ln(*total);
                *total = 1.0 / *total;
            }
        },
    );
}

/// A posterior probability from what [`exponentiate`] leaves.
#[inline(always)]
pub(crate) fn share(exponential: f64, inverse: f64) -> f64 {
    let share = exponential * inverse;
    if share < NEGLIGIBLE { 0.0 } else { share }
}
