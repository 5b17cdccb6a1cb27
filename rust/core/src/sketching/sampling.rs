//! Draws of rows, each decided by a number that belongs to the row.

use ndarray::ArrayView1;

use crate::memory::zeros;
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Rows decided together, a multiple of 64.
const BLOCK: usize = 4096;
/// Passes after which the rows that are kept for certain are found among many.
const PASSES: usize = 24;
/// How far a level may be too low, for the first look at few rows.
const SPREAD: f64 = 4.0;
/// The scales of scores beside 1, 2^-64 and 2^600: sums of the largest stay finite, and levels of the
/// smallest.
const LOW: f64 = 1.0 / (1_u128 << 64) as f64;
const HIGH: f64 = f64::from_bits((1023 + 600) << 52);
/// Factors beyond this one ask for the next scale: 2^900.
const MOST: f64 = f64::from_bits((1023 + 900) << 52);

/// One uniform variate of (0, 1) for each of the rows from `start`: it depends on the key and the number
/// of the row alone.
///
/// # Errors
/// [`Error::Memory`], [`Error::Cancelled`]
pub fn row_uniforms(key: Key, start: u64, n: usize, control: &Control) -> Result<Vec<f64>, Error> {
    let mut out = zeros(&[n])?;
    for_each_chunk(&mut out, BLOCK, control, |offset, out| {
        fill(key, start + offset as u64, out);
        Ok(())
    })?;
    Ok(out)
}

fn fill(key: Key, start: u64, out: &mut [f64]) {
    let before = (start % 64) as usize;
    let mut stream = Stream::skipping(key, 0, start - before as u64);
    if before == 0 {
        return stream.fill_uniform(out);
    }
    let mut all = vec![0.0; before + out.len()];
    stream.fill_uniform(&mut all);
    out.copy_from_slice(&all[before..]);
}

/// What makes scores s probabilities, `min(1, c s)`.
///
/// The level c is a product: that of tiny scores is larger than a double can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// A power of two, which scores are multiplied by first.
    pub scale: f64,
    /// What they are multiplied by then.
    pub factor: f64,
}

impl Level {
    /// The probability of a row of this score.
    #[inline(always)]
    pub fn probability(self, score: f64) -> f64 {
        (score * self.scale * self.factor).min(1.0)
    }

    /// The probabilities of rows of these scores.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Cancelled`]
    pub fn probabilities(
        self,
        scores: ArrayView1<'_, f64>,
        control: &Control,
    ) -> Result<Vec<f64>, Error> {
        let mut out = zeros(&[scores.len()])?;
        for_each_chunk(&mut out, BLOCK, control, |start, out| {
            for (i, out) in (start..).zip(out) {
                *out = self.probability(scores[i]);
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Counts a score if it is certain, or adds it to the others. A level of 0 makes none certain: then
    /// positive scores are counted.
    #[inline(always)]
    fn sort_in(self, score: f64, rest: &mut f64, count: &mut f64) {
        let scaled = score * self.scale;
        let certain = scaled * self.factor >= 1.0;
        let counted = if self.factor == 0.0 { score > 0.0 } else { certain };
        *rest += if certain { 0.0 } else { scaled };
        *count += if counted { 1.0 } else { 0.0 };
    }

    /// The scale above this one, and a level there that is too low where `MOST` is here.
    fn raised(self) -> Self {
        let scale = if self.scale < 1.0 { 1.0 } else { HIGH };
        Self { scale, factor: MOST * (self.scale / scale) }
    }
}

/// The level for which the probabilities of all rows sum up to `size`; none where no more scores than
/// that are positive. Scores must be nonnegative and finite.
///
/// From a level that is too low, Newton's method gives one that is not too high. It goes over all rows
/// only while that level is off by more than the factor `SPREAD`, and from there over those few that
/// this factor makes certain. O(n) where the scores are not spread over hundreds of decades.
///
/// # Errors
/// [`Error::Domain`] for bad scores, or a size that is not positive; [`Error::Memory`],
/// [`Error::Cancelled`]
pub fn water_level(
    scores: ArrayView1<'_, f64>,
    size: f64,
    control: &Control,
) -> Result<Option<Level>, Error> {
    if size.is_nan() || size <= 0.0 {
        return Err(Error::Domain { name: "size", expected: "positive", got: size });
    }
    let copy: Vec<f64>;
    let scores = if let Some(slice) = scores.to_slice() {
        slice
    } else {
        copy = scores.to_vec();
        &copy
    };
    let few = size * SPREAD < scores.len() as f64 / 8.0;
    let (mut level, mut spread) = (Level { scale: 1.0, factor: 0.0 }, SPREAD);
    let mut passes = 0;
    loop {
        let first = level.factor == 0.0;
        let collects = !first && (few || passes > PASSES);
        let high = Level { factor: level.factor * if collects { spread } else { 1.0 }, ..level };
        let split = Split::new(scores, high, collects, control)?;
        if first && split.count <= size {
            return Ok(None);
        }
        let rest = split.rest;
        if rest == f64::INFINITY && level.scale > LOW {
            level.scale = LOW;
            continue;
        }
        let next = if collects {
            split.fill(size, control)?
        } else if first {
            size / rest
        } else if split.count < size {
            (size - split.count) / rest
        } else {
            level.factor // all of the size is certain
        };
        if next > MOST && level.scale < HIGH {
            level = level.raised();
            continue;
        }
        if !(next.is_finite() && rest.is_finite()) {
            let expected = "nonnegative and finite, with finite sums";
            return Err(Error::Domain { name: "scores", expected, got: rest });
        }
        if next <= high.factor {
            // Not below it but for rounding.
            return Ok(Some(Level { factor: next.max(level.factor), ..level }));
        }
        if collects {
            spread *= spread;
        }
        level.factor = next;
        passes += 1;
    }
}

/// Scores on both sides of where a level makes rows certain.
#[derive(Default)]
struct Split {
    /// Those that are certain, times the scale, if they were asked for.
    above: Vec<f64>,
    /// Their number; that of the positive scores where the level is 0.
    count: f64,
    /// The sum of the others, times the scale.
    rest: f64,
}

impl Split {
    fn new(scores: &[f64], level: Level, collects: bool, control: &Control) -> Result<Self, Error> {
        let Level { scale, factor } = level;
        let block = |rows: core::ops::Range<usize>| {
            let scores = &scores[rows];
            let (sums, counts) = vectorize(
                #[inline(always)]
                || {
                    let (mut sums, mut counts) = ([0.0; 8], [0.0; 8]);
                    let (chunks, last) = scores.as_chunks::<8>();
                    for chunk in chunks {
                        for i in 0..8 {
                            level.sort_in(chunk[i], &mut sums[i], &mut counts[i]);
                        }
                    }
                    for (i, &score) in last.iter().enumerate() {
                        level.sort_in(score, &mut sums[i], &mut counts[i]);
                    }
                    (sums, counts)
                },
            );
            let count: f64 = counts.iter().sum();
            let mut above = Vec::new();
            if collects && count > 0.0 {
                let scaled = scores.iter().map(|score| score * scale);
                above.extend(scaled.filter(|scaled| scaled * factor >= 1.0));
            }
            Ok(Self { above, count, rest: sums.iter().sum() })
        };
        Ok(reduce_blocks(scores.len(), BLOCK, control, block, Self::merge)?.unwrap_or_default())
    }

    fn merge(mut self, mut other: Self) -> Self {
        self.above.append(&mut other.above);
        Self { above: self.above, count: self.count + other.count, rest: self.rest + other.rest }
    }

    /// The factor for which the probabilities sum up to `size`, if none of the others becomes certain:
    /// the half that cannot hold the first score that is not certain is left out, until none is left.
    fn fill(mut self, size: f64, control: &Control) -> Result<f64, Error> {
        let (mut left, mut rest, mut above) = (size, self.rest, &mut self.above[..]);
        while !above.is_empty() {
            control.check()?;
            let middle = above.len() / 2;
            let (high, &mut pivot, low) =
                above.select_nth_unstable_by(middle, |a, b| b.total_cmp(a));
            let sum = |unit: f64| -> f64 {
                low.chunks(BLOCK).map(|part| part.iter().map(|x| x / unit).sum::<f64>()).sum()
            };
            let n_high = high.len() as f64 + 1.0;
            // With the level 1 / pivot, at which the pivot becomes certain; sums of the largest scores
            // may overflow, and those of ratios do not.
            if rest / pivot + sum(pivot) >= left - n_high {
                rest += pivot + sum(1.0);
                above = high;
            } else {
                left -= n_high;
                above = low;
            }
        }
        Ok(left / rest)
    }
}

/// The rows that are kept, each with its probability and on its own: row i, which is number
/// `start + i` of all, where its uniform variate lies below.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn bernoulli(
    scores: ArrayView1<'_, f64>,
    level: Level,
    key: Key,
    start: u64,
    control: &Control,
) -> Result<Vec<i64>, Error> {
    let block = |rows: core::ops::Range<usize>| {
        let mut uniforms = vec![0.0; rows.len()];
        fill(key, start + rows.start as u64, &mut uniforms);
        let mut kept = Vec::new();
        for (i, u) in rows.zip(uniforms) {
            if u < level.probability(scores[i]) {
                kept.push((start + i as u64).cast_signed());
            }
        }
        Ok(kept)
    };
    let merge = |mut a: Vec<i64>, mut b: Vec<i64>| {
        a.append(&mut b);
        a
    };
    Ok(reduce_blocks(scores.len(), BLOCK, control, block, merge)?.unwrap_or_default())
}

/// The rows that the ordered pivotal method keeps: row i with probability `p_i`, and together as many
/// as the probabilities sum up to, which must be a whole number.
///
/// Deville and Tillé (1998): of two rows one settles, kept or not, and the other carries what is left.
/// O(n), on the calling thread.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn pivotal(
    probabilities: ArrayView1<'_, f64>,
    key: Key,
    control: &Control,
) -> Result<Vec<i64>, Error> {
    let mut kept = Vec::new();
    let mut uniforms = vec![0.0; BLOCK];
    let (mut carrier, mut carried) = (0, 0.0_f64);
    for start in (0..probabilities.len()).step_by(BLOCK) {
        control.check()?;
        let rows = start..(start + BLOCK).min(probabilities.len());
        fill(key, start as u64, &mut uniforms);
        for (row, &u) in rows.zip(&uniforms) {
            let p = probabilities[row];
            if p >= 1.0 {
                kept.push(row as u64);
                continue;
            }
            let sum = carried + p;
            if sum < 1.0 {
                if u * sum < p {
                    carrier = row;
                }
                carried = sum;
            } else {
                let (settled, other) =
                    if u * (2.0 - sum) < 1.0 - carried { (row, carrier) } else { (carrier, row) };
                kept.push(settled as u64);
                carrier = other;
                carried = sum - 1.0;
            }
        }
        control.advance(BLOCK as u64);
    }
    if carried > 0.5 {
        kept.push(carrier as u64); // 1 but for rounding
    }
    kept.sort_unstable();
    Ok(kept.into_iter().map(u64::cast_signed).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, arr1};

    use super::*;

    #[test]
    fn the_uniforms_of_rows_do_not_depend_on_where_a_chunk_begins() {
        let control = Control::new();
        let key = Key::new(3);
        let all = row_uniforms(key, 0, 20_000, &control).unwrap();
        for (start, n) in [(0, 1), (1, 70), (63, 2), (64, 64), (4095, 9000), (12_345, 7655)] {
            let part = row_uniforms(key, start as u64, n, &control).unwrap();
            assert_eq!(part, all[start..start + n]);
        }
    }

    /// Checks the level by its definition; sums of probabilities are pairwise.
    fn check_level(scores: Vec<f64>, size: f64) {
        let scores = Array1::from_vec(scores);
        let level = water_level(scores.view(), size, &Control::new()).unwrap().unwrap();
        let expected = level.probabilities(scores.view(), &Control::new()).unwrap();
        let expected = Array1::from_vec(expected).sum();
        assert!((expected - size).abs() < 1e-12 * size, "{expected} {size} {level:?}");
        let alone = water_level(scores.view(), size, &Control::sequential()).unwrap();
        assert_eq!(alone, Some(level));
    }

    #[test]
    fn the_level_makes_the_expected_size() {
        let geometric = |ratio: f64, n| (0..n).map(|i| ratio.powi(i)).collect::<Vec<_>>();
        let mut uniforms = vec![0.0; 50_000];
        Stream::new(Key::new(5), 0).fill_uniform(&mut uniforms);
        let pareto: Vec<f64> = uniforms.iter().map(|u| u.powf(-2.0)).collect();
        for (scores, size) in [
            (vec![1.0, 1.0, 1.0, 1.0], 2.0),
            (vec![10.0, 1.0, 0.0, 1.0], 2.0),
            (geometric(0.7, 200), 60.0),
            (geometric(0.7, 2000), 1500.0),
            (geometric(0.7, 2000), 20.0),
            (geometric(0.9999, 60_000), 300.0),
            (vec![1e-200, 1e200, 1e-200], 1.5),
            (vec![0.3; 40_000], 20_000.0),
            (uniforms, 10.5),
            (pareto.clone(), 500.0),
            (pareto, 40_000.0),
        ] {
            check_level(scores, size);
        }
    }

    #[test]
    fn scores_of_all_doubles_have_a_level() {
        let (tiny, huge) = (5e-324, f64::MAX);
        for (scores, size) in [
            (vec![tiny; 4], 2.0),
            (vec![1.0, tiny, tiny, 2.0 * tiny, 0.0], 2.5),
            (vec![huge; 5], 1.5),
            (vec![huge, huge, tiny], 2.0),
            (vec![huge, tiny, huge, tiny, tiny, huge], 4.5),
            (vec![1e-310, 2e-310, 1e-320, 3e-311], 1.75),
            ([vec![tiny; 1000], vec![huge; 10]].concat(), 12.0),
            ([vec![tiny; 1000], vec![1e-300; 500], vec![1.0; 10]].concat(), 700.0),
        ] {
            check_level(scores, size);
        }
    }

    #[test]
    fn all_rows_need_no_level_and_bad_scores_have_none() {
        let control = Control::new();
        let level = |scores: &[f64], size| water_level(ArrayView1::from(scores), size, &control);
        assert_eq!(level(&[1.0, 0.0, 2.0], 2.0), Ok(None));
        assert_eq!(level(&[], 1.0), Ok(None));
        for scores in [[1.0, f64::NAN, 1.0], [1.0, f64::INFINITY, 1.0]] {
            let refused = level(&scores, 1.0);
            assert!(matches!(refused, Err(Error::Domain { name: "scores", .. })), "{refused:?}");
        }
        assert!(matches!(level(&[1.0], 0.0), Err(Error::Domain { name: "size", .. })));
        control.cancel();
        assert_eq!(level(&[1.0; 9], 2.0), Err(Error::Cancelled));
    }

    #[test]
    fn pivotal_draws_have_their_size_and_keep_what_is_certain() {
        let probabilities = arr1(&[0.3, 1.0, 0.7, 0.5, 0.25, 0.25]);
        let mut counts = [0.0; 6];
        for seed in 0..20_000 {
            let kept = pivotal(probabilities.view(), Key::new(seed), &Control::new()).unwrap();
            assert_eq!(kept.len(), 3);
            for row in kept {
                counts[row as usize] += 1.0;
            }
        }
        for (count, p) in counts.into_iter().zip(&probabilities) {
            // Five standard deviations.
            assert!((count / 20_000.0 - p).abs() < 5.0 * (0.25_f64 / 20_000.0).sqrt());
        }
    }
}
