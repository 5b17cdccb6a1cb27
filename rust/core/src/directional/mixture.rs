//! Mixtures of von Mises-Fisher distributions: one EM iteration in one pass over the data.
//!
//! With unit vectors `x_i` and components `(alpha_k, mu_k, kappa_k)` the E-step needs the logits
//! `kappa_k <mu_k, x_i> + log C(kappa_k) + log alpha_k`, and the M-step the resultants
//! `S_k = sum_i r_ik x_i` (Banerjee et al. 2005). Both are products of the data with a skinny matrix;
//! a block of rows stays in the cache between the two, so the data are read once an iteration.

use core::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::linalg::softmax::{exponentiate, share};
use crate::linalg::{Csr, Lanes, Rows, skinny};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::simd::{fold, larger, vectorize};
use crate::{Control, Error};

/// How a row is shared among the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// In proportion to the posterior probabilities: EM.
    Soft,
    /// Wholly to the likeliest one: classification EM.
    Hard,
}

/// Components as affine functions of a row: `logit_k(x) = scale_k <x, directions_k> + offset_k`.
///
/// The directions need not be unit vectors: an M-step's resultants serve as they are, with
/// `scale_k = kappa_k / |S_k|`. A logit is off by the rounding of the product times the concentration
/// `scale_k |directions_k|`. Where that of a component is above 8e4, so that single precision
/// would leave less than two decimals of it, all products are made in double precision, of rows
/// divided by their norms: those are off by as much.
#[derive(Debug, Clone, Copy)]
pub struct Components<'a> {
    /// One component a column: shape (d, k).
    pub directions: ArrayView2<'a, f64>,
    /// Shape (k,).
    pub scale: ArrayView1<'a, f64>,
    /// Shape (k,).
    pub offset: ArrayView1<'a, f64>,
}

/// What one iteration finds, with responsibilities `r`, n by k.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `sum_i r_ik x_i`, one component a column: shape (d, k).
    pub resultants: Array2<f64>,
    /// Squared norms of the resultants.
    pub squared_norms: Vec<f64>,
    /// `sum_i r_ik`.
    pub counts: Vec<f64>,
    /// `sum_i r_ik^2`; counts squared over this is the effective number of rows.
    pub squared_counts: Vec<f64>,
    /// Sum over the rows of the log-sum-exp of their logits; of their largest one under
    /// [`Assignment::Hard`].
    pub log_likelihood: f64,
    /// The row that the components explain worst.
    pub worst: usize,
}

/// The E-step with `components` and the sums that the M-step needs.
///
/// `transposed` must hold the transpose of sparse data, and is not looked at for dense ones.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not fit or there are no rows; [`Error::Cancelled`].
pub fn step<T: Lanes>(
    x: Rows<'_, T>,
    transposed: Option<Csr<'_, T>>,
    components: Components<'_>,
    assignment: Assignment,
    control: &Control,
) -> Result<Step, Error> {
    let model = Packed::<T>::new(x, components)?;
    match (x, transposed) {
        (Rows::Dense { .. }, _) => dense_step(x, &model, assignment, control),
        (Rows::Sparse(rows), Some(columns))
            if columns.n_rows() == rows.n_columns() && columns.n_columns() == rows.n_rows() =>
        {
            sparse_step(x, columns, &model, assignment, control)
        }
        (Rows::Sparse(rows), _) => Err(Error::Shape {
            name: "transposed",
            expected: format!("({}, {})", rows.n_columns(), rows.n_rows()),
            got: transposed.map_or(vec![], |t| vec![t.n_rows(), t.n_columns()]),
        }),
    }
}

/// Log-sum-exp of the logits of every row: the log-density of a mixture.
///
/// # Errors
/// As [`step`].
pub fn log_sum_exp<T: Lanes>(
    x: Rows<'_, T>,
    components: Components<'_>,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let model = Packed::<T>::new(x, components)?;
    let mut out = vec![0.0; x.n_rows()];
    for_each_chunk(&mut out, x.block(), control, |start, out| {
        let mut logits = model.logits(x, start..start + out.len());
        exponentiate(&mut logits, model.stride, out, &mut vec![0.0; out.len()]);
        Ok(())
    })?;
    Ok(out)
}

/// Posterior probabilities of the components for every row: shape (n, k).
///
/// # Errors
/// As [`step`].
pub fn responsibilities<T: Lanes>(
    x: Rows<'_, T>,
    components: Components<'_>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let model = Packed::<T>::new(x, components)?;
    let shape = (x.n_rows(), model.k);
    let mut out = zeros::<f64>(&[shape.0, shape.1])?;
    for_each_chunk(&mut out, x.block() * model.k, control, |start, out| {
        let (start, rows) = (start / model.k, out.len() / model.k);
        let mut r = model.logits(x, start..start + rows);
        let mut inverses = vec![0.0; rows];
        exponentiate(&mut r, model.stride, &mut vec![0.0; rows], &mut inverses);
        let padded = r.chunks_exact(model.stride).zip(out.chunks_exact_mut(model.k));
        for ((r, out), inverse) in padded.zip(inverses) {
            out.iter_mut().zip(r).for_each(|(out, r)| *out = share(*r, inverse));
        }
        Ok(())
    })?;
    Ok(shaped(shape, out))
}

/// The likeliest component of every row.
///
/// # Errors
/// As [`step`].
pub fn labels<T: Lanes>(
    x: Rows<'_, T>,
    components: Components<'_>,
    control: &Control,
) -> Result<Vec<usize>, Error> {
    let model = Packed::<T>::new(x, components)?;
    let mut out = vec![0; x.n_rows()];
    for_each_chunk(&mut out, x.block(), control, |start, out| {
        let logits = model.logits(x, start..start + out.len());
        winners(&logits, model.stride, out, &mut vec![0.0; out.len()]);
        Ok(())
    })?;
    Ok(out)
}

/// The largest concentration whose product with the rounding of single precision stays below 10^-2.
const CARRIED: f64 = 1e-2 / f32::EPSILON as f64;

/// Components with columns padded to whole vectors; the padding has logits of minus infinity.
struct Packed<T> {
    k: usize,
    stride: usize,
    directions: Directions<T>,
    scale: Vec<f64>,
    offset: Vec<f64>,
}

/// Rows of length `stride`, in the precision that their products with the data need.
enum Directions<T> {
    Working(Vec<T>),
    /// For concentrations above [`CARRIED`].
    Double(Vec<f64>),
}

impl<T: Lanes> Packed<T> {
    fn new(x: Rows<'_, T>, components: Components<'_>) -> Result<Self, Error> {
        let Components { directions, scale, offset } = components;
        let (d, k) = directions.dim();
        if d != x.n_columns() || k == 0 || scale.len() != k || offset.len() != k {
            return Err(Error::Shape {
                name: "directions",
                expected: format!("({}, {})", x.n_columns(), scale.len()),
                got: vec![d, k],
            });
        }
        // Whole vectors of singles are whole vectors of doubles.
        let stride = skinny::padded::<T>(k);
        let concentrations = directions.columns().into_iter().zip(scale);
        let directions = if concentrations.fold(0.0, |high: f64, (column, scale)| {
            high.max(scale.abs() * column.dot(&column).sqrt())
        }) > CARRIED
        {
            Directions::Double(packed(directions, stride)?)
        } else {
            Directions::Working(packed(directions, stride)?)
        };
        let pad = |values: ArrayView1<'_, f64>, with| {
            values.iter().copied().chain(core::iter::repeat(with)).take(stride).collect()
        };
        let (scale, offset) = (pad(scale, 0.0), pad(offset, f64::NEG_INFINITY));
        Ok(Self { k, stride, directions, scale, offset })
    }

    /// The logits of some rows, `stride` a row.
    fn logits(&self, x: Rows<'_, T>, range: Range<usize>) -> Vec<f64> {
        let mut logits = vec![0.0; range.len() * self.stride];
        match &self.directions {
            Directions::Working(w) => x.multiply(range, w, self.stride, &mut logits),
            Directions::Double(w) => {
                let normalize = |i| x.inverse_norm(i);
                x.multiply_in_double(range, normalize, w, self.stride, &mut logits);
            }
        }
        vectorize(
            #[inline(always)]
            || {
                for row in logits.chunks_exact_mut(self.stride) {
                    for ((logit, scale), offset) in
                        row.iter_mut().zip(&self.scale).zip(&self.offset)
                    {
                        *logit = *logit * scale + offset;
                    }
                }
            },
        );
        logits
    }
}

/// A copy of `directions` with rows of length `stride`.
fn packed<T: Lanes>(directions: ArrayView2<'_, f64>, stride: usize) -> Result<Vec<T>, Error> {
    let mut packed = zeros::<T>(&[directions.nrows(), stride])?;
    for (row, packed) in directions.rows().into_iter().zip(packed.chunks_exact_mut(stride)) {
        for (&value, packed) in row.iter().zip(packed) {
            *packed = T::from_f64(value);
        }
    }
    Ok(packed)
}

/// Sums over some rows; the resultants, where they are summed here, are padded.
struct Sums {
    resultants: Vec<f64>,
    counts: Vec<f64>,
    squared_counts: Vec<f64>,
    log_likelihood: f64,
    /// The lowest log-likelihood of a row, and which row has it.
    worst: (f64, usize),
}

impl Sums {
    fn new(d: usize, stride: usize) -> Self {
        Self {
            resultants: vec![0.0; d * stride],
            counts: vec![0.0; stride],
            squared_counts: vec![0.0; stride],
            log_likelihood: 0.0,
            worst: (f64::INFINITY, 0),
        }
    }

    /// Turns the logits of the rows from `start` on into responsibilities and counts them.
    fn add<T: Lanes>(&mut self, start: usize, mut logits: Vec<f64>) -> Vec<T> {
        let stride = self.counts.len();
        let mut values = vec![0.0; logits.len() / stride];
        let mut inverses = vec![0.0; values.len()];
        exponentiate(&mut logits, stride, &mut values, &mut inverses);
        self.explain(start, &values);
        let mut shares = vec![T::zeroed(); logits.len()];
        let Self { counts, squared_counts, .. } = self;
        vectorize(
            #[inline(always)]
            || {
                let rows = shares.chunks_exact_mut(stride).zip(logits.chunks_exact(stride));
                for ((shares, row), &inverse) in rows.zip(&inverses) {
                    let (row, _) = row.as_chunks::<8>();
                    let (shares, _) = shares.as_chunks_mut::<8>();
                    let (counts, _) = counts.as_chunks_mut::<8>();
                    let (squares, _) = squared_counts.as_chunks_mut::<8>();
                    for (((shares, row), counts), squares) in
                        shares.iter_mut().zip(row).zip(counts).zip(squares)
                    {
                        let r = row.map(|e| share(e, inverse));
                        let (mut count, mut square) = (*counts, *squares);
                        for i in 0..8 {
                            count[i] += r[i];
                            square[i] += r[i] * r[i];
                        }
                        (*counts, *squares) = (count, square);
                        *shares = r.map(T::from_f64);
                    }
                }
            },
        );
        shares
    }

    /// Adds the rows `x` from `start` on, by their logits, to the counts and the resultants.
    fn add_block<T: Lanes>(
        &mut self,
        start: usize,
        logits: Vec<f64>,
        x: &[T],
        d: usize,
        assignment: Assignment,
    ) {
        let stride = self.counts.len();
        match assignment {
            Assignment::Soft => {
                let r = self.add::<T>(start, logits);
                skinny::transpose_multiply_add(x, d, &r, stride, &mut self.resultants);
            }
            Assignment::Hard => {
                let winners = self.add_winners(start, &logits);
                add_to_winners(x, d, &winners, &mut self.resultants);
            }
        }
    }

    /// Finds and counts the likeliest components of the rows from `start` on.
    fn add_winners(&mut self, start: usize, logits: &[f64]) -> Vec<usize> {
        let stride = self.counts.len();
        let mut values = vec![0.0; logits.len() / stride];
        let mut found = vec![0; values.len()];
        winners(logits, stride, &mut found, &mut values);
        self.explain(start, &values);
        for &k in &found {
            self.counts[k] += 1.0;
            self.squared_counts[k] += 1.0;
        }
        found
    }

    /// Adds up the log-likelihoods of the rows from `start` on.
    fn explain(&mut self, start: usize, values: &[f64]) {
        for (i, &value) in values.iter().enumerate() {
            self.log_likelihood += value;
            if value < self.worst.0 {
                self.worst = (value, start + i);
            }
        }
    }

    fn merge(mut self, other: &Self) -> Self {
        let add = |a: &mut [f64], b: &[f64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.resultants, &other.resultants);
        add(&mut self.counts, &other.counts);
        add(&mut self.squared_counts, &other.squared_counts);
        self.log_likelihood += other.log_likelihood;
        if other.worst.0 < self.worst.0 {
            self.worst = other.worst;
        }
        self
    }

    fn finish(mut self, k: usize, resultants: Array2<f64>) -> Step {
        self.counts.truncate(k);
        self.squared_counts.truncate(k);
        let mut squared_norms = vec![0.0; k];
        for row in resultants.rows() {
            for (norm, value) in squared_norms.iter_mut().zip(row) {
                *norm += value * value;
            }
        }
        Step {
            resultants,
            squared_norms,
            counts: self.counts,
            squared_counts: self.squared_counts,
            log_likelihood: self.log_likelihood,
            worst: self.worst.1,
        }
    }
}

fn dense_step<T: Lanes>(
    x: Rows<'_, T>,
    model: &Packed<T>,
    assignment: Assignment,
    control: &Control,
) -> Result<Step, Error> {
    let Rows::Dense { values, n_columns: d } = x else { unreachable!("the caller has looked") };
    let (n, stride, block) = (x.n_rows(), model.stride, x.block());
    // Every leaf of the tree has resultants of its own: many leaves to share among threads, but few
    // where the resultants are large.
    let leaves = if d * stride > 1 << 17 { 16 } else { 64 };
    let sums = reduce_blocks(
        n,
        n.div_ceil(leaves).next_multiple_of(block),
        control,
        |range| {
            let mut sums = Sums::new(d, stride);
            for start in range.clone().step_by(block) {
                control.check()?;
                let rows = start..(start + block).min(range.end);
                let logits = model.logits(x, rows.clone());
                match &model.directions {
                    Directions::Working(_) => {
                        let block = &values[rows.start * d..rows.end * d];
                        sums.add_block(rows.start, logits, block, d, assignment);
                    }
                    Directions::Double(_) => {
                        let block = x.in_double(rows.clone(), |i| x.inverse_norm(i));
                        sums.add_block(rows.start, logits, &block, d, assignment);
                    }
                }
            }
            Ok(sums)
        },
        |a, b| a.merge(&b),
    )?;
    let sums = sums.ok_or_else(no_rows)?;
    let mut resultants = Array2::zeros((d, model.k));
    match (assignment, resultants.as_slice_mut()) {
        (Assignment::Soft, Some(out)) => unpad(&sums.resultants, stride, out, model.k),
        (Assignment::Hard, Some(out)) => {
            for (k, sum) in sums.resultants.chunks_exact(d).take(model.k).enumerate() {
                out.iter_mut().skip(k).step_by(model.k).zip(sum).for_each(|(out, sum)| *out = *sum);
            }
        }
        (_, None) => unreachable!("a new array has standard layout"),
    }
    Ok(sums.finish(model.k, resultants))
}

/// Adds every row of `x` to the resultant of the component that has it; here these lie one after the
/// other, so that each row is read once and no product with zeros is made.
fn add_to_winners<T: Lanes>(x: &[T], d: usize, winners: &[usize], resultants: &mut [f64]) {
    vectorize(
        #[inline(always)]
        || {
            for (row, &winner) in x.chunks_exact(d).zip(winners) {
                let resultant = &mut resultants[winner * d..(winner + 1) * d];
                for (sum, &value) in resultant.iter_mut().zip(row) {
                    *sum += value.into();
                }
            }
        },
    );
}

fn sparse_step<T: Lanes>(
    x: Rows<'_, T>,
    columns: Csr<'_, T>,
    model: &Packed<T>,
    assignment: Assignment,
    control: &Control,
) -> Result<Step, Error> {
    let stride = model.stride;
    // The resultants are x' r: the sparse product once more. Summed into every block of rows, they
    // would cost the size of the dense directions a block.
    let columns = Rows::Sparse(columns);
    let (sums, resultants) = match &model.directions {
        Directions::Working(_) => {
            let (sums, r) = shares::<T, T>(x, model, assignment, control)?;
            let multiply = |range, out: &mut [f64]| columns.multiply(range, &r, stride, out);
            (sums, sparse_resultants(x.n_columns(), model, multiply, control)?)
        }
        Directions::Double(_) => {
            let (sums, mut r) = shares::<T, f64>(x, model, assignment, control)?;
            for (i, r) in r.chunks_exact_mut(stride).enumerate() {
                let inverse = x.inverse_norm(i);
                for r in r {
                    *r *= inverse;
                }
            }
            let multiply = |range, out: &mut [f64]| {
                columns.multiply_in_double(range, |_| 1.0, &r, stride, out);
            };
            (sums, sparse_resultants(x.n_columns(), model, multiply, control)?)
        }
    };
    Ok(sums.finish(model.k, resultants))
}

/// The responsibilities of all rows, and their sums without the resultants.
fn shares<T: Lanes, W: Lanes>(
    x: Rows<'_, T>,
    model: &Packed<T>,
    assignment: Assignment,
    control: &Control,
) -> Result<(Sums, Vec<W>), Error> {
    let stride = model.stride;
    let sums = reduce_blocks(
        x.n_rows(),
        x.block(),
        control,
        |range| {
            let mut sums = Sums::new(0, stride);
            let logits = model.logits(x, range.clone());
            let r = match assignment {
                Assignment::Soft => sums.add::<W>(range.start, logits),
                Assignment::Hard => {
                    let mut r = vec![W::zeroed(); logits.len()];
                    let winners = sums.add_winners(range.start, &logits);
                    r.chunks_exact_mut(stride)
                        .zip(winners)
                        .for_each(|(r, k)| r[k] = W::from_f64(1.0));
                    r
                }
            };
            Ok((sums, vec![r]))
        },
        |(a, mut r), (b, mut s)| {
            r.append(&mut s);
            (a.merge(&b), r)
        },
    )?;
    let (sums, r) = sums.ok_or_else(no_rows)?;
    Ok((sums, r.concat()))
}

/// The product that `multiply` adds some rows of to an array of padded rows, without the padding.
fn sparse_resultants<T>(
    d: usize,
    model: &Packed<T>,
    multiply: impl Fn(Range<usize>, &mut [f64]) + Sync,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let Packed { k, stride, .. } = *model;
    let mut resultants = Array2::zeros((d, k));
    if let Some(out) = resultants.as_slice_mut() {
        for_each_chunk(out, 64 * k, control, |start, out| {
            let (start, rows) = (start / k, out.len() / k);
            let mut padded = vec![0.0; rows * stride];
            multiply(start..start + rows, &mut padded);
            unpad(&padded, stride, out, k);
            Ok(())
        })?;
    }
    Ok(resultants)
}

fn no_rows() -> Error {
    Error::Shape { name: "x", expected: "at least one row".into(), got: vec![0] }
}

/// Copies rows of length `stride` to rows of length `k`.
fn unpad(padded: &[f64], stride: usize, out: &mut [f64], k: usize) {
    for (padded, out) in padded.chunks_exact(stride).zip(out.chunks_exact_mut(k)) {
        out.copy_from_slice(&padded[..k]);
    }
}

/// Finds the places of the first maxima of the rows of `logits`; the maxima go to `values`.
fn winners(logits: &[f64], stride: usize, places: &mut [usize], values: &mut [f64]) {
    vectorize(
        #[inline(always)]
        || {
            let rows = logits.chunks_exact(stride);
            for ((row, place), value) in rows.zip(places.iter_mut()).zip(values.iter_mut()) {
                let (mut high, mut first) = ([f64::NEG_INFINITY; 8], [0; 8]);
                let (chunks, _) = row.as_chunks::<8>();
                for (c, chunk) in chunks.iter().enumerate() {
                    for i in 0..8 {
                        first[i] = if chunk[i] > high[i] { 8 * c + i } else { first[i] };
                        high[i] = larger(chunk[i], high[i]);
                    }
                }
                *value = fold(high, larger);
                for i in 0..8 {
                    first[i] = if high[i] < *value { usize::MAX } else { first[i] };
                }
                *place = fold(first, usize::min);
            }
        },
    );
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // ties are exact
mod tests {
    use ndarray::{Array1, Axis};

    use super::*;

    const N: usize = 1500;
    const D: usize = 37;
    const SHARP: f64 = 1e6;

    struct Case<T> {
        x: Array2<T>,
        directions: Array2<f64>,
        scale: Array1<f64>,
        offset: Array1<f64>,
        /// How large the logits or the terms in them are, which their rounding goes with.
        size: f64,
    }

    impl<T: Lanes> Case<T> {
        /// Half of the entries zero, and components whose logits reach from -9 to 9.
        fn flat(k: usize) -> Self {
            let x = Array2::from_shape_fn((N, D), |(i, j)| {
                let u = ((i * 7919 + j * 104729 + i * j * 31) % 1009) as f64 / 1009.0;
                T::from_f64(if u < 0.5 { 0.0 } else { u - 0.75 })
            });
            let directions = Array2::from_shape_fn((D, k), |(j, k)| {
                ((j * 31 + k * 17 + (k / 7) * j * 5) % 101) as f64 / 101.0 - 0.5
            });
            let scale = Array1::from_shape_fn(k, |k| 3.0 + (k % 5) as f64);
            let offset = Array1::from_shape_fn(k, |k| -0.3 * (k % 5) as f64);
            Self { x, directions, scale, offset, size: 1.0 }
        }

        /// Twenty components in several vectors: some hopeless, some without weight, and copies of
        /// one another in different vectors. All logits are moved by `shift`.
        fn far(shift: f64) -> Self {
            let mut case = Self::flat(20);
            case.offset += shift;
            for k in [1, 11, 18] {
                case.offset[k] -= 1000.0;
            }
            for k in [0, 7, 8, 19] {
                case.offset[k] = f64::NEG_INFINITY;
            }
            for (from, to) in [(4, 12), (4, 17), (2, 3)] {
                let column = case.directions.column(from).to_owned();
                case.directions.column_mut(to).assign(&column);
                case.scale[to] = case.scale[from];
                case.offset[to] = case.offset[from];
            }
            case.size = 1000.0;
            case
        }

        /// Unit vectors about a common direction, and components of a high concentration among them.
        fn sharp(k: usize) -> Self {
            let near = |i: usize, j: usize| {
                let u = ((i * 7919 + j * 104729 + i * j * 31) % 1009) as f64 / 1009.0 - 0.5;
                if j.is_multiple_of(2) { 1.0 + 2e-2 * u } else { 0.0 }
            };
            let unit = |mut x: Array2<f64>| {
                for mut row in x.rows_mut() {
                    let norm = row.dot(&row).sqrt();
                    row /= norm;
                }
                x
            };
            let x = unit(Array2::from_shape_fn((N, D), |(i, j)| near(i, j))).mapv(T::from_f64);
            let directions = unit(Array2::from_shape_fn((k, D), |(k, j)| near(N + 3 * k, j)));
            let scale = Array1::from_elem(k, SHARP);
            let offset = Array1::from_shape_fn(k, |k| -SHARP - 0.3 * k as f64);
            Self { x, directions: directions.reversed_axes(), scale, offset, size: SHARP }
        }

        fn all() -> Vec<Self> {
            let flat = [1, 5, 8, 20, 41].into_iter().map(Self::flat);
            let far = [-1000.0, 0.0, 1000.0].into_iter().map(Self::far);
            flat.chain(far).chain([Self::sharp(5), Self::sharp(20)]).collect()
        }

        fn components(&self) -> Components<'_> {
            Components {
                directions: self.directions.view(),
                scale: self.scale.view(),
                offset: self.offset.view(),
            }
        }

        /// The formulas of the module's head, word for word.
        fn plain(&self, assignment: Assignment) -> (Array2<f64>, Vec<f64>, f64) {
            let mut x = self.x.mapv(Into::<f64>::into);
            if self.size == SHARP {
                for mut row in x.rows_mut() {
                    let norm = row.dot(&row).sqrt();
                    row /= norm;
                }
            }
            let mut r = x.dot(&self.directions) * &self.scale + &self.offset;
            let mut total = 0.0;
            for mut row in r.rows_mut() {
                let high = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let sum: f64 = row.iter().map(|l| (l - high).exp()).sum();
                match assignment {
                    Assignment::Soft => {
                        row.mapv_inplace(|l| (l - high).exp() / sum);
                        total += high + sum.ln();
                    }
                    Assignment::Hard => {
                        let first = row.iter().position(|&l| l == high).unwrap();
                        row.fill(0.0);
                        row[first] = 1.0;
                        total += high;
                    }
                }
            }
            (x.t().dot(&r), r.sum_axis(Axis(0)).to_vec(), total)
        }
    }

    struct Compressed<T> {
        indptr: Vec<u64>,
        indices: Vec<u32>,
        values: Vec<T>,
    }

    fn compress<T: Lanes>(x: &ArrayView2<'_, T>) -> Compressed<T> {
        let mut out = Compressed { indptr: vec![0], indices: vec![], values: vec![] };
        for row in x.rows() {
            for (j, &value) in row.iter().enumerate().filter(|(_, value)| (**value).into() != 0.0) {
                out.indices.push(j as u32);
                out.values.push(value);
            }
            out.indptr.push(out.values.len() as u64);
        }
        out
    }

    /// `tolerance` is that of sums and small logits, in the precision of the data.
    fn check<T: Lanes>(case: &Case<T>, tolerance: f64) {
        let (x, components) = (&case.x, case.components());
        let dense = Rows::dense(x.view()).unwrap();
        let (rows, columns) = (compress(&x.view()), compress(&x.t()));
        let sparse = Csr::new(&rows.indptr, &rows.indices, &rows.values, D).unwrap();
        let turned = Csr::new(&columns.indptr, &columns.indices, &columns.values, N).unwrap();
        let control = Control::sequential();
        // High concentrations are computed in double precision, whatever the data.
        let tolerance = if case.size == SHARP { 1e-14 } else { tolerance };
        let bound = tolerance.max(1e-14 * case.size) * N as f64;
        for assignment in [Assignment::Soft, Assignment::Hard] {
            let (resultants, counts, total) = case.plain(assignment);
            for (x, transposed) in [(dense, None), (Rows::Sparse(sparse), Some(turned))] {
                let found = step(x, transposed, components, assignment, &control).unwrap();
                let error = (&found.resultants - &resultants).mapv(f64::abs).sum();
                assert!(error <= bound, "{assignment:?} {error}");
                assert!((found.log_likelihood - total).abs() <= bound);
                assert_eq!(found.counts.len(), counts.len());
                for (a, b) in found.counts.iter().zip(&counts) {
                    assert!((a - b).abs() <= bound);
                }
                // On the pool: the same bits.
                let again = step(x, transposed, components, assignment, &Control::new()).unwrap();
                assert_eq!(found, again);
            }
        }
    }

    #[test]
    fn a_step_agrees_with_the_formulas_dense_and_sparse_on_any_threads() {
        for case in Case::all() {
            check::<f64>(&case, 1e-14);
        }
        for case in Case::all() {
            check::<f32>(&case, 1e-6);
        }
    }

    #[test]
    fn rows_agree_with_sums() {
        for case in Case::<f64>::all() {
            let rows = Rows::dense(case.x.view()).unwrap();
            let components = case.components();
            let control = Control::sequential();
            let values = log_sum_exp(rows, components, &control).unwrap();
            let found = step(rows, None, components, Assignment::Soft, &control).unwrap();
            let bound = 1e-9 * case.size;
            assert!((values.iter().sum::<f64>() - found.log_likelihood).abs() < bound);
            assert!(values.iter().all(|value| *value >= values[found.worst]));
            let r = responsibilities(rows, components, &control).unwrap();
            assert!(r.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-14));
            let labels = labels(rows, components, &control).unwrap();
            for (label, r) in labels.into_iter().zip(r.rows()) {
                assert!(r.iter().all(|share| *share <= r[label]));
                // Of components that are the same, the first.
                assert_eq!(r.iter().position(|share| *share == r[label]), Some(label));
            }
            for (r, offset) in r.columns().into_iter().zip(&case.offset) {
                assert!(*offset > f64::NEG_INFINITY || r.iter().all(|share| *share == 0.0));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let case = Case::<f64>::flat(5);
        let (x, components) = (&case.x, case.components());
        let control = Control::sequential();
        let short = Rows::dense(x.view()).unwrap();
        let narrow = Components { directions: case.directions.t(), ..components };
        assert!(step(short, None, narrow, Assignment::Soft, &control).is_err());
        let empty: Rows<'_, f64> = Rows::Dense { values: &[], n_columns: D };
        assert!(step(empty, None, components, Assignment::Soft, &control).is_err());
        let rows = compress(&x.view());
        let sparse = Csr::new(&rows.indptr, &rows.indices, &rows.values, D).unwrap();
        let lonely = step(Rows::Sparse(sparse), None, components, Assignment::Soft, &control);
        assert!(lonely.is_err());
        assert!(Csr::new(&[0, 2, 1], &[0], &[1.0], 1).is_err());
        assert!(Csr::new(&[0, 1], &[3], &[1.0], 3).is_err());
        assert!(Csr::<f64>::new(&[], &[], &[], 3).is_err());
        let cancelled = Control::new();
        cancelled.cancel();
        let stopped = step(short, None, components, Assignment::Soft, &cancelled);
        assert_eq!(stopped, Err(Error::Cancelled));
    }
}
