//! The subsampled randomized Hadamard transform, `S = P H D / sqrt(m)`: random signs, the
//! Walsh-Hadamard transform of N rows, and m of its rows without replacement.
//!
//! `H_N` is the Kronecker product of `H_R` and `H_B` for N = R B: rows are transformed in blocks of B,
//! which stay in a cache, and each block is added to the m rows of the result with the signs of
//! `H_R`. So neither the N rows nor a padded copy of the input is ever held.

use core::ops::Range;
use std::collections::HashSet;

use ndarray::{Array2, ArrayView2};

use super::hadamard::walsh_hadamard;
use crate::linalg::{Lanes, Rows};
use crate::memory::{room, shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Separates the signs from the choice of rows under one key.
const ROWS: u64 = 1;
/// Rows whose signs come from one stream: a bit each of its 64 words.
const GROUP: usize = 64 * 64;
/// Doubles of a block: half of the second cache, the other half for the result.
const BLOCK: usize = 1 << 16;
/// Most sums that are made before they are added up: what may run at a time.
const PARTS: usize = 16;

/// A subsampled randomized Hadamard transform.
#[derive(Debug, Clone, Copy)]
pub struct Srht<'a> {
    /// The rows of the transform that are kept, rising, from [`srht_rows`].
    pub rows: &'a [u64],
    /// Number of rows of the input; the transform runs over the next power of two.
    pub n_input: usize,
    /// The key of the signs.
    pub key: Key,
}

/// Draws between looks at the control.
const DRAWS: u64 = 1024;
/// Numbers for each one chosen, up to which they have a bit each.
const SPARSE: usize = 256;

/// `m` of the numbers below `n`, rising: every subset is equally likely.
///
/// O(m), and O(m log m) for m below n / 256.
///
/// # Errors
/// [`Error::Domain`] where `m` is above `n`; [`Error::Memory`], [`Error::Cancelled`]
pub fn srht_rows(m: usize, n: usize, key: Key, control: &Control) -> Result<Vec<u64>, Error> {
    if m > n {
        return Err(Error::Domain { name: "m", expected: "at most 'n'", got: m as f64 });
    }
    if m < n / SPARSE {
        let mut chosen = HashSet::new();
        chosen.try_reserve(m).map_err(|_| Error::Memory { shape: vec![m] })?;
        draw_distinct(m, n, key, control, |number| chosen.insert(number))?;
        let mut rows: Vec<u64> = chosen.into_iter().collect();
        rows.sort_unstable();
        return Ok(rows);
    }
    let n_words = n.div_ceil(64);
    let mut bits: Vec<u64> = room(&[n_words])?;
    bits.resize(n_words, 0);
    draw_distinct(m, n, key, control, |number| {
        let (word, bit) = (&mut bits[(number / 64) as usize], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    })?;
    let mut rows = room(&[m])?;
    for (first, mut word) in (0..).step_by(64).zip(bits) {
        while word != 0 {
            rows.push(first + u64::from(word.trailing_zeros()));
            word &= word - 1;
        }
    }
    Ok(rows)
}

/// Inserts `m` distinct numbers below `n` into a set, whose `insert` says whether one is new.
fn draw_distinct(
    m: usize,
    n: usize,
    key: Key,
    control: &Control,
    mut insert: impl FnMut(u64) -> bool,
) -> Result<(), Error> {
    let mut stream = Stream::new(key.with_tag(ROWS), 0);
    // Floyd's algorithm (Bentley and Floyd 1987).
    for last in (n - m) as u64..n as u64 {
        if last.is_multiple_of(DRAWS) {
            control.check()?;
        }
        if !insert(stream.below(last + 1)) {
            insert(last);
        }
    }
    Ok(())
}

/// The signs of the rows `range`, each 1 or -1.
///
/// # Errors
/// [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
pub fn srht_signs(range: Range<usize>, key: Key, control: &Control) -> Result<Vec<f64>, Error> {
    super::check_part("range", range.start, [range.len(), 1], super::LONGEST)?;
    let mut out = zeros(&[range.len()])?;
    for_each_chunk(&mut out, GROUP, control, |at, out| {
        let first = range.start + at;
        out.copy_from_slice(&signs(first..first + out.len(), key));
        Ok(())
    })?;
    Ok(out)
}

fn signs(range: Range<usize>, key: Key) -> Vec<f64> {
    let mut signs = Vec::with_capacity(range.len() + GROUP);
    let first = range.start / GROUP;
    for group in first..range.end.div_ceil(GROUP) {
        let mut stream = Stream::new(key, group as u64);
        for _ in 0..64 {
            let word = stream.next_u64();
            signs.extend((0..64).map(|bit| f64::from(1 - 2 * (word >> bit & 1) as i32)));
        }
    }
    signs.drain(..(range.start - first * GROUP).min(signs.len()));
    signs.truncate(range.len());
    signs
}

impl Srht<'_> {
    fn check(&self) -> Result<(), Error> {
        if self.n_input > super::LONGEST {
            let (expected, got) = ("below 2^63", self.n_input as f64);
            return Err(Error::Domain { name: "n_input", expected, got });
        }
        let n = self.n_padded() as u64;
        match self.rows.iter().find(|&&row| row >= n) {
            None => Ok(()),
            Some(&row) => {
                let expected = "below the power of two that 'n_input' is padded to";
                Err(Error::Domain { name: "rows", expected, got: row as f64 })
            }
        }
    }

    fn n_padded(&self) -> usize {
        self.n_input.next_power_of_two()
    }

    /// Rows of a block: in a cache, but not so few that adding them up, m additions a block, costs
    /// more than the transform; and no more than a small chunk needs.
    fn block(&self, n_rows: usize, d: usize) -> usize {
        let cached = (BLOCK / d.max(1)).max(2).next_power_of_two() / 2;
        let few = self.rows.len().next_power_of_two();
        cached.max(few).min(n_rows.next_power_of_two().max(16)).min(self.n_padded())
    }

    /// What rows `start..` of the input, which are `x`, add to the product of the sketch with it.
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply<T: Lanes>(
        &self,
        x: Rows<'_, T>,
        start: usize,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        let (m, n, d) = (self.rows.len(), x.n_rows(), x.n_columns());
        self.check()?;
        super::check_part("x", start, [n, d], self.n_input)?;
        if n == 0 || d == 0 {
            return Ok(shaped((m, d), zeros(&[m, d])?));
        }
        let size = self.block(n, d);
        let blocks = start / size..(start + n).div_ceil(size);
        let part = |range: Range<usize>| {
            let mut sums = zeros(&[m, d])?;
            let mut block = zeros(&[size, d])?;
            for k in range {
                let k = blocks.start + k;
                self.fill(&mut block, x, start, k * size);
                walsh_hadamard(&mut block, d, control)?;
                self.accumulate(&mut sums, &block, d, k, size);
            }
            Ok(sums)
        };
        let at_a_time = blocks.len().div_ceil(PARTS);
        let found = reduce_blocks(blocks.len(), at_a_time, control, part, super::add)?;
        let mut sums = found.map_or_else(|| zeros(&[m, d]), Ok)?;
        super::scale(&mut sums, (m as f64).sqrt().recip());
        Ok(shaped((m, d), sums))
    }

    /// Rows `first..` of the padded input with their signs, as many as `block` holds.
    fn fill<T: Lanes>(&self, block: &mut [f64], x: Rows<'_, T>, start: usize, first: usize) {
        let d = x.n_columns();
        block.fill(0.0);
        let size = block.len().checked_div(d).unwrap_or(0);
        let rows = first.max(start)..(first + size).min(start + x.n_rows());
        let signs = signs(rows.clone(), self.key);
        match x {
            Rows::Dense { values, .. } => {
                let values = &values[(rows.start - start) * d..(rows.end - start) * d];
                let block = &mut block[(rows.start - first) * d..(rows.end - first) * d];
                vectorize(
                    #[inline(always)]
                    || {
                        let pairs = block.chunks_exact_mut(d).zip(values.chunks_exact(d));
                        for ((out, row), &sign) in pairs.zip(&signs) {
                            for (out, &value) in out.iter_mut().zip(row) {
                                *out = sign * value.into();
                            }
                        }
                    },
                );
            }
            Rows::Sparse(csr) => {
                for (i, sign) in rows.zip(signs) {
                    let (columns, values) = csr.row(i - start);
                    for (&column, &value) in columns.iter().zip(values) {
                        block[(i - first) * d + column as usize] += sign * value.into();
                    }
                }
            }
        }
    }

    /// Adds the k-th transformed block to the rows of the result.
    fn accumulate(&self, sums: &mut [f64], block: &[f64], d: usize, k: usize, size: usize) {
        vectorize(
            #[inline(always)]
            || {
                for (sums, &row) in sums.chunks_exact_mut(d).zip(self.rows) {
                    let (q, s) = (row as usize / size, row as usize % size);
                    let values = &block[s * d..(s + 1) * d];
                    if (q & k).count_ones().is_multiple_of(2) {
                        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                    } else {
                        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum -= value);
                    }
                }
            },
        );
    }

    /// The product of the transposed sketch with `y`, of shape (m, k): shape (n, k).
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply_transpose(
        &self,
        y: ArrayView2<'_, f64>,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        self.check()?;
        let (m, k) = super::check_rows(y, self.rows.len())?;
        let mut padded: Vec<f64> = zeros(&[self.n_padded(), k])?;
        let scale = (m as f64).sqrt().recip();
        for (&row, y) in self.rows.iter().zip(y.rows()) {
            let out = &mut padded[row as usize * k..(row as usize + 1) * k];
            out.iter_mut().zip(y).for_each(|(out, y)| *out = scale * y);
        }
        walsh_hadamard(&mut padded, k, control)?;
        padded.truncate(self.n_input * k);
        for_each_chunk(&mut padded, GROUP * k.max(1), control, |at, chunk| {
            let first = at / k;
            let signs = signs(first..first + chunk.len() / k, self.key);
            for (row, sign) in chunk.chunks_exact_mut(k).zip(signs) {
                for value in row {
                    *value *= sign;
                }
            }
            Ok(())
        })?;
        Ok(shaped((self.n_input, k), padded))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_distinct_and_every_subset_is_as_likely() {
        let rows = |m, n, seed| srht_rows(m, n, Key::new(seed), &Control::new()).unwrap();
        assert_eq!(rows(8, 8, 0), (0..8).collect::<Vec<_>>());
        let mut counts = [0.0; 6];
        for seed in 0..6000 {
            let [a, b] = rows(2, 4, seed)[..] else { panic!("two rows") };
            assert!(a < b);
            counts[(a * (5 - a) / 2 + b - 1) as usize] += 1.0;
        }
        // Chi-squared with 5 degrees of freedom passes 35.9 with probability 1e-6.
        let chi: f64 = counts.iter().map(|c: &f64| (c - 1e3).powi(2) / 1e3).sum();
        assert!(chi < 35.9, "{counts:?}");
    }

    #[test]
    fn rows_are_those_of_floyds_algorithm_on_an_ordered_set() {
        // Numbers with a bit each, and few among many.
        for (m, n) in
            [(0, 0), (0, 5), (1, 1), (64, 64), (65, 130), (3000, 1 << 19), (1900, 1 << 19)]
        {
            let mut stream = Stream::new(Key::new(9).with_tag(ROWS), 0);
            let mut expected = BTreeSet::new();
            for last in (n - m) as u64..n as u64 {
                let drawn = stream.below(last + 1);
                expected.insert(if expected.contains(&drawn) { last } else { drawn });
            }
            let found = srht_rows(m, n, Key::new(9), &Control::new()).unwrap();
            assert!(found.into_iter().eq(expected), "m={m} n={n}");
        }
    }

    #[test]
    fn a_draw_of_rows_can_be_cancelled() {
        let control = Control::new();
        control.cancel();
        for m in [2000, 1 << 19] {
            assert_eq!(srht_rows(m, 1 << 20, Key::new(0), &control), Err(Error::Cancelled));
        }
    }

    #[test]
    fn signs_do_not_depend_on_where_the_range_begins() {
        let signs = |range| srht_signs(range, Key::new(7), &Control::new()).unwrap();
        let all = signs(0..3 * GROUP);
        for range in [5..6, 0..64, GROUP - 1..GROUP + 1, 100..2 * GROUP + 7, 9..9] {
            assert_eq!(signs(range.clone()), all[range]);
        }
    }

    #[test]
    fn blocks_of_any_size_give_the_product_with_the_whole_matrix() {
        // Integers, and a number of rows whose root is exact: every sum is.
        for (n, d, m) in [(3000_usize, 90, 64), (5000, 3, 4096), (70, 1, 4), (1, 2, 1)] {
            let x: Vec<f64> = (0..n * d).map(|i| ((i * 31 + 5) % 11) as f64 - 5.0).collect();
            let padded = n.next_power_of_two();
            let (key, control) = (Key::new(3), Control::new());
            let rows = srht_rows(m, padded, key, &control).unwrap();
            let sketch = Srht { rows: &rows, n_input: n, key };
            let view = Rows::Dense { values: &x, n_columns: d };
            let found = sketch.apply(view, 0, &control).unwrap();
            let mut full = vec![0.0; padded * d];
            for (i, sign) in signs(0..n, key).into_iter().enumerate() {
                (0..d).for_each(|j| full[i * d + j] = sign * x[i * d + j]);
            }
            walsh_hadamard(&mut full, d, &control).unwrap();
            let root = (m as f64).sqrt();
            for (i, &row) in rows.iter().enumerate() {
                for j in 0..d {
                    assert_eq!(found[[i, j]], full[row as usize * d + j] / root, "n={n} d={d}");
                }
            }
            let parts = [0..n / 3, n / 3..n / 3, n / 3..n].map(|range| {
                let values = &x[range.start * d..range.end * d];
                let part = Rows::Dense { values, n_columns: d };
                sketch.apply(part, range.start, &Control::sequential()).unwrap()
            });
            assert_eq!(&(&parts[0] + &parts[1]) + &parts[2], found);
        }
    }
}
