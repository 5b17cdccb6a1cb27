//! The plan's rows, made on the fly: exponentials, their sums, and what the blocks of rows share.

use core::f64::consts::LOG2_E;

use super::cost::{Cost, LANES};
use crate::parallel::for_each_chunk_with;
use crate::simd::{Instructions, larger, vectorize_with};
use crate::special::exp2::exp2_or_zero;
use crate::{Control, Error};

/// Blocks of rows, each with column sums of its own.
const BLOCKS: usize = 64;
/// Fewest rows of a block.
const ROWS: usize = GROUP;
/// Exponentials below which a second thread costs more than it saves.
pub(super) const SMALL: usize = 1 << 20;

/// The scaled potentials: the plan is `exp(phi_i + gamma_j - C_ij / epsilon)`.
///
/// `phi = f / epsilon + log a` and `gamma = g / epsilon + log b`; minus infinity where a weight is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Potentials {
    /// Rows, shape (n,).
    pub phi: Vec<f64>,
    /// Columns, shape (m,).
    pub gamma: Vec<f64>,
}

/// The kernel `exp(-C / epsilon)`, which a plan is a rescaling of.
#[derive(Debug)]
pub(super) struct Gibbs<'a, C> {
    pub(super) cost: &'a C,
    /// `1 / epsilon`
    pub(super) scale: f64,
}

// Derived, these would ask the same of the costs.
impl<C> Clone for Gibbs<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Gibbs<'_, C> {}

/// What one block of rows needs to itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// Sums over the block's rows, shape (m,).
    pub(super) columns: Vec<f64>,
    /// A few rows of the plan.
    pub(super) buffer: Vec<f64>,
    /// Distance of the row sums from their targets.
    pub(super) error: f64,
    /// A row that no column can serve.
    pub(super) stranded: Option<usize>,
    /// Whether a row of the group at hand was given a new potential.
    pub(super) moved: bool,
}

/// Rows of a block, whose number depends on the shape alone: so do the bits of the sums.
pub(super) fn block_size(n: usize) -> usize {
    n.div_ceil(BLOCKS).max(ROWS)
}

/// Calls `body(index, chunk, item)` on the chunks of `out` of length `size`, each with its item, on
/// the calling thread unless `parallel`.
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `body` met.
pub(super) fn for_each<T: Send, U: Send>(
    out: &mut [T],
    size: usize,
    items: &mut [U],
    parallel: bool,
    control: &Control,
    body: impl Fn(usize, &mut [T], &mut U) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    if parallel {
        return for_each_chunk_with(out, size, items, control, body);
    }
    for (index, (chunk, item)) in out.chunks_mut(size).zip(items).enumerate() {
        control.check()?;
        body(index, chunk, item)?;
    }
    Ok(())
}

/// Blocks of rows and what is summed over them.
#[derive(Debug)]
pub(super) struct Blocks {
    all: Vec<Block>,
    size: usize,
    parallel: bool,
}

impl Blocks {
    pub(super) fn new((n, m): (usize, usize)) -> Self {
        let size = block_size(n);
        let block = Block { columns: vec![0.0; m], ..Block::default() };
        let parallel = n.saturating_mul(m) > SMALL;
        Self { all: vec![block; n.div_ceil(size)], size, parallel }
    }

    /// Calls `body(first row, phi of the block, block)` on every block.
    fn run(
        &mut self,
        phi: &mut [f64],
        control: &Control,
        body: impl Fn(usize, &mut [f64], &mut Block) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let size = self.size;
        for_each(phi, size, &mut self.all, self.parallel, control, |index, phi, block| {
            body(index * size, phi, block)
        })
    }

    /// Sums the blocks' columns, in the order of the blocks, and their errors.
    pub(super) fn collect(&self, columns: &mut [f64]) -> f64 {
        columns.fill(0.0);
        for block in &self.all {
            for (out, part) in columns.iter_mut().zip(&block.columns) {
                *out += part;
            }
        }
        self.all.iter().map(|block| block.error).sum()
    }

    /// The first row that no column can serve.
    pub(super) fn stranded(&self) -> Option<usize> {
        self.all.iter().find_map(|block| block.stranded)
    }
}

/// Writes row `i` of the plan and returns its sum.
#[inline(always)]
pub(super) fn exponentials<C: Cost>(
    on: Instructions,
    gibbs: Gibbs<'_, C>,
    i: usize,
    phi: f64,
    gamma: &[f64],
    out: &mut [f64],
) -> f64 {
    exponentials_with(
        on,
        gibbs,
        i,
        phi,
        gamma,
        out,
        #[inline(always)]
        |_, _| (),
    )
}

/// As [`exponentials`], and calls `visit(costs, entries)` on every panel.
#[inline(always)]
pub(super) fn exponentials_with<C: Cost>(
    on: Instructions,
    Gibbs { cost, scale }: Gibbs<'_, C>,
    i: usize,
    phi: f64,
    gamma: &[f64],
    out: &mut [f64],
    mut visit: impl FnMut(&[f64; LANES], &[f64; LANES]),
) -> f64 {
    // Powers of two, whose exponents need no reduction. The potentials may be large and of opposite
    // signs: they are added first.
    let scale = scale * LOG2_E;
    let mut total = [0.0; LANES];
    cost.map(
        on,
        i,
        gamma,
        out,
        #[inline(always)]
        |costs, gamma| {
            let mut exponents = [0.0; LANES];
            for l in 0..LANES {
                exponents[l] = (-costs[l]).mul_add(scale, (phi + gamma[l]) * LOG2_E);
            }
            let row = exp2_or_zero(on, exponents);
            for l in 0..LANES {
                total[l] += row[l];
            }
            visit(&costs, &row);
            row
        },
    );
    sum_of(&total)
}

/// The sum in as many lanes as hide the latency of an addition.
#[inline(always)]
pub(super) fn sum_of(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 32];
    let (chunks, rest) = values.as_chunks::<32>();
    for chunk in chunks {
        for lane in 0..32 {
            lanes[lane] += chunk[lane];
        }
    }
    let mut total: f64 = rest.iter().sum();
    for lanes in lanes.as_chunks::<8>().0 {
        total += sum(*lanes);
    }
    total
}

/// The largest of `gamma_j - C_ij / epsilon` over the columns of row `i`, `buffer` a row long.
#[inline(always)]
pub(super) fn largest<C: Cost>(
    on: Instructions,
    Gibbs { cost, scale }: Gibbs<'_, C>,
    i: usize,
    gamma: &[f64],
    buffer: &mut [f64],
) -> f64 {
    let mut high = [f64::NEG_INFINITY; LANES];
    cost.map(
        on,
        i,
        gamma,
        buffer,
        #[inline(always)]
        |costs, gamma| {
            for l in 0..LANES {
                high[l] = larger((-costs[l]).mul_add(scale, gamma[l]), high[l]);
            }
            costs
        },
    );
    high.into_iter().fold(f64::NEG_INFINITY, larger)
}

#[inline(always)]
pub(super) fn sum(lanes: [f64; 8]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// `columns += sum_r weights[r] rows[r]`, rows of the length of `columns` one after the other.
#[inline(always)]
pub(super) fn add_rows(columns: &mut [f64], weights: &[f64], rows: &[f64]) {
    let m = columns.len();
    let (eights, rest) = weights.as_chunks::<8>();
    let (fours, ones) = rest.as_chunks::<4>();
    let (first, rows) = rows.split_at(8 * m * eights.len());
    let (second, third) = rows.split_at(4 * m * fours.len());
    for (weights, rows) in eights.iter().zip(first.chunks(8 * m)) {
        add(columns, weights, rows);
    }
    for (weights, rows) in fours.iter().zip(second.chunks(4 * m)) {
        add(columns, weights, rows);
    }
    for (&weight, row) in ones.iter().zip(third.chunks(m)) {
        add(columns, &[weight], row);
    }
}

#[inline(always)]
fn add<const R: usize>(columns: &mut [f64], weights: &[f64; R], rows: &[f64]) {
    let rows = split::<R>(rows, columns.len());
    for (j, column) in columns.iter_mut().enumerate() {
        let mut sum = weights[0] * rows[0][j];
        for r in 1..R {
            sum = weights[r].mul_add(rows[r][j], sum);
        }
        *column += sum;
    }
}

/// Rows of length `m` that lie one after the other.
#[inline(always)]
pub(super) fn split<const R: usize>(rows: &[f64], m: usize) -> [&[f64]; R] {
    let mut out = [&rows[..m]; R];
    for (r, out) in out.iter_mut().enumerate() {
        *out = &rows[r * m..][..m];
    }
    out
}

/// Most rows of the plan held in a block's buffer at once.
pub(super) const GROUP: usize = 32;
/// Numbers of a group of rows that stay in the first cache.
const CACHED: usize = 2048;
/// Rows of length `m` held at once, `least` or more: so many that what is done once a row fills vector
/// lanes, and no more than stay in the first cache.
pub(super) fn group_size(m: usize, least: usize) -> usize {
    (CACHED / m.max(1) / least * least).clamp(least, GROUP)
}

/// Sums beyond these have lost terms to the ends of the floating-point range, or would reach its end by
/// a step of twice the length.
pub(super) const SUMS: core::ops::Range<f64> = 1e-140..1e140;

/// Writes rows `first..` of the plan, one for each of `phi`, into `buffer` and their sums into `sums`.
///
/// Where a sum leaves the range, or always if `fresh`, the row's potential is first set to where its
/// largest entry is 1. Returns a row whose every entry is 0, whatever its potential.
#[inline(always)]
pub(super) fn plan_rows<C: Cost>(
    on: Instructions,
    gibbs: Gibbs<'_, C>,
    first: usize,
    phi: &mut [f64],
    gamma: &[f64],
    fresh: bool,
    (buffer, sums): (&mut [f64], &mut [f64]),
) -> Option<usize> {
    let m = gamma.len();
    let mut stranded = None;
    for (r, ((phi, row), total)) in
        phi.iter_mut().zip(buffer.chunks_exact_mut(m)).zip(sums.iter_mut()).enumerate()
    {
        if *phi == f64::NEG_INFINITY {
            row.fill(0.0);
            *total = 0.0;
            continue;
        }
        let i = first + r;
        if !fresh {
            *total = exponentials(on, gibbs, i, *phi, gamma, row);
        }
        if fresh || !SUMS.contains(total) {
            let high = largest(on, gibbs, i, gamma, row);
            if high == f64::NEG_INFINITY {
                stranded = stranded.or(Some(i));
                continue;
            }
            *phi = -high;
            *total = exponentials(on, gibbs, i, *phi, gamma, row);
        }
    }
    stranded
}

/// One pass over the plan in blocks of rows: `visit(first row, phi, rows, sums, block)` sees a group
/// of at most [`GROUP`] rows, not changed by anything but the guard of [`plan_rows`].
pub(super) fn visit<C: Cost>(
    gibbs: Gibbs<'_, C>,
    phi: &mut [f64],
    gamma: &[f64],
    fresh: bool,
    blocks: &mut Blocks,
    control: &Control,
    group: impl Fn(usize, &mut [f64], &mut [f64], &mut [f64], &mut Block) + Sync,
) -> Result<(), Error> {
    let m = gamma.len();
    blocks.run(phi, control, |start, phi, block| {
        let mut buffer = core::mem::take(&mut block.buffer);
        let group_size = group_size(m, 4);
        buffer.resize(group_size * m, 0.0);
        let mut sums = [0.0; GROUP];
        block.columns.fill(0.0);
        (block.error, block.stranded) = (0.0, None);
        for (k, phi) in phi.chunks_mut(group_size).enumerate() {
            control.check()?;
            let first = start + k * group_size;
            let rows = &mut buffer[..phi.len() * m];
            let sums = &mut sums[..phi.len()];
            let mut before = [f64::NEG_INFINITY; GROUP];
            before[..phi.len()].copy_from_slice(phi);
            let stranded = vectorize_with(
                #[inline(always)]
                |on| plan_rows(on, gibbs, first, phi, gamma, fresh, (rows, sums)),
            );
            block.stranded = block.stranded.or(stranded);
            block.moved =
                phi.iter().zip(&before).any(|(now, before)| now.to_bits() != before.to_bits());
            group(first, phi, rows, sums, block);
        }
        block.buffer = buffer;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::cost::Dense;
    use super::*;
    use crate::simd::vectorize;

    #[test]
    fn a_row_is_that_of_the_definition_for_any_number_of_columns() {
        for m in [1, 31, 32, 33, 130] {
            let mut cost = Array2::from_shape_fn((2, m), |(i, j)| ((i * 7 + j * 3) % 11) as f64);
            let mut gamma: Vec<f64> = (0..m).map(|j| (j as f64 * 0.7).sin()).collect();
            cost[[1, m - 1]] = f64::INFINITY;
            gamma[m / 2] = f64::NEG_INFINITY;
            let exponents: Vec<f64> = (0..m).map(|j| gamma[j] - 0.7 * cost[[1, j]]).collect();
            let dense = Dense::new(cost.view()).unwrap();
            let gibbs = Gibbs { cost: &dense, scale: 0.7 };
            let (mut row, mut products) = (vec![f64::NAN; m], [0.0; LANES]);
            let (high, total) = vectorize_with(
                #[inline(always)]
                |on| {
                    let high = largest(on, gibbs, 1, &gamma, &mut row);
                    let total = exponentials_with(
                        on,
                        gibbs,
                        1,
                        0.3,
                        &gamma,
                        &mut row,
                        #[inline(always)]
                        |costs, row| {
                            for l in 0..LANES {
                                products[l] += if row[l] > 0.0 { row[l] * costs[l] } else { 0.0 };
                            }
                        },
                    );
                    (high, total)
                },
            );
            let expected: Vec<f64> = exponents.iter().map(|x| (0.3 + x).exp()).collect();
            for (found, expected) in row.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-14 * expected, "{found} {expected}");
            }
            let sum: f64 = expected.iter().sum();
            assert!((total - sum).abs() <= 1e-13 * sum);
            let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!((high - largest).abs() < 1e-14 || high.total_cmp(&largest).is_eq());
            let product: f64 =
                (0..m).filter(|&j| expected[j] > 0.0).map(|j| expected[j] * cost[[1, j]]).sum();
            assert!((sum_of(&products) - product).abs() <= 1e-13 * (1.0 + product));
        }
    }

    #[test]
    fn rows_are_added_and_summed_as_the_definition_says() {
        for m in [1, 7, 8, 33, 130] {
            for n in 1..20 {
                let rows: Vec<f64> = (0..n * m).map(|k| (k as f64 * 0.7).sin()).collect();
                let weights: Vec<f64> = (0..n).map(|i| (i as f64).cos()).collect();
                let mut columns: Vec<f64> = (0..m).map(|j| j as f64).collect();
                vectorize(
                    #[inline(always)]
                    || add_rows(&mut columns, &weights, &rows),
                );
                for (j, column) in columns.iter().enumerate() {
                    let sum: f64 = (0..n).map(|i| weights[i] * rows[i * m + j]).sum();
                    assert!((column - j as f64 - sum).abs() < 1e-13 * (1.0 + j as f64));
                }
                let total: f64 = rows.iter().sum();
                assert!((sum_of(&rows) - total).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn groups_fill_lanes_and_fit_the_cache() {
        for (m, size) in [(1, 32), (32, 32), (128, 16), (500, 4), (512, 4), (5000, 4)] {
            assert_eq!(group_size(m, 4), size);
        }
        assert_eq!(group_size(5000, 8), 8);
    }
}
