//! Sinkhorn's iteration on a stored plan that the potentials have been absorbed into.
//!
//! `P_ij = u_i K_ij v_j` with `K` the plan at base potentials and `u`, `v` how far the potentials have
//! moved since. An iteration is two products with `K`, made in one pass; where most entries are
//! negligible (small epsilon), `K` is stored sparsely.

use core::ops::Range;

use super::cost::Cost;
use super::marginal::Marginal;
use super::rows::{
    GROUP, Gibbs, Potentials, SMALL, SUMS, add_rows, block_size, exponentials, for_each,
    group_size, split, sum,
};
use crate::simd::{Instructions, vectorize, vectorize_with};
use crate::special::math;
use crate::{Control, Error};

/// Stored sparsely where fewer entries than this share count: an entry then costs ten times as much as
/// in a dense plan that fits into the cache, four times as much as in one that does not.
const SPARSE: f64 = 0.1;
/// Rows of a dense plan that are read side by side.
const ROWS: usize = 8;
/// Rows, evenly spaced, from which that share is estimated.
const PROBES: usize = 32;
/// How far potentials may move from their base, in units of epsilon, before the plan is made anew:
/// for a dense plan, whose entries down to e^-709 are there, and for a sparse one.
const DENSE_REACH: f64 = 100.0;
const SPARSE_REACH: f64 = 2.0;

/// A block of rows of the plan.
#[derive(Debug)]
enum Entries {
    Dense(Vec<f64>),
    /// Row ends, columns and values.
    Sparse(Vec<usize>, Vec<u32>, Vec<f64>),
}

#[derive(Debug)]
struct Stored {
    entries: Entries,
    /// What the block adds to the column sums.
    columns: Vec<f64>,
    error: f64,
    lost: bool,
}

/// The plan at base potentials.
#[derive(Debug)]
pub(super) struct Kernel {
    base: Potentials,
    /// Sums of the plan at the base, of the entries left out too.
    pub(super) row_sums: Vec<f64>,
    pub(super) column_sums: Vec<f64>,
    blocks: Vec<Stored>,
    size: usize,
    reach: f64,
    parallel: bool,
}

impl Kernel {
    /// Makes the plan at `base`. Where that leaves few enough, entries below `negligible` times their
    /// share of a weight are left out: all together they carry at most that part of the mass, within
    /// the reach of the kernel. A `negligible` of 0 keeps them all.
    pub(super) fn new<C: Cost>(
        gibbs: Gibbs<'_, C>,
        rows: &Marginal,
        columns: &Marginal,
        base: Potentials,
        negligible: f64,
        control: &Control,
    ) -> Result<Self, Error> {
        let (n, m) = gibbs.cost.shape();
        let part = negligible * (-2.0 * SPARSE_REACH).exp();
        let least = |weights: &Marginal, n: usize| -> Vec<f64> {
            weights.weights.iter().map(|weight| part * weight / n as f64).collect()
        };
        let (least_row, least_column) = (least(rows, m), least(columns, n));
        let sparse = negligible > 0.0 && {
            let least = Least { row: &least_row, column: &least_column };
            share_kept(gibbs, &base, least) < SPARSE
        };
        let size = block_size(n);
        let mut blocks: Vec<Option<Stored>> = (0..n.div_ceil(size)).map(|_| None).collect();
        let mut row_sums = vec![0.0; n];
        let build = |index: usize, sums: &mut [f64], block: &mut Option<Stored>| {
            let rows = index * size..index * size + sums.len();
            let mut columns = vec![0.0; m];
            let entries = vectorize_with(
                #[inline(always)]
                |on| {
                    let least = Least { row: &least_row, column: &least_column };
                    entries(
                        on,
                        gibbs,
                        rows.clone(),
                        &base,
                        sparse.then_some(least),
                        sums,
                        &mut columns,
                    )
                },
            );
            *block = Some(Stored { entries, columns, error: 0.0, lost: false });
            Ok(())
        };
        for_each(&mut row_sums, size, &mut blocks, n * m > SMALL, control, build)?;
        let blocks: Vec<Stored> = blocks.into_iter().flatten().collect();
        let n_entries: usize = blocks.iter().map(Stored::len).sum();
        let mut kernel = Self {
            row_sums,
            column_sums: vec![0.0; m],
            size,
            reach: if sparse { SPARSE_REACH } else { DENSE_REACH },
            parallel: n_entries > if sparse { 1 << 20 } else { 1 << 22 },
            base,
            blocks,
        };
        let mut sums = core::mem::take(&mut kernel.column_sums);
        kernel.collect(&mut sums);
        kernel.column_sums = sums;
        Ok(kernel)
    }

    /// Leaves out all but the `n` largest entries.
    pub(super) fn keep_largest(&mut self, n: usize) {
        let mut all = Vec::new();
        self.for_each_row(|_, row| match row {
            Row::Dense(values) | Row::Sparse(_, values) => all.extend_from_slice(values),
        });
        if n >= all.len() {
            return;
        }
        let (_, &mut least, _) = all.select_nth_unstable_by(n, |a, b| b.total_cmp(a));
        let m = self.column_sums.len();
        for block in &mut self.blocks {
            if let Entries::Dense(values) = &block.entries {
                let (mut ends, mut indices, mut kept) = (Vec::new(), Vec::new(), Vec::new());
                for row in values.chunks_exact(m) {
                    let large = row.iter().enumerate().filter(|&(_, &p)| p > least);
                    large.for_each(|(j, &p)| {
                        indices.push(j as u32);
                        kept.push(p);
                    });
                    ends.push(kept.len());
                }
                block.entries = Entries::Sparse(ends, indices, kept);
            }
        }
    }

    /// Whether entries are left out.
    pub(super) fn is_sparse(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.entries, Entries::Sparse(..)))
    }

    /// The potentials at which the plan is stored.
    pub(super) fn base(&self) -> &Potentials {
        &self.base
    }

    /// Whether the potentials are still near enough to the base.
    pub(super) fn reaches(&self, state: &Potentials) -> bool {
        let near = |now: &[f64], base: &[f64]| {
            // Minus infinity, of a point without weight, stays where it is.
            now.iter().zip(base).all(|(a, b)| a.is_infinite() || (a - b).abs() <= self.reach)
        };
        near(&state.phi, &self.base.phi) && near(&state.gamma, &self.base.gamma)
    }

    /// As `log_domain::sweep`; `None` where a sum has left the range.
    pub(super) fn sweep(
        &mut self,
        rows: &Marginal,
        state: &mut Potentials,
        omega: f64,
        columns: &mut [f64],
        control: &Control,
    ) -> Result<Option<f64>, Error> {
        let mut v = vec![0.0; columns.len()];
        factors(&state.gamma, &self.base.gamma, &mut v);
        let (base, size) = (&self.base, self.size);
        let step = |index: usize, phi: &mut [f64], block: &mut Stored| {
            let base = &base.phi[index * size..];
            let (mut error, mut lost) = (0.0, false);
            block.pass(&v, |group, sums, u| {
                let phi = &mut phi[group.clone()];
                factors(phi, &base[group.clone()], u);
                let first = index * size + group.start;
                for (i, (sum, u)) in sums.iter_mut().zip(u.iter()).enumerate() {
                    *sum *= u;
                    lost |= rows.weights[first + i] > 0.0 && !SUMS.contains(sum);
                }
                let mut ratio = [0.0; GROUP];
                error += rows.half_step(first, phi, sums, omega, &mut ratio[..sums.len()]);
                for (u, ratio) in u.iter_mut().zip(ratio) {
                    *u *= ratio;
                }
            });
            (block.error, block.lost) = (error, lost);
            Ok(())
        };
        let (phi, blocks) = (&mut state.phi, &mut self.blocks);
        for_each(phi, size, blocks, self.parallel, control, step)?;
        if self.blocks.iter().any(|block| block.lost) {
            return Ok(None);
        }
        self.collect(columns);
        for (out, v) in columns.iter_mut().zip(&v) {
            *out *= v;
        }
        Ok(Some(self.blocks.iter().map(|block| block.error).sum()))
    }

    /// `out = P' (weights * (P v))`, in one pass over the plan `P` at the base; `weighted` holds the
    /// middle factor, `weights * (P v)`, afterwards.
    pub(super) fn gram(
        &mut self,
        v: &[f64],
        weights: &[f64],
        weighted: &mut [f64],
        out: &mut [f64],
        control: &Control,
    ) -> Result<(), Error> {
        let size = self.size;
        let step = |index: usize, weighted: &mut [f64], block: &mut Stored| {
            let weights = &weights[index * size..];
            block.pass(v, |group, sums, u| {
                for (k, i) in group.enumerate() {
                    u[k] = weights[i] * sums[k];
                    weighted[i] = u[k];
                }
            });
            Ok(())
        };
        for_each(weighted, size, &mut self.blocks, self.parallel, control, step)?;
        self.collect(out);
        Ok(())
    }

    /// `out = P' u` for the plan `P` at the base.
    pub(super) fn transpose_multiply(
        &mut self,
        u: &mut [f64],
        out: &mut [f64],
        control: &Control,
    ) -> Result<(), Error> {
        let size = self.size;
        let step = |_: usize, u: &mut [f64], block: &mut Stored| {
            block.add_rows_by(|group, weights| weights.copy_from_slice(&u[group]));
            Ok(())
        };
        for_each(u, size, &mut self.blocks, self.parallel, control, step)?;
        self.collect(out);
        Ok(())
    }

    /// `sum_i weights_i P_ij^2` for every column.
    pub(super) fn squared_columns(&self, weights: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.column_sums.len()];
        self.for_each_row(|i, row| match row {
            Row::Dense(values) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out += weights[i] * value * value;
                }
            }
            Row::Sparse(indices, values) => {
                for (&j, value) in indices.iter().zip(values) {
                    out[j as usize] += weights[i] * value * value;
                }
            }
        });
        out
    }

    /// Calls `body(i, row)` on the rows in order.
    pub(super) fn for_each_row(&self, mut body: impl FnMut(usize, Row<'_>)) {
        let m = self.column_sums.len();
        for (index, block) in self.blocks.iter().enumerate() {
            let first = index * self.size;
            match &block.entries {
                Entries::Dense(values) => {
                    for (i, row) in values.chunks_exact(m).enumerate() {
                        body(first + i, Row::Dense(row));
                    }
                }
                Entries::Sparse(ends, indices, values) => {
                    let mut start = 0;
                    for (i, &end) in ends.iter().enumerate() {
                        body(first + i, Row::Sparse(&indices[start..end], &values[start..end]));
                        start = end;
                    }
                }
            }
        }
    }

    /// Sums the blocks' columns, in the order of the blocks.
    fn collect(&self, out: &mut [f64]) {
        out.fill(0.0);
        for block in &self.blocks {
            for (out, part) in out.iter_mut().zip(&block.columns) {
                *out += part;
            }
        }
    }
}

/// A row of the stored plan.
pub(super) enum Row<'a> {
    Dense(&'a [f64]),
    /// Columns and values.
    Sparse(&'a [u32], &'a [f64]),
}

impl Stored {
    fn len(&self) -> usize {
        match &self.entries {
            Entries::Dense(values) | Entries::Sparse(_, _, values) => values.len(),
        }
    }

    /// Adds every row, with a weight found from its product with `v`, to the columns:
    /// `visit(rows, products, weights)` sees a few at a time.
    fn pass(&mut self, v: &[f64], mut visit: impl FnMut(Range<usize>, &mut [f64], &mut [f64])) {
        let (columns, m) = (&mut self.columns, v.len());
        let size = group_size(m, ROWS);
        columns.fill(0.0);
        let (mut sums, mut weights) = ([0.0; GROUP], [0.0; GROUP]);
        match &self.entries {
            Entries::Dense(values) => {
                for (k, plan) in values.chunks(size * m).enumerate() {
                    let rows = k * size..k * size + plan.len() / m;
                    let (sums, weights) = (&mut sums[..rows.len()], &mut weights[..rows.len()]);
                    vectorize(
                        #[inline(always)]
                        || dot_rows(plan, v, sums),
                    );
                    visit(rows, sums, weights);
                    vectorize(
                        #[inline(always)]
                        || add_rows(columns, weights, plan),
                    );
                }
            }
            Entries::Sparse(ends, indices, values) => {
                let mut start = 0;
                for (k, ends) in ends.chunks(size).enumerate() {
                    let rows = k * size..k * size + ends.len();
                    let (sums, weights) = (&mut sums[..rows.len()], &mut weights[..rows.len()]);
                    let mut begin = start;
                    for (sum, &end) in sums.iter_mut().zip(ends) {
                        *sum = gather(&indices[begin..end], &values[begin..end], v);
                        begin = end;
                    }
                    visit(rows, sums, weights);
                    for (&weight, &end) in weights.iter().zip(ends) {
                        scatter(weight, &indices[start..end], &values[start..end], columns);
                        start = end;
                    }
                }
            }
        }
    }

    /// Adds every row, with a weight that `weigh(rows, weights)` gives, to the columns.
    fn add_rows_by(&mut self, weigh: impl Fn(Range<usize>, &mut [f64])) {
        let (columns, mut weights) = (&mut self.columns, [0.0; GROUP]);
        columns.fill(0.0);
        match &self.entries {
            Entries::Dense(values) => {
                let m = columns.len();
                let size = group_size(m, ROWS);
                for (k, plan) in values.chunks(size * m).enumerate() {
                    let rows = k * size..k * size + plan.len() / m;
                    let weights = &mut weights[..rows.len()];
                    weigh(rows, weights);
                    vectorize(
                        #[inline(always)]
                        || add_rows(columns, weights, plan),
                    );
                }
            }
            Entries::Sparse(ends, indices, values) => {
                let mut start = 0;
                for (i, &end) in ends.iter().enumerate() {
                    weigh(i..i + 1, &mut weights[..1]);
                    scatter(weights[0], &indices[start..end], &values[start..end], columns);
                    start = end;
                }
            }
        }
    }
}

/// `exp(now - base)`, 0 where a weight is.
fn factors(now: &[f64], base: &[f64], out: &mut [f64]) {
    #[inline(always)]
    fn factor(now: f64, base: f64) -> f64 {
        let factor = math::exp(now - base);
        if now == f64::NEG_INFINITY { 0.0 } else { factor }
    }

    vectorize(
        #[inline(always)]
        || {
            // A group of rows may be no longer than these lanes.
            let (out, rest) = out.as_chunks_mut::<4>();
            let (now, base) = (now.as_chunks::<4>(), base.as_chunks::<4>());
            for ((out, now), base) in out.iter_mut().zip(now.0).zip(base.0) {
                for i in 0..4 {
                    out[i] = factor(now[i], base[i]);
                }
            }
            for ((out, &now), &base) in rest.iter_mut().zip(now.1).zip(base.1) {
                *out = factor(now, base);
            }
        },
    );
}

#[inline(always)]
fn dot_rows(rows: &[f64], v: &[f64], sums: &mut [f64]) {
    let m = v.len();
    let (eights, ones) = sums.as_chunks_mut::<ROWS>();
    let (first, second) = rows.split_at(ROWS * m * eights.len());
    for (sums, rows) in eights.iter_mut().zip(first.chunks(ROWS * m)) {
        dot(rows, v, sums);
    }
    for (sum, row) in ones.iter_mut().zip(second.chunks(m)) {
        dot(row, v, core::array::from_mut(sum));
    }
}

#[inline(always)]
fn dot<const R: usize>(rows: &[f64], v: &[f64], sums: &mut [f64; R]) {
    let m = v.len();
    let rows = split::<R>(rows, m);
    let mut lanes = [[0.0; 8]; R];
    let whole = m - m % 8;
    for j in (0..whole).step_by(8) {
        let v = &v[j..j + 8];
        for (row, lanes) in rows.iter().zip(&mut lanes) {
            let row = &row[j..j + 8];
            for lane in 0..8 {
                lanes[lane] = row[lane].mul_add(v[lane], lanes[lane]);
            }
        }
    }
    for ((row, lanes), total) in rows.iter().zip(lanes).zip(sums) {
        *total = sum(lanes);
        for j in whole..m {
            *total = row[j].mul_add(v[j], *total);
        }
    }
}

#[inline(always)]
fn gather(indices: &[u32], values: &[f64], v: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    let (js, ps) = (indices.chunks_exact(4), values.chunks_exact(4));
    let rest = js.remainder().iter().zip(ps.remainder());
    let rest: f64 = rest.map(|(&j, &p)| p * v[j as usize]).sum();
    for (j, p) in js.zip(ps) {
        for lane in 0..4 {
            lanes[lane] += p[lane] * v[j[lane] as usize];
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + rest
}

#[inline(always)]
fn scatter(weight: f64, indices: &[u32], values: &[f64], columns: &mut [f64]) {
    for (&j, &value) in indices.iter().zip(values) {
        columns[j as usize] += weight * value;
    }
}

/// What an entry must reach to be stored, by its row and by its column: the lower of the two.
#[derive(Clone, Copy)]
struct Least<'a> {
    row: &'a [f64],
    column: &'a [f64],
}

impl Least<'_> {
    #[inline(always)]
    fn keeps(&self, i: usize, j: usize, p: f64) -> bool {
        let (row, column) = (self.row[i], self.column[j]);
        p > 0.0 && p >= if row < column { row } else { column }
    }
}

/// The share of entries that reach `least`, in a few rows.
fn share_kept<C: Cost>(gibbs: Gibbs<'_, C>, base: &Potentials, least: Least<'_>) -> f64 {
    let (n, m) = gibbs.cost.shape();
    let mut row = vec![0.0; m];
    let (mut kept, mut seen) = (0, 0);
    for i in (0..n).step_by(n.div_ceil(PROBES)) {
        vectorize_with(
            #[inline(always)]
            |on| exponentials(on, gibbs, i, base.phi[i], &base.gamma, &mut row),
        );
        kept += row.iter().enumerate().filter(|&(j, &p)| least.keeps(i, j, p)).count();
        seen += m;
    }
    kept as f64 / seen as f64
}

/// The rows of the plan with these potentials: all entries, or those that reach `least`. Writes the
/// row sums and adds the rows to the column sums.
#[inline(always)]
fn entries<C: Cost>(
    on: Instructions,
    gibbs: Gibbs<'_, C>,
    rows: Range<usize>,
    Potentials { phi, gamma }: &Potentials,
    least: Option<Least<'_>>,
    row_sums: &mut [f64],
    column_sums: &mut [f64],
) -> Entries {
    let m = gamma.len();
    let Some(least) = least else {
        let mut values = vec![0.0; rows.len() * m];
        for ((i, row), sum) in rows.zip(values.chunks_exact_mut(m)).zip(row_sums) {
            *sum = exponentials(on, gibbs, i, phi[i], gamma, row);
        }
        for rows in values.chunks(ROWS * m) {
            add_rows(column_sums, &[1.0; ROWS][..rows.len() / m], rows);
        }
        return Entries::Dense(values);
    };
    let mut row = vec![0.0; m];
    let (mut ends, mut indices, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (i, sum) in rows.zip(row_sums) {
        *sum = exponentials(on, gibbs, i, phi[i], gamma, &mut row);
        add_rows(column_sums, &[1.0], &row);
        for (j, &p) in row.iter().enumerate() {
            if least.keeps(i, j, p) {
                indices.push(j as u32);
                values.push(p);
            }
        }
        ends.push(indices.len());
    }
    Entries::Sparse(ends, indices, values)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::cost::Dense;
    use super::*;

    fn case(n: usize, m: usize) -> (Array2<f64>, Marginal, Marginal, Potentials) {
        let cost = Array2::from_shape_fn((n, m), |(i, j)| ((i * 7919 + j * 104_729) % 1000) as f64);
        let weights = |n: usize| -> Vec<f64> { (1..=n).map(|i| i as f64).collect() };
        let (rows, columns) = (weights(n), weights(m));
        let total: f64 = rows.iter().sum::<f64>() / columns.iter().sum::<f64>();
        let columns: Vec<f64> = columns.into_iter().map(|b| b * total).collect();
        let state = Potentials {
            phi: rows.iter().map(|a| a.ln() + 0.3).collect(),
            gamma: columns.iter().map(|b| b.ln() - 0.2).collect(),
        };
        (cost, Marginal::new(&rows, 0.0), Marginal::new(&columns, 0.0), state)
    }

    fn plan(cost: &Array2<f64>, scale: f64, state: &Potentials) -> Array2<f64> {
        Array2::from_shape_fn(cost.dim(), |(i, j)| {
            (state.phi[i] + state.gamma[j] - cost[[i, j]] * scale).exp()
        })
    }

    #[test]
    fn products_are_those_of_the_plan_dense_and_sparse() {
        for (n, m) in [(1, 1), (5, 3), (37, 70), (130, 20)] {
            let (cost, rows, columns, state) = case(n, m);
            for (scale, negligible) in [(0.01, 0.0), (0.5, 1e-3)] {
                let costs = Dense::new(cost.view()).unwrap();
                let control = Control::sequential();
                let base = state.clone();
                let mut kernel = Kernel::new(
                    Gibbs { cost: &costs, scale },
                    &rows,
                    &columns,
                    base,
                    negligible,
                    &control,
                )
                .unwrap();
                let dense = plan(&cost, scale, &state);
                let tolerance = 1e-14 * dense.sum() + negligible * rows.mass();
                let close = |a: &[f64], b: Vec<f64>| {
                    let distance: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
                    let case = format!("{n} x {m}, scale {scale}");
                    assert!(distance <= tolerance, "{case}: {distance} > {tolerance}");
                };
                close(&kernel.row_sums, dense.sum_axis(ndarray::Axis(1)).to_vec());
                close(&kernel.column_sums, dense.sum_axis(ndarray::Axis(0)).to_vec());
                let (v, w) = (vec![0.5; m], vec![2.0; n]);
                let (mut middle, mut out) = (vec![0.0; n], vec![0.0; m]);
                kernel.gram(&v, &w, &mut middle, &mut out, &control).unwrap();
                let expected = dense.dot(&ndarray::Array1::from(v)) * 2.0;
                close(&middle, expected.to_vec());
                let back = dense.t().dot(&expected);
                let distance: f64 = out.iter().zip(&back).map(|(a, b)| (a - b).abs()).sum();
                let bound = 1e-13 * back.sum() + 2.0 * tolerance * (1.0 + 2.0 * dense.sum());
                assert!(distance <= bound, "{distance} > {bound}");
            }
        }
    }

    #[test]
    fn the_largest_entries_are_kept() {
        let (cost, rows, columns, state) = case(30, 25);
        let costs = Dense::new(cost.view()).unwrap();
        let control = Control::sequential();
        let mut kernel = Kernel::new(
            Gibbs { cost: &costs, scale: 0.01 },
            &rows,
            &columns,
            state.clone(),
            0.0,
            &control,
        )
        .unwrap();
        kernel.keep_largest(60);
        let mut all: Vec<f64> = plan(&cost, 0.01, &state).into_iter().collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let mut kept = Vec::new();
        kernel.for_each_row(|_, row| match row {
            Row::Sparse(_, values) => kept.extend_from_slice(values),
            Row::Dense(_) => unreachable!("entries were left out"),
        });
        assert!(kept.len() <= 60 && kept.len() > 50, "{}", kept.len());
        assert!(kept.iter().all(|p| *p >= all[60] * (1.0 - 1e-12)));
    }
}
